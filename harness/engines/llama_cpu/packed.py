"""Rows of a wave one after the other, without padding: where every token, label and adapter lies.

Legend: R tokens of a wave, B rows, P virtual tokens, T tokens, n labels.
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
    """Where everything lies in the tokens of a wave.

    lengths     tokens of each row
    prefix_at   [B * P] tokens that are virtual;  token_at, ids: the others and what they are
    positions   [R] in their rows
    labels      [n] tokens whose hidden states predict a label
    label_counts  of each row
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


def pack(
    inputs: Sequence[np.ndarray], reads: Sequence[np.ndarray], adapters: Sequence[int], prefix: int, cached: int = 0
) -> Packed:
    """Lay out rows, which come adapter by adapter, behind P = prefix + cached virtual tokens each.

    inputs    token ids of each row
    reads     of each row the positions whose hidden states are wanted, counted with the prefix's virtual tokens
    adapters  of each row
    cached    virtual tokens that are keys and values only (`Bank.cached_tokens`); `reads` does not count them
    """
    virtual = prefix + cached
    lengths: list[int] = []
    runs: list[Run] = []
    label_runs: list[Run] = []
    labels: list[np.ndarray] = []
    start = seen = 0
    for ids, positions, mine in zip(inputs, reads, adapters, strict=True):
        end, more = start + virtual + len(ids), seen + len(positions)
        lengths.append(end - start)
        labels.append(positions + (start + cached))
        for found, first, last in ((runs, start, end), (label_runs, seen, more)):
            if found and found[-1][0] == mine:
                found[-1] = (mine, found[-1][1], last)
            else:
                found.append((mine, first, last))
        start, seen = end, more
    positions = np.concatenate([np.arange(length) for length in lengths])
    is_virtual = positions < virtual
    return Packed(
        lengths=lengths,
        prefix_at=torch.from_numpy(np.flatnonzero(is_virtual)),
        token_at=torch.from_numpy(np.flatnonzero(~is_virtual)),
        ids=torch.from_numpy(np.concatenate(inputs)),
        positions=torch.from_numpy(positions),
        labels=torch.from_numpy(np.concatenate(labels)),
        label_counts=[len(part) for part in labels],
        runs=runs,
        label_runs=label_runs,
    )


def pack_ids(ids: Tensor) -> Packed:
    """Rows of plain tokens [B, T], every position a label."""
    inputs = [row.numpy() for row in ids]
    return pack(inputs, [np.arange(len(row)) for row in inputs], [0] * len(inputs), 0)
