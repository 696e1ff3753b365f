"""From encoded dialogues to the rows of a step, and the cut of a step into waves that fit memory and cache.

Every order here follows from configuration and data: one permutation per (seed, key, epoch), rows sorted by
length, ties by key. No model here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.adapters import Bank, windows_of
from harness.engines.parallel import even_parts
from harness.errors import HarnessError
from harness.model import Backbone, Encoded


@dataclass(frozen=True, eq=False)
class Row:
    """One dialogue as the model needs it; P virtual tokens in front are not included.

    inputs     [L] token ids that are fed; what follows the last label could not change the loss and is cut
    positions  [n] of the hidden state, counted with the P virtual tokens, that predicts each label
    targets    [n] the labelled token ids
    """

    inputs: np.ndarray
    positions: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Entry:
    """A row of a step: whose it is (bank row, rank of the key for ties), its place in the adapter's batch."""

    adapter: int
    rank: int
    place: int
    row: Row


@dataclass(frozen=True, eq=False)
class Wave:
    """Rows that go through the model together. U adapters, B rows, T tokens, n labels.

    adapters  [U] bank rows that occur, each once;  rows [B] long: index into `adapters`
    ids       [B, T];  index [n] into the B * (P + T) hidden states;  targets [n]
    owners    [n] bank row of each label;  tokens: B * (P + T), padding included
    entries   the B rows in order
    """

    adapters: list[int]
    rows: Tensor
    ids: Tensor
    index: Tensor
    targets: Tensor
    owners: np.ndarray
    tokens: int
    entries: tuple[Entry, ...]


def prepare_row(encoded: Encoded, prefix: int) -> Row | None:
    """The row of a dialogue behind `prefix` virtual tokens; None if it has no label that can be predicted."""
    labels = np.flatnonzero(np.asarray(encoded.labels, dtype=bool))
    labels = labels[labels + prefix > 0]  # nothing predicts the very first token
    if not len(labels):
        return None
    ids = np.asarray(encoded.ids, dtype=np.int64)
    return Row(inputs=ids[: labels[-1]], positions=labels + (prefix - 1), targets=ids[labels])


def rows_of_data(backbone: Backbone, bank: Bank, data: Sequence[Sequence[Encoded]], split: str) -> list[list[Row]]:
    """The rows of each adapter, from its dialogues. Raises HarnessError for foreign ids and too long dialogues."""
    if len(data) != len(bank):
        raise HarnessError(f"{split} dialogues for {len(data)} adapters, but the bank has {len(bank)}")
    longest = getattr(backbone.model.config.get_text_config(), "max_position_embeddings", None)
    vocabulary = backbone.model.get_input_embeddings().weight.shape[0]
    rows = []
    for adapter, dialogues in enumerate(data):
        made = (prepare_row(encoded, bank.prefix_tokens) for encoded in dialogues)
        rows.append([row for row in made if row is not None])
        for row in rows[-1]:
            what = f"a {split} dialogue of {bank.keys[adapter]!r}"
            virtual = bank.prefix_tokens + bank.cached_tokens
            if longest is not None and virtual + len(row.inputs) > longest:
                raise HarnessError(
                    f"{what} has {len(row.inputs)} tokens behind {virtual} virtual ones, "
                    f"the model takes {longest}; cut its history or leave it out"
                )
            ids = np.concatenate([row.inputs, row.targets])
            if not 0 <= ids.min() <= ids.max() < vocabulary:
                raise HarnessError(f"{what} has token ids outside 0..{vocabulary - 1}; use this model's tokenizer")
    return rows


def out_of_sight(backbone: Backbone, bank: Bank, rows: Sequence[Sequence[Row]]) -> int:
    """How many rows end where no layer sees a virtual token any more; 0 where some layer sees all tokens."""
    virtual, windows = bank.prefix_tokens + bank.cached_tokens, windows_of(backbone.model)
    if not virtual or not windows or None in windows:
        return 0
    widest = max(window for window in windows if window is not None)
    return sum(len(row.inputs) >= widest for own in rows for row in own)


def epoch_order(seed: int, count: int) -> np.ndarray:
    """The permutation [count] in which an adapter sees its dialogues in an epoch.

    seed   of the fit, the adapter's key and the epoch: `key_seed(seed, key, "order", epoch)`, epochs from 0
    """
    return np.random.Generator(np.random.PCG64(seed)).permutation(count)


def cut(entries: Sequence[Entry], prefix: int, budget_tokens: int) -> list[list[Entry]]:
    """Waves of at most `budget_tokens` padded tokens (or one row), longest rows first to pad little."""
    ordered = sorted(entries, key=lambda entry: (-len(entry.row.inputs), entry.rank, entry.place))
    waves: list[list[Entry]] = []
    for entry in ordered:
        length = prefix + len(waves[-1][0].row.inputs) if waves else 0
        if not waves or (len(waves[-1]) + 1) * length > budget_tokens:
            waves.append([])
        waves[-1].append(entry)
    return waves


def share_out(entries: Sequence[Entry], prefix: int, budget_tokens: int, workers: int) -> list[list[Entry]]:
    """Waves of about equally many tokens for rows that need no padding: about `budget_tokens` each or fewer, and
    where there are rows enough a multiple of `workers`. One adapter's rows stay together."""
    ordered = sorted(entries, key=lambda entry: (entry.rank, entry.place))
    lengths = [prefix + len(entry.row.inputs) for entry in ordered]
    count = -(-sum(lengths) // budget_tokens)
    count = min(-(-count // workers) * workers, len(ordered))
    waves: list[list[Entry]] = [[] for _ in range(count)]
    for entry, number in zip(ordered, even_parts(lengths, count), strict=True):
        waves[number].append(entry)
    return [wave for wave in waves if wave]


def collate(entries: Sequence[Entry], prefix: int, device: torch.device) -> Wave:
    """Tensors of a wave; rows of one adapter side by side."""
    ordered = sorted(entries, key=lambda entry: (entry.rank, entry.place))
    longest = max(len(entry.row.inputs) for entry in ordered)
    ids = np.zeros((len(ordered), longest), dtype=np.int64)
    adapters = list(dict.fromkeys(entry.adapter for entry in ordered))
    local = {adapter: i for i, adapter in enumerate(adapters)}
    for i, entry in enumerate(ordered):
        ids[i, : len(entry.row.inputs)] = entry.row.inputs
    width = prefix + longest
    index = np.concatenate([i * width + entry.row.positions for i, entry in enumerate(ordered)])
    targets = np.concatenate([entry.row.targets for entry in ordered])
    owners = np.repeat([entry.adapter for entry in ordered], [len(entry.row.targets) for entry in ordered])
    rows = np.array([local[entry.adapter] for entry in ordered])
    on_device = [torch.from_numpy(array).to(device) for array in (rows, ids, index, targets)]
    return Wave(adapters, *on_device, owners=owners, tokens=len(ordered) * width, entries=tuple(ordered))
