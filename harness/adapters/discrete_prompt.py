"""Discrete soft prompts: each of the P vectors is served as the nearest entry of the vocabulary (PEZ, Wen et al. 2023).

A continuous vector is trained; the forward uses its projection and the gradient passes through to the vector
unchanged. Nearest is by Euclidean distance, where the authors' code compares cosines: so the served vector is the one
that moves the trained vector least. Legend: V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.adapters.bank import Seeds, rows_of
from harness.adapters.soft_prompt import (
    PROMPT,
    SoftPromptBank,
    create_soft_prompts,
    embedding_table,
    ordinary_tokens,
)
from harness.contract import AdapterKind, SoftPrompt
from harness.model import Backbone

BLOCK_NUMBERS = 2**22  # numbers of the embedding matrix that are looked at together


@dataclass(frozen=True, eq=False)
class DiscretePromptBank(SoftPromptBank):
    """N discrete prompts; `prompt_embeddings` [N, P, D] are the continuous vectors.

    table  [V, D] the backbone's input embeddings of all tokens
    norms  [V] fp64 squared length of each row; infinite for special and never trained rows, which nothing is near to
    """

    table: Tensor
    norms: Tensor

    def prefix(self, rows: Tensor) -> Tensor:
        used, place = rows.unique(return_inverse=True)
        vectors = rows_of(self.tensors[PROMPT], used)
        projected = self.table[self._nearest(vectors)].to(vectors.dtype)
        # The forward pass adds zero; the gradient passes straight through to the vector. A NaN stays one and shows.
        return rows_of(projected + (vectors - vectors.detach()), place).to(self.base.dtype)

    def served(self) -> dict[str, Tensor]:
        vectors = self.tensors[PROMPT]
        return {PROMPT: self.table[self._nearest(vectors)].to(vectors.dtype)}

    def token_ids(self, row: int) -> list[int]:
        """The P token ids that adapter `row` stands for."""
        return self._nearest(self.select([row]).tensors[PROMPT])[0].tolist()

    def words(self, row: int, tokenizer: Any) -> list[str]:
        """The text of each of the P tokens of adapter `row`."""
        return [tokenizer.decode([token]) for token in self.token_ids(row)]

    def _nearest(self, vectors: Tensor) -> Tensor:
        """Token ids [N, P] of the entries nearest to vectors [N, P, D]; the lower id of two equals.

        In fp64: with less, a batch's company could round a near tie to the other side.
        """
        wanted = vectors.detach().flatten(0, 1).double().T  # [D, n]
        best = wanted.new_full(wanted.shape[1:], torch.inf)
        ids = torch.zeros_like(best, dtype=torch.long)
        size = max(1, BLOCK_NUMBERS // self.table.shape[1])
        for start in range(0, len(self.table), size):
            part = slice(start, start + size)
            # |e - v|^2 without |v|^2, which is the same for every entry e
            distance = self.norms[part, None] - 2 * (self.table[part].double() @ wanted)
            lowest, place = distance.min(dim=0)
            better = lowest < best
            best, ids = torch.where(better, lowest, best), torch.where(better, place + start, ids)
        return ids.view(vectors.shape[:2])


def create_discrete_prompts(backbone: Backbone, spec: SoftPrompt, count: int, seeds: Seeds) -> DiscretePromptBank:
    """N discrete prompts, their vectors initialised as those of kind "input"."""
    bank = create_soft_prompts(backbone, spec, count, seeds)
    table = embedding_table(backbone)
    norms = torch.full((len(table),), torch.inf, dtype=torch.float64, device=table.device)
    usable = ordinary_tokens(backbone).to(table.device)
    norms[usable] = table[usable].double().square().sum(1)
    return DiscretePromptBank(spec, bank.tensors, bank.base, table, norms)


KIND = AdapterKind(
    "discrete_prompt",
    "virtual tokens, each held to the nearest entry of the vocabulary",
    SoftPrompt,
    create_discrete_prompts,
    when={"kind": "discrete"},
)
