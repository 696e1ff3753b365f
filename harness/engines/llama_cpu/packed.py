"""Rows one after the other, without padding: where every token, label and adapter lies.

Legend: R tokens of all rows, B rows, P virtual tokens, n labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Run = tuple[int, int, int]  # (adapter, first, behind the last)


@dataclass(frozen=True, eq=False)
class Packed:
    """Where everything lies in the R tokens.

    lengths     tokens of each row, virtual ones included
    prefix_at   [B * P] tokens that are virtual;  token_at, ids: the others and what they are
    positions   [R] in their rows
    labels      [n] tokens whose hidden states are wanted;  label_counts: of each row
    runs        (adapter, first, behind the last) in R: one adapter's rows lie side by side
    label_runs  the same in the n labels
    """

    lengths: list[int]
    prefix_at: Tensor
    token_at: Tensor
    ids: Tensor
    positions: Tensor
    labels: Tensor
    label_counts: list[int]
    runs: list[Run]
    label_runs: list[Run]


def pack(inputs: Sequence[np.ndarray], labels: Sequence[np.ndarray], owners: Sequence[int], virtual: int) -> Packed:
    """Lay out rows of token ids, each behind P = `virtual` virtual tokens.

    labels   of each row, the positions that are wanted, at least one, counted with the virtual tokens
    owners   of each row its adapter; one adapter's rows come side by side
    """
    lengths = [virtual + len(row) for row in inputs]
    starts = np.cumsum([0, *lengths[:-1]])
    counts = [len(row) for row in labels]
    positions = np.concatenate([np.arange(length) for length in lengths])
    is_virtual = positions < virtual
    return Packed(
        lengths=lengths,
        prefix_at=torch.from_numpy(np.flatnonzero(is_virtual)),
        token_at=torch.from_numpy(np.flatnonzero(~is_virtual)),
        ids=torch.from_numpy(np.concatenate(inputs)),
        positions=torch.from_numpy(positions),
        labels=torch.from_numpy(np.concatenate([start + row for start, row in zip(starts, labels, strict=True)])),
        label_counts=counts,
        runs=runs_of(owners, lengths),
        label_runs=runs_of(owners, counts),
    )


def runs_of(owners: Sequence[int], sizes: Sequence[int]) -> list[Run]:
    """Where each adapter's rows begin and end, if its rows, of these sizes, lie side by side."""
    runs: list[Run] = []
    end = 0
    for owner, size in zip(owners, sizes, strict=True):
        first = runs.pop()[1] if runs and runs[-1][0] == owner else end
        end += size
        runs.append((owner, first, end))
    return runs
