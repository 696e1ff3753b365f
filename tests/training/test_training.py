"""A bank trains as N separate runs would: checked in fp64 against banks of one and a plain torch loop.

Legend: keys a, b, c, d have unequal numbers of dialogues; POISON is a token whose embedding is NaN.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.adapters.kinds import create_bank, key_seed
from harness.contract.specs import GatedPrefix, LoRA, SoftPrompt
from harness.engines import engine_for
from harness.engines.batching import Entry, Row, collate, cut, epoch_order, prepare_row
from harness.engines.llama_cpu.engine import LlamaCpuEngine
from harness.engines.transformers_engine import TransformersEngine
from harness.errors import ConfigError, HarnessError, StoreError
from harness.model.prompts import Encoded
from harness.training.bank_training import TrainOptions, fit_bank
from harness.training.fit_report import has_spike
from harness.training.optimiser import learning_rate_factor

POISON = 63
COUNTS = {"a": 7, "b": 3, "c": 5, "d": 1}
SPECS = [SoftPrompt(3), LoRA(rank=2, alpha=4.0), LoRA(rank=2, targets=("q_proj", "down_proj"), dropout=0.2)]
MORE_SPECS = [SoftPrompt(3, kind="kv"), SoftPrompt(3, kind="discrete"), GatedPrefix(3)]
MORE_IDS = ["kv", "discrete", "gated"]
OPTIONS = TrainOptions(
    learning_rate=0.05,
    epochs=4,
    batch_size=2,
    warmup=0.2,
    weight_decay=0.1,
    clip=0.5,
    patience=1,
    microbatch_tokens=40,
)


def dialogue(generator: np.random.Generator, poison: bool = False) -> Encoded:
    """A random dialogue of 6 to 20 tokens; token 3 + (previous mod 7) is likely, so it can be learned."""
    length = int(generator.integers(6, 20))
    ids = [int(generator.integers(3, 60))]
    while len(ids) < length:
        ids.append(3 + ids[-1] % 7 if generator.random() < 0.6 else int(generator.integers(3, 60)))
    if poison:
        ids[2] = POISON
    labels = [bool(flag) for flag in generator.random(length) < 0.4]
    labels[0], labels[3] = False, True
    return Encoded(tuple(ids), tuple(labels))


def data(counts=COUNTS, salt=0, poison=()):
    """(train, validation) by key; `poison`: keys whose third train dialogue and no other holds POISON."""
    train, validation = {}, {}
    for key, count in counts.items():
        generator = np.random.default_rng([salt, ord(key)])
        train[key] = [dialogue(generator, poison=key in poison and i == 2) for i in range(count)]
        validation[key] = [dialogue(generator) for _ in range(3)]
    return train, validation


def only(table, key):
    return {key: table[key]}


@pytest.fixture(scope="module")
def base(make_backbone):
    made = make_backbone("float64")
    made.model.get_input_embeddings().weight.data[POISON] = float("nan")
    return made


def new_bank(base, spec, keys=tuple(COUNTS), start=None):
    bank = create_bank(base, spec, keys, seed=5, start=start)
    if isinstance(spec, LoRA | GatedPrefix):  # a B or gate of 0 would leave the rest without a gradient at first
        for name, tensor in bank.tensors.items():
            if name.endswith(("lora_B", "gate")):
                draw = torch.randn(tensor.shape[1:], generator=torch.Generator().manual_seed(1), dtype=tensor.dtype)
                tensor[:] = 0.1 * draw  # the same for all, so that it does not depend on who is in the bank
    return bank


def fitted(base, spec, train, validation, options=OPTIONS, keys=tuple(COUNTS), **more):
    bank = new_bank(base, spec, keys)
    return bank, fit_bank(base, bank, bank.by_row(train), bank.by_row(validation), options, seed=11, **more)


def assert_same(bank, other, keys, tolerance):
    for name, tensor in bank.tensors.items():
        for key in keys:
            one, two = tensor[bank.row(key)], other.tensors[name][other.row(key)]
            if tolerance:
                torch.testing.assert_close(one, two, rtol=0, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}")
            else:
                assert torch.equal(one, two), (key, name)


def assert_same_report(one, two, tolerance):
    assert one.train_loss == pytest.approx(two.train_loss, abs=tolerance)
    assert one.validation_loss == pytest.approx(two.validation_loss, abs=tolerance)
    fields = ("steps", "epochs", "tokens", "label_tokens", "best_epoch", "status")
    assert [getattr(one, name) for name in fields] == [getattr(two, name) for name in fields]


# ---- equality with separate runs ----


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("spec", SPECS + MORE_SPECS, ids=["prompt", "lora", "lora-dropout", *MORE_IDS])
def test_a_bank_equals_separate_runs(base, spec, schedule):
    """Unequal counts, clipping, warm-up, weight decay, early stop and one diverging adapter (b)."""
    # A gate opens slowly: at the rate of the others nothing would be overfitted in time to stop early.
    rate = 0.4 if isinstance(spec, GatedPrefix) else OPTIONS.learning_rate
    options = replace(OPTIONS, schedule=schedule, epochs=6, learning_rate=rate)
    train, validation = data(poison="b")
    bank, report = fitted(base, spec, train, validation, options)
    assert report.diverged == ["b"]
    assert any(own.status == "ok" and own.epochs < options.epochs for own in report.adapters.values())
    for key in COUNTS:
        alone, own = fitted(base, spec, only(train, key), only(validation, key), options, (key,))
        assert_same(bank, alone, (key,), 1e-12)
        assert_same_report(report.adapters[key], own.adapters[key], 1e-12)


@pytest.mark.parametrize("spec", SPECS[:2] + MORE_SPECS, ids=["prompt", "lora", *MORE_IDS])
def test_one_adapter_equals_a_plain_torch_loop(base, spec, cache_of):
    """The oracle: autograd through the model's own forward, torch's AdamW and clip_grad_norm_, all logits."""
    train, _ = data()
    options = replace(OPTIONS, epochs=2, patience=0)
    bank, report = fitted(base, spec, only(train, "a"), {}, options, ("a",))
    plain = new_bank(base, spec, ("a",))
    parameters = [tensor.requires_grad_(True) for tensor in plain.tensors.values()]
    optimiser = torch.optim.AdamW(parameters, lr=1.0, weight_decay=options.weight_decay)
    row = torch.tensor([0])
    total, losses = 2 * 4, []
    for step in range(total):
        epoch, batch = divmod(step, 4)
        chosen = epoch_order(key_seed(11, "a", "order", epoch), 7)[2 * batch : 2 * batch + 2]
        summed, count = torch.zeros((), dtype=torch.float64), 0
        for encoded in (train["a"][i] for i in chosen):
            embedded = base.model.get_input_embeddings()(torch.tensor([encoded.ids]))
            prefix = plain.prefix(row)
            with plain.applied(base.model, row):
                whole = embedded if prefix is None else torch.cat([prefix, embedded], 1)
                output = base.model(inputs_embeds=whole, past_key_values=cache_of(plain, 0))
                logits = output.logits[0, -len(encoded.ids) :]
            for place in np.flatnonzero(encoded.labels):
                summed = summed - logits[place - 1].log_softmax(0)[encoded.ids[place]]
                count += 1
        optimiser.zero_grad()
        (summed / count).backward()
        torch.nn.utils.clip_grad_norm_(parameters, options.clip)
        optimiser.param_groups[0]["lr"] = 0.05 * learning_rate_factor(step, total, 0.2, "linear")
        optimiser.step()
        losses.append((float(summed.detach()), count))
    assert_same(bank, plain, ("a",), 1e-12)
    first = losses[:4]
    expected = sum(loss for loss, _ in first) / sum(count for _, count in first)
    assert report.adapters["a"].train_loss[0] == pytest.approx(expected, abs=1e-12)
    assert report.adapters["a"].steps == total


@pytest.mark.parametrize("spec", SPECS + MORE_SPECS, ids=["prompt", "lora", "lora-dropout", *MORE_IDS])
def test_microbatches_do_not_matter(base, spec):
    train, validation = data()
    wide, one = fitted(base, spec, train, validation, replace(OPTIONS, microbatch_tokens=10**6))
    rows, two = fitted(base, spec, train, validation, replace(OPTIONS, microbatch_tokens=1))
    assert_same(wide, rows, COUNTS, 1e-12)
    for key in COUNTS:
        assert_same_report(one.adapters[key], two.adapters[key], 1e-12)
    assert one.tokens == two.tokens
    if engine_for(base, wide, dropout=bool(wide.dropout))[0].name == "llama_cpu":  # rows lie one after the other
        rows_seen = sum(len(train[key]) * len(one.adapters[key].train_loss) for key in COUNTS)
        # Keys and values of virtual tokens are no tokens, but their places go through the layers.
        assert one.padded_tokens == two.padded_tokens == one.tokens + wide.cached_tokens * rows_seen
    else:
        assert one.padded_tokens > one.tokens == two.padded_tokens


@pytest.mark.parametrize("spec", SPECS[:2], ids=["prompt", "lora"])
def test_other_adapters_data_does_not_matter(base, spec):
    train, validation = data()
    other_train, other_validation = data({"a": 2, "c": 9, "d": 4}, salt=1)
    other_train["b"], other_validation["b"] = train["b"], validation["b"]
    one, report = fitted(base, spec, train, validation)
    two, again = fitted(base, spec, other_train, other_validation)
    assert_same(one, two, ("b",), 1e-12)
    assert_same_report(report.adapters["b"], again.adapters["b"], 1e-12)


@pytest.mark.parametrize("spec", SPECS + MORE_SPECS, ids=["prompt", "lora", "lora-dropout", *MORE_IDS])
def test_the_order_of_the_bank_does_not_matter_to_the_bit(base, spec):
    train, validation = data()
    one, _ = fitted(base, spec, train, validation)
    two, _ = fitted(base, spec, dict(reversed(train.items())), validation, keys=("c", "a", "d", "b"))
    assert_same(one, two, COUNTS, 0)


def test_same_seed_same_bits_other_seed_other_fit(make_backbone):
    base = make_backbone("float32")
    train, validation = data()
    banks = [new_bank(base, SoftPrompt(3)) for _ in range(3)]
    for bank, seed in zip(banks, (1, 1, 2), strict=True):
        fit_bank(base, bank, bank.by_row(train), bank.by_row(validation), OPTIONS, seed)
    assert_same(banks[0], banks[1], COUNTS, 0)
    assert not torch.equal(*(bank.tensors["prompt_embeddings"] for bank in banks[1:]))


# ---- failures stay where they are ----


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("spec", SPECS + MORE_SPECS, ids=["prompt", "lora", "lora-dropout", *MORE_IDS])
def test_a_nan_does_not_change_one_bit_of_the_neighbours(make_backbone, spec, dtype):
    base = make_backbone(dtype)
    base.model.get_input_embeddings().weight.data[POISON] = float("nan")
    healthy = replace(OPTIONS, patience=0, microbatch_tokens=120)
    train, validation = data()
    poisoned, _ = data(poison="b")
    one, report = fitted(base, spec, train, validation, healthy)
    two, broken = fitted(base, spec, poisoned, validation, healthy)
    assert report.diverged == []
    assert broken.diverged == ["b"]
    neighbours = [key for key in COUNTS if key != "b"]
    assert_same(one, two, neighbours, 0)
    for key in neighbours:
        assert report.adapters[key] == broken.adapters[key]
    assert all(bool(tensor.isfinite().all()) for tensor in two.tensors.values())


def test_a_diverged_adapter_keeps_its_best_earlier_values(base):
    """Poison in the first epoch: the start. Poison that appears later is imitated by an exploding rate."""
    train, validation = data({"a": 3}, poison="a")
    start = new_bank(base, SoftPrompt(3), ("a",))
    bank, report = fitted(base, SoftPrompt(3), train, validation, keys=("a",))
    assert report.adapters["a"].status == "diverged"
    assert report.adapters["a"].best_epoch == 0
    assert_same(bank, start, ("a",), 0)


def test_a_failure_after_a_good_epoch_returns_to_that_epoch(base, monkeypatch):
    train, validation = data({"a": 4, "c": 5})
    keys, options = ("a", "c"), replace(OPTIONS, patience=0)
    whole = LlamaCpuEngine.token_losses
    calls = {"training": 0}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # then a step is one wave

    def fails_late(self, bank, wave, seeds=None):
        losses = whole(self, bank, wave, seeds)
        if losses.requires_grad and "a" in bank.keys:
            calls["training"] += 1
            if calls["training"] > 4:  # third epoch of two steps
                losses = losses * torch.where(torch.tensor(wave.owners == 0), float("nan"), 1.0)
        return losses

    monkeypatch.setattr(LlamaCpuEngine, "token_losses", fails_late)
    wide = replace(options, microbatch_tokens=10**6)
    bank, report = fitted(base, SoftPrompt(3), train, validation, wide, keys)
    monkeypatch.setattr(LlamaCpuEngine, "token_losses", whole)  # the healthy fit must have the same waves
    assert report.diverged == ["a"]
    assert report.adapters["a"].steps == 4
    assert len(report.adapters["a"].validation_loss) == 2
    healthy, _ = fitted(base, SoftPrompt(3), train, validation, wide, keys)
    assert_same(bank, healthy, ("c",), 0)
    best = report.adapters["a"].best_epoch
    assert best == 1 + int(np.argmin(report.adapters["a"].validation_loss))
    assert not torch.equal(
        bank.tensors["prompt_embeddings"][0],
        new_bank(base, SoftPrompt(3), keys).tensors["prompt_embeddings"][0],
    )


def test_an_absurd_rate_is_reported_not_raised(make_backbone):
    base = make_backbone("float32")
    train, validation = data()
    bank, report = fitted(base, LoRA(rank=2), train, validation, replace(OPTIONS, learning_rate=1e30, clip=0))
    assert set(report.diverged) == set(COUNTS)
    assert all(bool(tensor.isfinite().all()) for tensor in bank.tensors.values())


def test_memory_that_runs_out_halves_the_wave_and_says_so(base, monkeypatch):
    train, validation = data()
    expected, plain = fitted(base, SoftPrompt(3), train, validation)
    whole = LlamaCpuEngine.token_losses

    def fails(self, bank, wave, seeds=None):
        if len(wave.rows) > 1:
            raise torch.OutOfMemoryError("as CUDA would")
        return whole(self, bank, wave, seeds)

    monkeypatch.setattr(LlamaCpuEngine, "token_losses", fails)
    bank, report = fitted(base, SoftPrompt(3), train, validation)
    assert (plain.rewaved, report.rewaved) == (False, True)
    assert_same(expected, bank, COUNTS, 1e-12)


# ---- early stop, snapshots, reports ----


def test_the_best_snapshot_is_kept_and_waiting_ends(base):
    train, validation = data()
    bank, report = fitted(base, SoftPrompt(3), train, validation, replace(OPTIONS, epochs=12, patience=2))
    engine, _ = engine_for(base, bank)
    for row, key in enumerate(bank.keys):
        own = report.adapters[key]
        assert own.best_epoch == 1 + int(np.argmin(own.validation_loss))
        assert own.epochs in (12, own.best_epoch + 2)
        assert own.steps == own.epochs * math.ceil(COUNTS[key] / 2)
        rows = [prepare_row(encoded, 3) for encoded in validation[key]]
        wave = collate([Entry(0, 0, i, made) for i, made in enumerate(rows) if made], 3, base.device)
        with torch.no_grad():
            loss = engine.token_losses(bank.select([row]), wave).mean()
        assert float(loss) == pytest.approx(min(own.validation_loss), abs=1e-12)
    assert any(own.epochs < 12 for own in report.adapters.values())


def test_the_start_can_be_kept(base):
    train, validation = data()
    start, _ = fitted(base, SoftPrompt(3), train, validation, replace(OPTIONS, epochs=8, patience=0))
    bank = new_bank(base, SoftPrompt(3), start=start)
    harmful = TrainOptions(learning_rate=2.0, epochs=2, warmup=0.0, clip=0.0, keep_start=True)
    report = fit_bank(base, bank, bank.by_row(train), bank.by_row(validation), harmful, seed=3)
    kept = [key for key, own in report.adapters.items() if own.best_epoch == 0]
    assert kept, "the rate was meant to do harm"
    assert_same(bank, start, kept, 0)
    assert all(report.adapters[key].start_validation_loss is not None for key in COUNTS)


def test_training_learns(base):
    train, _ = data({"a": 12})
    _, report = fitted(base, SoftPrompt(8), train, {}, TrainOptions(learning_rate=0.1, epochs=20), ("a",))
    losses = report.adapters["a"].train_loss
    assert losses[-1] < 0.8 * losses[0]


def test_an_adapter_without_data_keeps_its_values(base):
    train, validation = data({"a": 3})
    start = new_bank(base, SoftPrompt(3))
    train["b"] = [Encoded((5, 6, 7), (False, False, False))]  # nothing to learn in it
    bank, report = fitted(base, SoftPrompt(3), train, validation)
    assert [own.status for own in report.adapters.values()] == ["ok", "no data", "no data", "no data"]
    assert_same(bank, start, "bcd", 0)
    assert report.adapters["b"].steps == 0
    _, nothing = fitted(base, SoftPrompt(3), {}, {})
    assert nothing.tokens == 0


def test_without_validation_the_last_values_stay(base):
    train, _ = data({"a": 3})
    _, report = fitted(base, SoftPrompt(3), train, {}, keys=("a",))
    assert report.adapters["a"].best_epoch == OPTIONS.epochs == report.adapters["a"].epochs
    assert report.adapters["a"].validation_loss == ()


def test_progress_ends_at_its_total(base):
    seen = []
    train, validation = data()
    fitted(base, SoftPrompt(3), train, validation, progress=lambda done, total, note: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(done <= total for done, total in seen)
    assert seen[-1][0] == seen[-1][1] > 0


# ---- interruption ----


class InterruptionError(Exception):
    pass


@pytest.mark.parametrize("spec", SPECS, ids=["prompt", "lora", "lora-dropout"])
@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_a_resumed_fit_gives_the_same_bits(base, tmp_path, spec, stop_after):
    train, validation = data(poison="b")
    path = tmp_path / "state.safetensors"
    steps = []

    def stop(done, total, note):
        steps.append(done)
        if len(steps) == stop_after:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        fitted(base, spec, train, validation, progress=stop, checkpoint=path, checkpoint_seconds=0)
    before = len(steps)
    bank, report = fitted(
        base,
        spec,
        train,
        validation,
        progress=lambda *_: steps.append(0),
        checkpoint=path,
        checkpoint_seconds=0,
    )
    expected, uninterrupted = fitted(base, spec, train, validation)
    assert_same(bank, expected, COUNTS, 0)
    assert report.adapters == uninterrupted.adapters
    assert report.padded_tokens == uninterrupted.padded_tokens
    assert len(steps) - before < max(own.steps for own in report.adapters.values())  # it did go on, not start anew
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_resumed_fit_tells_who_watches_all_epochs(base, tmp_path):
    train, validation = data()
    path = tmp_path / "state.safetensors"
    told: dict[str, list[tuple[int, float]]] = {name: [] for name in ("stopped", "resumed", "undisturbed")}

    def stop(epoch, loss):
        told["stopped"].append((epoch, loss))
        if epoch == 2:
            raise InterruptionError

    def watched(name):
        return lambda epoch, loss: told[name].append((epoch, loss))

    with pytest.raises(InterruptionError):
        fitted(base, LoRA(rank=2), train, validation, watch=stop, checkpoint=path, checkpoint_seconds=0)
    fitted(base, LoRA(rank=2), train, validation, watch=watched("resumed"), checkpoint=path, checkpoint_seconds=0)
    fitted(base, LoRA(rank=2), train, validation, watch=watched("undisturbed"))
    epochs = [epoch for epoch, _ in told["undisturbed"]]
    assert epochs == sorted(set(epochs))
    assert len(epochs) > 2
    assert told["resumed"] == told["undisturbed"]
    assert told["stopped"] == told["undisturbed"][:2]


def test_another_fits_checkpoint_is_refused_and_a_damaged_one_is_put_aside(base, tmp_path):
    train, validation = data({"a": 3})
    path = tmp_path / "state.safetensors"
    fitted(base, SoftPrompt(3), train, validation, keys=("a",), checkpoint=path, checkpoint_seconds=0)
    for options, other in ((replace(OPTIONS, clip=0.4), train), (OPTIONS, data({"a": 3}, salt=1)[0])):
        with pytest.raises(StoreError, match="belongs to a fit with other data"):
            fitted(base, SoftPrompt(3), other, validation, options, ("a",), checkpoint=path)
    whole = path.read_bytes()
    right = fitted(base, SoftPrompt(3), train, validation, keys=("a",))[0]
    for damaged in (whole[:200], whole[:-1], b"", whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]):
        said: list[str] = []
        path.write_bytes(damaged)
        again = fitted(
            base, SoftPrompt(3), train, validation, keys=("a",), checkpoint=path, checkpoint_seconds=1e9,
            announce=said.append,
        )[0]  # fmt: skip
        assert said[1:] == [f"{path} is damaged; the fit begins anew"]
        assert not path.exists()
        assert all(torch.equal(again.tensors[name], values) for name, values in right.tensors.items())


# ---- any causal model ----


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("qwen2", {"tie_word_embeddings": True}),
        ("llama", {}),
        ("gpt2", {}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    ],
)
def test_other_architectures_train_and_give_their_own_loss(make_backbone, architecture, config):
    base = make_backbone("float64", architecture, **config)
    train, validation = data({"a": 4, "c": 3})
    bank, report = fitted(base, SoftPrompt(3), train, validation, replace(OPTIONS, epochs=1), ("a", "c"))
    assert report.diverged == []
    assert TransformersEngine(base).split
    for row, key in enumerate("ac"):
        expected, count = 0.0, 0
        for encoded in validation[key]:
            with torch.no_grad():
                embedded = base.model.get_input_embeddings()(torch.tensor([encoded.ids]))
                prefix = bank.prefix(torch.tensor([row]))
                assert prefix is not None
                logits = base.model(inputs_embeds=torch.cat([prefix, embedded], 1)).logits[0, 2:-1]
            for place in np.flatnonzero(encoded.labels):
                expected -= float(logits[place].log_softmax(0)[encoded.ids[place]])
                count += 1
        assert report.adapters[key].validation_loss[0] == pytest.approx(expected / count, abs=1e-11)


def test_a_model_whose_head_cannot_be_called_alone_trains_all_the_same(make_backbone):
    base = make_backbone("float64")
    train, validation = data()
    expected, _ = fitted(base, SoftPrompt(3), train, validation)
    scaled = make_backbone("float64")
    plain = scaled.model.forward

    def forward(**kwargs):  # as models do that cap or scale their logits after the head
        output = plain(**kwargs)
        output.logits = 2.0 * output.logits
        return output

    scaled.model.forward = forward
    assert not TransformersEngine(scaled).split
    bank, report = fitted(scaled, SoftPrompt(3), train, validation)
    assert report.diverged == []
    assert not torch.equal(bank.tensors["prompt_embeddings"], expected.tensors["prompt_embeddings"])


def test_bf16_backbones_train_fp32_adapters(make_backbone):
    base = make_backbone("bfloat16")
    train, validation = data()
    for spec in SPECS + MORE_SPECS:
        bank, report = fitted(base, spec, train, validation)
        assert report.diverged == []
        assert {tensor.dtype for tensor in bank.tensors.values()} == {torch.float32}


# ---- pieces ----


def test_schedules():
    factors = [learning_rate_factor(step, 10, 0.2, "linear") for step in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert learning_rate_factor(6, 10, 0.2, "cosine") == pytest.approx(0.5)
    assert learning_rate_factor(9, 10, 0.2, "constant") == 1
    assert learning_rate_factor(0, 1, 0.0, "linear") == 1


def test_waves_keep_to_the_budget_and_hold_every_row_once():
    generator = np.random.default_rng(0)
    entries = [
        Entry(i // 3, i // 3, i % 3, Row(np.zeros(n, dtype=np.int64), np.array([0]), np.array([1])))
        for i, n in enumerate(generator.integers(1, 60, 40))
    ]
    waves = cut(entries, prefix=4, budget_tokens=100)
    for wave in waves:
        assert len(wave) == 1 or len(wave) * (4 + max(len(entry.row.inputs) for entry in wave)) <= 100
    assert sorted((e.adapter, e.place) for wave in waves for e in wave) == [(e.adapter, e.place) for e in entries]


def test_rows_end_before_the_last_label_and_skip_what_nothing_predicts():
    encoded = Encoded((5, 6, 7, 8, 9), (True, False, True, True, False))
    behind_prompt, bare = prepare_row(encoded, 2), prepare_row(encoded, 0)
    assert behind_prompt is not None
    assert bare is not None
    assert behind_prompt.inputs.tolist() == bare.inputs.tolist() == [5, 6, 7]
    assert behind_prompt.positions.tolist() == [1, 3, 4]
    assert behind_prompt.targets.tolist() == [5, 7, 8]
    assert bare.positions.tolist() == [1, 2]
    assert bare.targets.tolist() == [7, 8]
    assert prepare_row(Encoded((5,), (True,)), 0) is None


def test_wrong_input_is_explained(base):
    with pytest.raises(HarnessError, match="the bank has no adapter 'x'"):
        fitted(base, SoftPrompt(3), {"x": []}, {})
    with pytest.raises(HarnessError, match=r"token ids outside 0\.\.63"):
        fitted(base, SoftPrompt(3), {"a": [Encoded((3, 64, 5), (False, False, True))]}, {})
    with pytest.raises(HarnessError, match="the model takes 128"):
        fitted(base, SoftPrompt(3), {"a": [Encoded((3,) * 127, (False,) * 126 + (True,))]}, {})
    with pytest.raises(ConfigError, match=r"(?s)learning_rate must be above 0.*epochs.*did you mean 'linear'"):
        TrainOptions(learning_rate=-1, epochs=0, schedule="linaer")  # pyright: ignore[reportArgumentType]


def test_a_spike_of_the_loss_is_told_from_a_slow_rise():
    assert has_spike([7.1, 0.57, 2.2, 0.67, 4.6])  # SmolLM2, rate 1e-2, replies of one token
    assert not has_spike([2.0, 1.0, 0.9, 1.1, 1.3, 1.6])
    assert not has_spike([0.02, 0.05, 0.04])  # twice of nearly nothing
    assert not has_spike([])
