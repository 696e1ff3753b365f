"""The decoder by hand: losses and gradients of the model's own forward, and no model that it would get wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.adapters.kinds import create_bank
from harness.contract.specs import GatedPrefix, LoRA, SoftPrompt
from harness.engines import engine_for
from harness.engines.batching import Entry, Row, collate, share_out
from harness.engines.llama_cpu import attention, batch, low_rank
from harness.engines.llama_cpu.decoder import read_decoder
from harness.engines.llama_cpu.engine import LlamaCpuEngine
from harness.engines.llama_cpu.scripted import scripted, slowed
from harness.engines.transformers_engine import TransformersEngine
from harness.errors import HarnessError
from harness.model.prompts import Encoded
from harness.training.bank_training import TrainOptions, fit_bank

EVERYWHERE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SPECS = [
    SoftPrompt(3),
    SoftPrompt(2, kind="discrete"),
    SoftPrompt(3, kind="kv"),
    LoRA(rank=2),
    LoRA(rank=3, targets=EVERYWHERE),
]
IDS = ["prompt", "discrete", "kv", "lora", "lora-everywhere"]
CONFIGS = [
    ("qwen2", {}),
    ("qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    ("llama", {"attention_bias": True}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
]


def wave_of(backbone, bank, lengths, generator):
    """Rows of the given lengths, two an adapter, labels on a third of their places."""
    entries = []
    for i, length in enumerate(lengths):
        positions = np.sort(generator.choice(length, max(1, length // 3), replace=False))
        targets = generator.integers(3, 60, len(positions))
        ids = generator.integers(3, 60, length)
        entries.append(Entry(2 * (i // 2), i // 2, i % 2, Row(ids, positions + bank.prefix_tokens, targets)))
    return collate(entries, bank.prefix_tokens, backbone.device)


def losses_and_gradients(engine, bank, wave):
    leaves = {name: tensor[wave.adapters].clone().requires_grad_() for name, tensor in bank.tensors.items()}
    local = bank.with_tensors(leaves, wave.adapters)
    losses = engine.token_losses(local, wave)
    losses.backward(torch.linspace(0.1, 1.0, len(losses), dtype=losses.dtype))
    return losses.detach(), {name: leaf.grad for name, leaf in leaves.items()}


def new_bank(backbone, spec):
    bank = create_bank(backbone, spec, ("a", "b", "c", "d"), 0)
    for name, tensor in bank.tensors.items():
        if name.endswith("lora_B"):
            tensor.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    return bank


@pytest.mark.parametrize(("architecture", "config"), CONFIGS)
@pytest.mark.parametrize("spec", SPECS, ids=IDS)
@pytest.mark.parametrize("block", [4, 96])
def test_losses_and_gradients_are_the_models_own(make_backbone, monkeypatch, architecture, config, spec, block):
    monkeypatch.setattr(attention, "BLOCK", block)
    backbone = make_backbone("float64", architecture, **config)
    bank = new_bank(backbone, spec)
    engine, why = engine_for(backbone, bank)
    assert (engine.name, why) == ("llama_cpu", "")
    wave = wave_of(backbone, bank, [17, 9, 1, 30], np.random.default_rng(0))
    found, ours = losses_and_gradients(engine, bank, wave)
    wanted, theirs = losses_and_gradients(TransformersEngine(backbone), bank, wave)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)
    for name, gradient in theirs.items():
        assert gradient is not None
        assert gradient.abs().max() > 0
        torch.testing.assert_close(ours[name], gradient, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kind", ["input", "kv"])
def test_long_rows_take_the_fused_kernel_and_agree(make_backbone, monkeypatch, kind):
    backbone = make_backbone("float64")
    bank = new_bank(backbone, SoftPrompt(3, kind=kind))
    engine, _ = engine_for(backbone, bank)
    wave = wave_of(backbone, bank, [40, 20], np.random.default_rng(0))
    wanted = losses_and_gradients(engine, bank, wave)
    monkeypatch.setattr(attention, "LONGEST", 30)
    found = losses_and_gradients(engine, bank, wave)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("architecture", "config", "reason"),
    [
        ("gpt2", {}, "not built like Llama"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 1}, "sliding window"),
        ("llama", {"mlp_bias": True}, "other parts than Llama's"),
        ("llama", {"hidden_act": "gelu"}, "activation"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rotary"),
    ],
)
def test_other_models_go_through_their_own_forward_and_the_reason_is_said(make_backbone, architecture, config, reason):
    backbone = make_backbone("float64", architecture, **config)
    engine, why = engine_for(backbone)
    assert engine.name == "transformers"
    assert reason in why
    with pytest.raises(HarnessError, match=rf"llama_cpu cannot be used.*{reason}"):
        engine_for(replace(backbone, engine="llama_cpu"))


def test_weights_are_laid_out_once_a_backbone(make_backbone, monkeypatch):
    backbone = make_backbone("float32")
    first, _ = engine_for(backbone)
    monkeypatch.setattr("harness.engines.llama_cpu.engine.read_decoder", lambda _: pytest.fail("laid out again"))
    assert engine_for(backbone, new_bank(backbone, SoftPrompt(3)))[0] is first
    first.replies(None, [-1], [[3, 4]], max_new_tokens=2, stop_id=1)


def test_the_configuration_can_ask_for_the_models_own_forward(make_backbone):
    backbone = replace(make_backbone("float32"), engine="transformers")
    assert engine_for(backbone)[0].name == "transformers"


def test_a_model_that_computes_something_else_is_found_out_by_trying(make_backbone):
    backbone = make_backbone("float64")
    block = backbone.model.base_model.layers[1].self_attn
    plain = block.forward
    block.forward = lambda *args, **kwargs: (plain(*args, **kwargs)[0] * 1.5, None)
    assert read_decoder(backbone)
    engine, why = engine_for(backbone)
    assert engine.name == "transformers"
    assert "other logits" in why


def test_what_is_no_low_rank_update_and_dropout_go_through_the_model(make_backbone):
    backbone = make_backbone("float64")
    engine, why = engine_for(backbone, create_bank(backbone, GatedPrefix(3), ["a"], 0))
    assert engine.name == "transformers"
    assert "GatedPrefix" in why
    bank = create_bank(backbone, LoRA(rank=2, dropout=0.1), ["a"], 0)
    assert engine_for(backbone, bank, dropout=True)[0].name == "transformers"
    assert engine_for(backbone, bank)[0].name == "llama_cpu"


def test_waves_of_packed_rows_are_even_keep_adapters_together_and_hold_every_row_once():
    generator = np.random.default_rng(0)
    entries = [
        Entry(i // 3, i // 3, i % 3, Row(np.zeros(n, dtype=np.int64), np.array([0]), np.array([1])))
        for i, n in enumerate(generator.integers(20, 60, 40))
    ]
    waves = share_out(entries, prefix=4, budget_tokens=300, workers=4)
    assert len(waves) % 4 == 0
    tokens = [sum(4 + len(entry.row.inputs) for entry in wave) for wave in waves]
    assert max(tokens) <= 300 + 64
    assert max(tokens) - min(tokens) <= 2 * 64
    assert [(e.adapter, e.place) for wave in waves for e in wave] == [(e.adapter, e.place) for e in entries]
    assert [len(wave) for wave in share_out(entries[:2], 4, 10_000, workers=3)] == [1, 1]
    assert max(len(wave) for wave in share_out(entries, 4, 1, workers=2)) <= 2  # one each, but for two short ones


def test_bits_do_not_depend_on_which_thread_was_quick(make_backbone, monkeypatch):
    """Two threads, waves side by side, against the same waves one after the other."""
    backbone = make_backbone("float32")
    generator = np.random.default_rng(0)
    data = {
        key: [Encoded(tuple(generator.integers(3, 60, 30).tolist()), (False,) * 20 + (True,) * 10) for _ in range(6)]
        for key in "abcd"
    }
    options = TrainOptions(learning_rate=0.05, epochs=3, batch_size=2, microbatch_tokens=40)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    results = []
    for side_by_side in (True, False):
        if not side_by_side:
            monkeypatch.setattr("harness.engines.parallel.ThreadPoolExecutor", OneAfterTheOther)
        bank = new_bank(backbone, SoftPrompt(3))
        fit_bank(backbone, bank, bank.by_row(data), bank.by_row(data), options, seed=1)
        results.append(bank.tensors["prompt_embeddings"])
    assert torch.equal(*results)


def test_the_waves_of_a_step_are_shared_out_evenly_among_the_threads(make_backbone, monkeypatch):
    """Also while they are computed, when torch itself is set to one thread."""
    backbone = make_backbone("float32")
    dialogue = Encoded(tuple(range(3, 33)), (False,) * 20 + (True,) * 10)
    before = torch.get_num_threads()
    seen: list[int] = []
    whole = LlamaCpuEngine.token_losses

    def counted(self, bank, wave, seeds=None):
        seen.append(len(wave.entries))
        return whole(self, bank, wave, seeds)

    monkeypatch.setattr(LlamaCpuEngine, "token_losses", counted)
    torch.set_num_threads(2)
    try:
        options = TrainOptions(learning_rate=0.05, epochs=1, batch_size=2, microbatch_tokens=10**6)
        fit_bank(backbone, new_bank(backbone, SoftPrompt(3)), [[dialogue] * 2] * 4, (), options, 1)
    finally:
        torch.set_num_threads(before)
    assert seen == [4, 4]


class OneAfterTheOther:
    def __init__(self, *_, **__):
        pass

    def shutdown(self, **_):
        pass

    def map(self, function, items):
        return [function(item) for item in reversed(items)][::-1]


def test_without_torchscript_the_plain_functions_run(monkeypatch):
    def no(function):
        raise RuntimeError("TorchScript is not supported")

    def double(x: torch.Tensor) -> torch.Tensor:
        return x + x

    compiled = (attention._attend, attention._attend_back, low_rank._add, low_rank._back, batch._attend_step)
    assert all(isinstance(function, torch.jit.ScriptFunction) for function in compiled)
    monkeypatch.setattr(torch.jit, "script", no)
    monkeypatch.setattr("harness.engines.llama_cpu.scripted._PLAIN", {})
    assert scripted(double) is double
    assert "double: RuntimeError: TorchScript is not supported" in slowed()
