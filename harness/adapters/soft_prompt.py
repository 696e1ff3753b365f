"""Soft prompts: P trained vectors before the input embeddings (Lester et al. 2021; PEFT's PROMPT_TUNING)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from harness.adapters.bank import Bank, BaseFacts, check_keys, key_seed, master_dtype, rows_of
from harness.backbone import Backbone
from harness.errors import HarnessError
from harness.specs import SoftPrompt

PROMPT = "prompt_embeddings"  # the name of the tensor, here and in PEFT's files


class SoftPromptBank(Bank):
    """N soft prompts; one tensor `prompt_embeddings` [N, P, D]."""

    @property
    def prefix_tokens(self) -> int:
        return self.tensors[PROMPT].shape[1]

    def prefix(self, rows: Tensor) -> Tensor:
        return rows_of(self.tensors[PROMPT], rows).to(self.base.dtype)

    def applied(self, model: Any, rows: Tensor, *, dropout_seeds: Tensor | None = None) -> AbstractContextManager[None]:
        return nullcontext()

    def weight_deltas(self, row: int) -> dict[str, Tensor]:
        raise HarnessError("a soft prompt is no change of weights and cannot be merged; only LoRA can")


def create_soft_prompts(backbone: Backbone, spec: SoftPrompt, keys: Sequence[str], seed: int) -> SoftPromptBank:
    """N soft prompts, each initialised from (seed, its key) alone."""
    names = check_keys(keys)
    dtype = master_dtype(backbone.dtype)
    table = backbone.model.get_input_embeddings().weight.detach().to("cpu", dtype)
    draw = _draw_tokens if spec.init == "vocab_sample" else _draw_normal
    rows = draw(backbone, table, spec.tokens, [key_seed(seed, key, PROMPT) for key in names])
    return SoftPromptBank(spec, names, {PROMPT: rows.to(backbone.device)}, BaseFacts.of(backbone))


def _draw_tokens(backbone: Backbone, table: Tensor, tokens: int, seeds: Sequence[int]) -> Tensor:
    """[N, P, D]: embeddings of P ordinary tokens, without repetition where the vocabulary has enough."""
    tokenizer = backbone.tokenizer
    special = set(tokenizer.all_special_ids)
    special |= {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    # Embedding matrices are often padded beyond the vocabulary; those rows were never trained.
    usable = torch.tensor([i for i in range(min(len(tokenizer), table.shape[0])) if i not in special])
    picks = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        if len(usable) >= tokens:
            pick = torch.randperm(len(usable), generator=generator)[:tokens]
        else:
            pick = torch.randint(len(usable), (tokens,), generator=generator)
        picks.append(usable[pick])
    return table[torch.stack(picks)]


def _draw_normal(backbone: Backbone, table: Tensor, tokens: int, seeds: Sequence[int]) -> Tensor:
    """[N, P, D]: normal with the mean and standard deviation of the embedding matrix."""
    mean, deviation = table.mean(), table.std()
    draws = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        draws.append(torch.randn(tokens, table.shape[1], generator=generator, dtype=table.dtype))
    return torch.stack(draws) * deviation + mean
