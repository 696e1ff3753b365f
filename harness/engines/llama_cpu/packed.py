"""Rows of a wave one after the other, without padding: where every token, label and adapter lies.

Rows and waves themselves are in batching. Legend: R tokens of a wave, B rows, P virtual tokens, T tokens, n labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.engines.batching import Entry, Row

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


def pack(entries: Sequence[Entry], adapters: Sequence[int], prefix: int, cached: int = 0) -> Packed:
    """Lay out the rows of a wave, which come adapter by adapter, behind P = prefix + cached virtual tokens each.

    cached   of these, as many as the label positions of the rows do not count (see `Bank.cached_tokens`)
    """
    virtual = prefix + cached
    lengths: list[int] = []
    runs: list[Run] = []
    label_runs: list[Run] = []
    labels: list[np.ndarray] = []
    local = {adapter: i for i, adapter in enumerate(adapters)}
    start = seen = 0
    for entry in entries:
        end, more = start + virtual + len(entry.row.inputs), seen + len(entry.row.positions)
        lengths.append(end - start)
        labels.append(entry.row.positions + (start + cached))
        mine = local[entry.adapter]
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
        ids=torch.from_numpy(np.concatenate([entry.row.inputs for entry in entries])),
        positions=torch.from_numpy(positions),
        labels=torch.from_numpy(np.concatenate(labels)),
        label_counts=[len(part) for part in labels],
        runs=runs,
        label_runs=label_runs,
    )


def pack_ids(ids: Tensor) -> Packed:
    """Rows of plain tokens [B, T], every position a label."""
    inputs = [row.numpy() for row in ids]
    entries = [Entry(0, 0, i, Row(row, np.arange(len(row)), row)) for i, row in enumerate(inputs)]
    return pack(entries, [0], 0)
