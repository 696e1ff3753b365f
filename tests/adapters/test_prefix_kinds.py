"""What is special to each kind of prefix: keys and values in the cache, words of the vocabulary, a gate.

That a bank equals separate runs is in test_training, decoding in test_generation and test_likelihood, files that all
kinds share in test_adapters.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from harness.adapters import create_bank, discrete_prompt, load_bank, save_bank, write_peft
from harness.adapters.discrete_prompt import DiscretePromptBank
from harness.contract.specs import GatedPrefix, SoftPrompt
from harness.engines.transformers_engine import TransformersEngine
from harness.errors import ConfigError, HarnessError
from harness.model.prompts import Encoded
from harness.testkit import random_backbone, tiny_backbone
from harness.training.bank_training import TrainOptions, fit_bank
from tests.engines.decoded import by_model, choice_log_probs, generate, reply_nll

IDS = torch.tensor([[5, 9, 11, 30, 7]])
TRAIN = {
    key: [Encoded((5, first, 9, 4, first, 9, 4, 7), (False, False, *[True] * 6)) for first in (8, 20)] for key in "ab"
}


@pytest.fixture(scope="module")
def base(make_backbone):
    return make_backbone("float64")


def logits(base, **inputs):
    with torch.no_grad():
        return base.model(**inputs).logits


# ---- options ----


def test_every_fault_of_a_prefix_is_named():
    with pytest.raises(ConfigError, match=r"(?s)at least 1 token.*did you mean 'discrete'.*text to begin with"):
        SoftPrompt(0, init="text", kind="discreet")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="does not use `text`"):
        SoftPrompt(3, text="some words")
    with pytest.raises(ConfigError, match="does not use `text`"):
        SoftPrompt(3, text=" ")
    with pytest.raises(ConfigError, match="at least 1 token, not 0"):
        GatedPrefix(0)


def test_a_text_is_repeated_or_cut_to_the_tokens(base):
    table = base.model.get_input_embeddings().weight
    for tokens, ids in ((2, [4, 9]), (5, [4, 9, 33, 4, 9])):
        spec = SoftPrompt(tokens, init="text", text="w1 w6 w30")
        for row in create_bank(base, spec, ("a", "b"), 0).tensors["prompt_embeddings"]:
            assert torch.equal(row, table[ids])
    mute = replace(base, tokenizer=lambda text, add_special_tokens: {"input_ids": []})
    with pytest.raises(HarnessError, match="finds no token in the soft prompt's text 'w1'"):
        create_bank(mute, SoftPrompt(2, init="text", text="w1"), ("a",), 0)


# ---- keys and values ----


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("more", [{"init": "random"}, {"init": "text", "text": "w4 w5"}])
def test_a_kv_prefix_starts_as_the_soft_prompt_of_its_init(make_backbone, cache_of, architecture, more):
    base = make_backbone("float64", architecture)
    keys = ("a", "b")
    kv = create_bank(base, SoftPrompt(3, kind="kv", **more), keys, seed=4)
    plain = create_bank(base, SoftPrompt(3, **more), keys, seed=4)
    embedded = base.model.get_input_embeddings()(IDS)
    for row in range(2):
        whole = torch.cat([plain.tensors["prompt_embeddings"][row][None], embedded], 1)
        expected = logits(base, inputs_embeds=whole)[:, 3:]
        found = logits(base, input_ids=IDS, past_key_values=cache_of(kv, row))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert kv.tensors["key"].shape == (2, 2, 2 if architecture == "gpt2" else 1, 3, 8)
    assert not kv.tensors["key"].requires_grad


def test_a_kv_prefix_must_fit_into_a_sliding_window(make_backbone):
    sliding = make_backbone(use_sliding_window=True, sliding_window=3, max_window_layers=0)
    with pytest.raises(HarnessError, match=r"a prefix of 3 keys and values does not fit into the sliding window of 3"):
        create_bank(sliding, SoftPrompt(3, kind="kv"), ("a",), 0)
    assert create_bank(sliding, SoftPrompt(2, kind="kv"), ("a",), 0).cached_tokens == 2


def test_a_cache_of_something_else_takes_no_kv_prefix():
    tokenizer = tiny_backbone().tokenizer
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    mamba = random_backbone(tokenizer, architecture="mamba", dtype="float32", **sizes)
    with pytest.raises(HarnessError, match=r"needs a cache of keys and values.*MambaForCausalLM.*use kind 'input'"):
        create_bank(mamba, SoftPrompt(3, kind="kv"), ("a",), 0)


def test_dialogues_that_end_out_of_sight_of_the_prompt_are_counted_and_said(make_backbone):
    sliding = make_backbone("float32", use_sliding_window=True, sliding_window=6, max_window_layers=0)
    bank = create_bank(sliding, SoftPrompt(2), ("a",), 0)
    rows = [Encoded((5,) * length, (False,) * (length - 1) + (True,)) for length in (4, 6, 8)]
    lines = []
    report = fit_bank(sliding, bank, [rows], (), TrainOptions(epochs=1), seed=0, announce=lines.append)
    assert report.hidden == 1
    assert "the end of 1 of 3 dialogues is too far from the virtual tokens to see them" in lines[0]
    everywhere = make_backbone("float32")
    bank = create_bank(everywhere, SoftPrompt(2), ("a",), 0)
    assert fit_bank(everywhere, bank, [rows], (), TrainOptions(epochs=1), 0).hidden == 0


def test_a_kv_prefix_takes_positions(make_backbone):
    base = make_backbone("float32", max_position_embeddings=9)
    bank = create_bank(base, SoftPrompt(2, kind="kv"), ("a", "b"), 0)
    long = {"a": [Encoded((5,) * 9, (False,) * 8 + (True,))]}
    with pytest.raises(HarnessError, match="8 tokens behind 2 virtual ones, the model takes 9"):
        fit_bank(base, bank, bank.by_row(long), (), TrainOptions(), seed=0)
    with pytest.raises(HarnessError, match="needs 10 positions: 6 tokens, 2 new ones and 2 virtual"):
        generate(base, bank, [0], [[5] * 6], max_new_tokens=2, stop_id=1)


def test_peft_and_we_write_a_kv_prefix_alike(make_backbone, cache_of, tmp_path):
    """What PEFT saves of a prefix of its own, in our folder, gives PEFT's logits; the configurations agree."""
    from peft import PrefixTuningConfig, TaskType, get_peft_model

    base = make_backbone("float32", num_attention_heads=4, num_key_value_heads=2)
    bank = create_bank(base, SoftPrompt(3, kind="kv"), ("a",), 0)
    (place,) = write_peft(bank, tmp_path, "base")
    fresh = make_backbone("float32", num_attention_heads=4, num_key_value_heads=2)
    torch.manual_seed(3)
    theirs = get_peft_model(fresh.model, PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3)).eval()
    with torch.no_grad():
        expected = theirs(input_ids=IDS).logits
    theirs.save_pretrained(str(tmp_path / "peft"))
    ours, own = (json.loads((at / "adapter_config.json").read_text()) for at in (place, tmp_path / "peft"))
    same = set(ours) - {"base_model_name_or_path"}
    assert {name: ours[name] for name in same} == {name: own[name] for name in same}
    stored = load_file(tmp_path / "peft" / "adapter_model.safetensors")["prompt_embeddings"]  # [P, L 2 H d]
    _, layers, heads, tokens, _ = bank.tensors["key"].shape
    both = stored.view(tokens, layers, 2, heads, -1).permute(1, 2, 3, 0, 4)
    bank = bank.with_tensors({"key": both[None, :, 0], "value": both[None, :, 1]})
    (again,) = write_peft(bank, tmp_path / "again", "base")
    assert torch.equal(load_file(again / "adapter_model.safetensors")["prompt_embeddings"], stored)
    found = logits(base, input_ids=IDS, past_key_values=cache_of(bank, 0))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# ---- words ----


def discrete_bank(base, tokens=4, **more):
    bank = create_bank(base, SoftPrompt(tokens, kind="discrete", **more), ("a", "b"), 0)
    assert isinstance(bank, DiscretePromptBank)
    return bank


@pytest.mark.parametrize("block", [1, 7 * 16, 2**22])
def test_every_served_vector_is_the_nearest_ordinary_entry(base, block, monkeypatch):
    monkeypatch.setattr(discrete_prompt, "BLOCK_NUMBERS", block)
    bank = discrete_bank(base, tokens=30, init="random")
    table, vectors = base.model.get_input_embeddings().weight, bank.tensors["prompt_embeddings"]
    for token in (0, 1, 2):  # special ones: even a vector that lies on them is served as another
        vectors[0, token] = table[token]
    distances = (vectors[:, :, None] - table[3:]).square().sum(-1)  # [N, P, V]
    expected = distances.argmin(-1) + 3
    for row in range(2):
        assert bank.token_ids(row) == expected[row].tolist()
        assert bank.words(row, base.tokenizer) == [f"w{token - 3}" for token in expected[row]]
    assert torch.equal(bank.prefix(torch.tensor([1, 0, 1])), table[expected[[1, 0, 1]]])


def test_rows_of_the_matrix_beyond_the_vocabulary_are_never_served(make_backbone):
    padded = make_backbone(vocab_size=80)  # the tokenizer has 64
    bank = discrete_bank(padded)
    bank.tensors["prompt_embeddings"][:] = padded.model.get_input_embeddings().weight[70]
    assert max(bank.token_ids(0)) < 64


def test_the_gradient_of_a_word_goes_straight_to_its_vector(base):
    bank = discrete_bank(base, init="random")
    vectors = bank.tensors["prompt_embeddings"].requires_grad_(True)
    weight = torch.randn(3, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (bank.prefix(torch.tensor([1, 0, 1])) * weight).sum().backward()
    torch.testing.assert_close(vectors.grad, torch.stack([weight[1], weight[0] + weight[2]]))


def test_a_vector_that_is_no_number_does_not_hide(base):
    bank = discrete_bank(base)
    bank.tensors["prompt_embeddings"][1, 2, 3] = float("nan")
    served = bank.prefix(torch.tensor([0, 1]))
    assert served[0].isfinite().all()
    assert served[1, 2].isnan().any()


def test_fitted_words_are_words_and_survive_their_file(base, tmp_path):
    start = discrete_bank(base)
    bank = discrete_bank(base)
    fit_bank(base, bank, bank.by_row(TRAIN), (), TrainOptions(learning_rate=0.2, epochs=6), seed=0)
    assert [bank.token_ids(row) for row in range(2)] != [start.token_ids(row) for row in range(2)]
    save_bank(bank, tmp_path, "base")
    (place,) = write_peft(bank, tmp_path, "base", ["a"])
    assert json.loads((place / "adapter_config.json").read_text())["peft_type"] == "PROMPT_TUNING"
    again = load_bank(tmp_path, base)
    rows = torch.tensor([0, 1])
    table, ids = base.model.get_input_embeddings().weight, torch.tensor([bank.token_ids(row) for row in range(2)])
    assert not torch.equal(bank.tensors["prompt_embeddings"], table[ids])
    for served in (bank.prefix(rows), again.prefix(rows), again.tensors["prompt_embeddings"]):
        assert served is not None
        assert torch.equal(served, table[ids])


# ---- the gate ----


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_a_closed_gate_is_the_backbone_to_the_bit(make_backbone, architecture, dtype):
    base = make_backbone(dtype, architecture)
    bank = create_bank(base, GatedPrefix(4), ("a", "b"), 0)
    rows = torch.tensor([0, 1, 0])
    ids = torch.tensor([[5, 9, 11], [8, 8, 12], [60, 4, 21]])
    with bank.applied(base.model, rows):
        found = logits(base, input_ids=ids)
    assert torch.equal(found, logits(base, input_ids=ids))
    prompts = [[5, 9, 11], [8, 8, 12, 40], [60]]
    base = by_model(base)  # gates need the model's own forward
    # Batches are sorted by adapter: on some processors a row's last bits depend on its place in the batch.
    close = 1e-12 if dtype == "float64" else 1e-5
    for served in ([0, 1, 0], [1, 1, 1]):
        replies = [[7, 4]] * 3
        bare = reply_nll(base, None, [-1] * 3, prompts, replies)
        for one, other in zip(reply_nll(base, bank, served, prompts, replies), bare, strict=True):
            assert one == pytest.approx(other, rel=close)
        one = choice_log_probs(base, bank, served, prompts, [[7, 1], [7, 4, 1]])
        assert one == pytest.approx(choice_log_probs(base, None, [-1] * 3, prompts, [[7, 1], [7, 4, 1]]), rel=close)
        bare = generate(base, None, [-1] * 3, prompts, max_new_tokens=6, stop_id=1)
        assert generate(base, bank, served, prompts, max_new_tokens=6, stop_id=1) == bare


def test_an_open_gate_adds_its_attention_to_every_head(base):
    """Layer 0 against the formula written out, head by head and row by row."""
    bank = create_bank(base, GatedPrefix(3), ("a", "b"), 0)
    bank.tensors["gate"].normal_(generator=torch.Generator().manual_seed(1))
    layer, outputs, inputs = base.model.model.layers[0], [], []
    handles = [
        layer.self_attn.register_forward_hook(lambda module, args, output: outputs.append(output[0])),
        layer.input_layernorm.register_forward_hook(lambda module, args, output: inputs.append(output)),
    ]
    ids, rows = torch.tensor([[5, 9, 11], [8, 8, 12], [60, 4, 21]]), [1, 0, 1]
    logits(base, input_ids=ids)
    with bank.applied(base.model, torch.tensor(rows)):
        logits(base, input_ids=ids)
    for handle in handles:
        handle.remove()
    queries = layer.self_attn.q_proj(inputs[0])
    for place, row in enumerate(rows):
        added = torch.zeros(3, 16, dtype=torch.float64)
        for head in range(2):
            part = slice(8 * head, 8 * head + 8)
            key, value = bank.tensors["key"][row, 0, :, part], bank.tensors["value"][row, 0, :, part]
            weights = (queries[place, :, part] @ key.T / 8**0.5).softmax(-1)
            added[:, part] = bank.tensors["gate"][row, 0, head] * weights @ value
        difference = outputs[1][place] - outputs[0][place]
        assert difference.abs().max() > 1e-3
        torch.testing.assert_close(difference, layer.self_attn.o_proj(added), rtol=0, atol=1e-12)


def test_a_gate_opens_in_training(base):
    bank = create_bank(base, GatedPrefix(4), ("a", "b"), 0)
    report = fit_bank(base, bank, bank.by_row(TRAIN), (), TrainOptions(learning_rate=0.1, epochs=40), seed=0)
    for key in "ab":
        losses = report.adapters[key].train_loss
        assert losses[-1] < 0.8 * losses[0]
    assert (bank.tensors["gate"] != 0).all()


def test_a_model_without_the_projections_takes_no_gate(make_backbone):
    with pytest.raises(HarnessError, match=r"q_proj and o_proj.*GPT2LMHeadModel has them in 0 of 2 layers"):
        create_bank(make_backbone(architecture="gpt2"), GatedPrefix(3), ("a",), 0)
    mixed = make_backbone()
    mixed.model.model.layers[1].self_attn.q_proj = torch.nn.Identity()
    with pytest.raises(HarnessError, match="Qwen2ForCausalLM has them in 1 of 2 layers"):
        create_bank(mixed, GatedPrefix(3), ("a",), 0)


def test_a_gated_prefix_has_files_of_its_own_type(base, tmp_path):
    (place,) = write_peft(create_bank(base, GatedPrefix(3), ("a",), 0), tmp_path, "base")
    config = json.loads((place / "adapter_config.json").read_text())
    assert (config["peft_type"], config["num_virtual_tokens"]) == ("GATED_PREFIX", 3)


# ---- all ----


@pytest.mark.parametrize("spec", [SoftPrompt(2, kind="kv"), SoftPrompt(2, kind="discrete"), GatedPrefix(2)])
def test_no_prefix_can_be_merged_and_gradients_reach_it_without_the_split(make_backbone, spec, monkeypatch):
    base = make_backbone("float64")
    bank = create_bank(base, spec, ("a", "b"), 0)
    with pytest.raises(HarnessError, match="cannot be merged"):
        bank.weight_deltas(0)
    assert TransformersEngine(base).split
    whole = create_bank(base, spec, ("a", "b"), 0)
    options = TrainOptions(learning_rate=0.05, epochs=2)
    fit_bank(base, bank, bank.by_row(TRAIN), (), options, seed=0)
    monkeypatch.setattr(TransformersEngine, "split", False)
    base = replace(base, engine="transformers")
    fit_bank(base, whole, whole.by_row(TRAIN), (), options, seed=0)
    for name, tensor in bank.tensors.items():
        torch.testing.assert_close(tensor, whole.tensors[name], rtol=0, atol=1e-12)
