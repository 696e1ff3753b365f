"""Shared by the tests of decoding and of likelihood: a small random model, banks whose adapters change something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from harness.adapters.bank import Bank
from harness.adapters.kinds import create_bank
from harness.contract.specs import GatedPrefix, LoRA, SoftPrompt
from harness.engines import engine_for
from harness.model.backbone import Backbone

SPECS = {
    "soft prompt": SoftPrompt(tokens=4),
    "kv": SoftPrompt(tokens=4, kind="kv"),
    "discrete": SoftPrompt(tokens=4, kind="discrete"),
    "gated": GatedPrefix(tokens=4),
    "lora": LoRA(rank=2, targets=("q_proj", "v_proj")),
}


class Vocabulary:
    """As much of a tokenizer as making a bank asks for."""

    def __init__(self, size: int, stop: int) -> None:
        self.size = size
        self.all_special_ids = (0, stop)

    def __len__(self) -> int:
        return self.size


def small_backbone(vocabulary: Vocabulary, **options: Any) -> Backbone:
    """A random Qwen2 of two layers; always the same for the same options."""
    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **options,
    )
    model = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    return Backbone("random", model, vocabulary, "random")


def make_bank(backbone: Backbone, kind: str, adapters: int = 5) -> Bank | None:
    """A bank of one of SPECS, or none; what starts at zero is drawn: such an adapter would test nothing."""
    if kind == "none":
        return None
    bank = create_bank(backbone, SPECS[kind], [f"p{i}" for i in range(adapters)], 0)
    for name, tensor in bank.tensors.items():
        if name.endswith(("lora_B", "gate")):
            spread = 1.0 if name == "gate" else 0.3
            torch.nn.init.normal_(tensor, std=spread, generator=torch.Generator().manual_seed(1))
    return bank


def generate(
    backbone: Backbone, bank: Bank | None, rows: Sequence[int], prompts: Sequence[Sequence[int]], **options: Any
) -> list[list[int]]:
    """Replies by the engine that the backbone names, or the fastest."""
    return engine_for(backbone, bank)[0].replies(bank, rows, prompts, **options)


def reply_nll(backbone: Backbone, bank: Bank | None, *data: Any, **options: Any) -> list[tuple[float, int]]:
    """(summed nats, tokens) of each reply."""
    found = engine_for(backbone, bank)[0].reply_nll(bank, *data, **options)
    return [(float(nats.sum()), len(nats)) for nats in found]


def choice_log_probs(backbone: Backbone, bank: Bank | None, *data: Any) -> Any:
    return engine_for(backbone, bank)[0].choice_log_probs(bank, *data)


def by_model(backbone: Backbone) -> Backbone:
    """The same backbone, run by the engine `transformers`."""
    return replace(backbone, engine="transformers")
