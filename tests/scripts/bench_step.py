"""Run by test_bench_commands in a process of its own: one training step at full width, its memory as JSON on stdout."""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from harness.adapters.kinds import create_bank
from harness.bench import memory
from harness.contract.specs import SoftPrompt
from harness.engines import rows_of_logits
from harness.model import catalogue
from harness.model.backbone import Backbone
from harness.model.prompts import Encoded
from harness.training.bank_training import TrainOptions, fit_bank

VOCABULARY, LENGTH, ADAPTERS, PROMPT = 2048, 118, 4, 10


def dialogue(generator: np.random.Generator, length: int) -> Encoded:
    ids = tuple(generator.integers(2, VOCABULARY, length + 1).tolist())
    return Encoded(ids, (False,) * (length // 2) + (True,) * (length + 1 - length // 2))


def main(rows: int, engine: str) -> None:
    torch.set_num_threads(1)
    config = Qwen2Config(**{**catalogue()["qwen2.5-0.5b"].shape, "num_hidden_layers": 2, "vocab_size": VOCABULARY})
    model: Any = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    backbone = Backbone("random", model, None, fingerprint="random")
    backbone = replace(backbone, engine=engine)
    keys = [f"p{i}" for i in range(ADAPTERS)]
    generator = np.random.default_rng(0)
    tokens = ADAPTERS * rows * (PROMPT + LENGTH)
    options = TrainOptions(epochs=1, batch_size=rows, microbatch_tokens=tokens)

    def step(length: int) -> None:
        bank = create_bank(backbone, SoftPrompt(PROMPT, init="random"), keys, seed=0)
        fit_bank(
            backbone,
            bank,
            [[dialogue(generator, length) for _ in range(rows)] for _ in keys],
            [()] * len(keys),
            options,
            0,
        )

    step(4)  # what is made once, is made now
    gc.collect()
    reset = memory.reset_peak()
    before = memory.resident_bytes()
    step(LENGTH)
    peak = memory.peak_bytes()
    labels = ADAPTERS * rows * (LENGTH + 1 - LENGTH // 2)
    load = memory.Load(
        tokens, labels, PROMPT + LENGTH, ADAPTERS, PROMPT * config.hidden_size,
        min(labels, rows_of_logits("cpu", VOCABULARY)) * VOCABULARY, engine=engine,
    )  # fmt: skip
    estimate = memory.estimate_step(config, load, width=4)
    print(json.dumps({
        "reset": reset, "measured": peak - before, "estimated": estimate.total - estimate.weights,
        "weights": bytes_of_weights(backbone), "estimated_weights": estimate.weights,
        "activations": estimate.activations,
    }))  # fmt: skip


def bytes_of_weights(backbone: Backbone) -> int:
    """Of the model, and of what an engine has laid out anew."""
    tensors = list(backbone.model.parameters())
    if "llama_cpu" in backbone.memo:
        tensors += [w for layer in backbone.memo["llama_cpu"].decoder.layers for w in layer.weights.values()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
