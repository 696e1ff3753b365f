"""The estimate of a fit's memory: printed first, and as large as its parts. Measured steps: test_bench_commands."""

from __future__ import annotations

import re

import pytest

from harness.training.estimate import Load, estimate_step
from harness.training.waves import WaveRunner


def load(**changes):
    base = {"tokens": 512, "labels": 256, "longest": 128, "adapters": 4, "numbers": 100, "logits": 1000}
    return Load(**{**base, "engine": "llama_cpu", **changes})


def test_the_estimate_grows_with_what_is_under_way(make_backbone):
    config = make_backbone("float32").model.config
    small = estimate_step(config, load(), 4)
    assert estimate_step(config, load(tokens=1024, labels=512), 4).activations == 2 * small.activations
    assert estimate_step(config, load(adapters=8), 4).bank == 2 * small.bank
    assert estimate_step(config, load(adapted=("down_proj",)), 4).activations > small.activations
    assert estimate_step(config, load(), 2).weights < small.weights
    assert estimate_step(config, load(), 4, weights=0).weights < small.weights
    assert small.total == sum(vars(small).values())


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gpt2"])
def test_every_architecture_gets_one_and_it_is_printed_before_the_first_step(make_backbone, architecture):
    from harness.adapters.kinds import create_bank
    from harness.contract.specs import SoftPrompt
    from harness.model.prompts import Encoded
    from harness.training.bank_training import TrainOptions, fit_bank

    backbone = make_backbone("float32", architecture)
    bank = create_bank(backbone, SoftPrompt(2, init="random"), ["a", "b"], seed=0)
    data = {"a": [Encoded((3, 4, 5, 6), (False, False, True, True))], "b": []}
    order: list[str] = []
    fit_bank(
        backbone, bank, bank.by_row(data), (), TrainOptions(epochs=1), 0,
        announce=order.append, progress=lambda done, total, note: order.append("step"),
    )  # fmt: skip
    assert order[1:] == ["step"]
    memory, _, engine = order[0].partition("; engine ")
    assert re.fullmatch(r"memory of a training step, estimated: \d+ MB \(weights .*, bank \d+ MB\)", memory)
    expected = "transformers (llama_cpu cannot be used: GPT2" if architecture == "gpt2" else "llama_cpu"
    assert engine.startswith(expected)
    runner = WaveRunner(backbone, bank, 4096, 0)
    assert (runner.engine.name == "llama_cpu") == (architecture != "gpt2")
