"""Soft prompts: P trained vectors before the input embeddings (Lester et al. 2021; PEFT's PROMPT_TUNING).

The initial vectors made here are what the other kinds of SoftPrompt begin with too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from harness.adapters.bank import Bank, BaseFacts, Seeds, master_dtype, rows_of
from harness.contract import AdapterKind, SoftPrompt
from harness.errors import HarnessError
from harness.model import Backbone

PROMPT = "prompt_embeddings"  # the name of the tensor, here and in PEFT's files


class SoftPromptBank(Bank):
    """N soft prompts; one tensor `prompt_embeddings` [N, P, D]."""

    spec: SoftPrompt

    @property
    def prefix_tokens(self) -> int:
        return self.tensors[PROMPT].shape[1]

    def prefix(self, rows: Tensor) -> Tensor:
        return rows_of(self.tensors[PROMPT], rows).to(self.base.dtype)

    def applied(self, model: Any, rows: Tensor, *, dropout_seeds: Tensor | None = None) -> AbstractContextManager[None]:
        return nullcontext()

    def low_rank(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {}

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "PROMPT_TUNING",
            "num_virtual_tokens": self.spec.tokens,
            "token_dim": self.base.hidden,
            "num_layers": self.base.layers,
            "num_attention_heads": self.base.heads,
            "num_transformer_submodules": 1,
        }


def create_soft_prompts(backbone: Backbone, spec: SoftPrompt, count: int, seeds: Seeds) -> SoftPromptBank:
    """N soft prompts, each initialised from its own seed alone."""
    rows = initial_vectors(backbone, spec, seeds(PROMPT)).to(backbone.device)
    return SoftPromptBank(spec, {PROMPT: rows}, BaseFacts.of(backbone))


def initial_vectors(backbone: Backbone, spec: SoftPrompt, seeds: Sequence[int]) -> Tensor:
    """[N, P, D] on the CPU, as `spec.init` says, each from its own seed alone.

    Raises HarnessError for a text in which the tokenizer finds no token.
    """
    table = embedding_table(backbone).to("cpu", master_dtype(backbone.dtype))
    match spec.init:
        case "vocab_sample":
            return _draw_tokens(backbone, table, spec.tokens, seeds)
        case "random":
            return _draw_normal(table, spec.tokens, seeds)
        case "text":
            ids = _text_ids(backbone, spec)
            return table[ids].expand(len(seeds), -1, -1).clone()


def embedding_table(backbone: Backbone) -> Tensor:
    """[V, D] what the model's input embeddings give for every token; Gemma's multiply their weights by sqrt(D)."""
    module = backbone.model.get_input_embeddings()
    if type(module) is torch.nn.Embedding:
        return module.weight.detach()
    with torch.no_grad():
        return module(torch.arange(len(module.weight), device=module.weight.device))


def ordinary_tokens(backbone: Backbone) -> Tensor:
    """Ids of the vocabulary without special tokens and without rows of the embedding matrix that have no token."""
    tokenizer = backbone.tokenizer
    special = set(tokenizer.all_special_ids)
    special |= {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    # Embedding matrices are often padded beyond the vocabulary; those rows were never trained.
    rows = backbone.model.get_input_embeddings().weight.shape[0]
    return torch.tensor([i for i in range(min(len(tokenizer), rows)) if i not in special])


def _draw_tokens(backbone: Backbone, table: Tensor, tokens: int, seeds: Sequence[int]) -> Tensor:
    """[N, P, D]: embeddings of P ordinary tokens, without repetition where the vocabulary has enough."""
    usable = ordinary_tokens(backbone)
    picks = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        if len(usable) >= tokens:
            pick = torch.randperm(len(usable), generator=generator)[:tokens]
        else:
            pick = torch.randint(len(usable), (tokens,), generator=generator)
        picks.append(usable[pick])
    return table[torch.stack(picks)]


def _draw_normal(table: Tensor, tokens: int, seeds: Sequence[int]) -> Tensor:
    """[N, P, D]: normal with the mean and standard deviation of the embedding matrix."""
    mean, deviation = table.mean(), table.std()
    draws = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        draws.append(torch.randn(tokens, table.shape[1], generator=generator, dtype=table.dtype))
    return torch.stack(draws) * deviation + mean


def _text_ids(backbone: Backbone, spec: SoftPrompt) -> list[int]:
    """P token ids: the text's, again from its beginning where it is shorter."""
    ids = backbone.tokenizer(spec.text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise HarnessError(f"the tokenizer finds no token in the soft prompt's text {spec.text!r}; give other words")
    return [ids[place % len(ids)] for place in range(spec.tokens)]


KIND = AdapterKind(
    "soft_prompt", "virtual tokens before the input", SoftPrompt, create_soft_prompts, when={"kind": "input"}
)
