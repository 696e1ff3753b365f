"""Batches of prompts that are decoded: the prompts of a dialogue share their prefill and its keys and values.

The layers are those of training, with an attention that remembers. No lazy annotations in this file: TorchScript reads
them. Legend: B rows of a batch, G passes (a prompt and its beginnings), C rows of a pass at most, T tokens of a pass at
most, L columns of the cache, P virtual tokens, H heads, K key-value heads, g = H / K, d numbers of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from harness.adapters import Bank
from harness.engines import decoding
from harness.engines.llama_cpu.attention import turn
from harness.engines.llama_cpu.decoder import Decoder
from harness.engines.llama_cpu.layers import changes_of, hidden_states, through_layers
from harness.engines.llama_cpu.packed import Packed, pack, runs_of
from harness.engines.llama_cpu.scripted import scripted

FEW = 0.75  # finished passes leave the caches once no more than this share of the passes has rows left


class Served:
    """A frozen decoder and the adapters of a bank, made ready once for many batches."""

    def __init__(self, decoder: Decoder, head: torch.nn.Linear, bank: Bank | None, positions: int) -> None:
        """positions: as many as the longest prompt with its virtual tokens and its reply needs."""
        self.decoder, self.head, self.bank = decoder, head, bank
        self.changes = changes_of(decoder, bank)
        self.rotation = decoder.rotation(positions)


class DecoderBatch:
    """A batch in decoding; see `decoding.Batch`.

    prompts  token ids of each pass: the longest prompt of a chain of beginnings
    reads    for each pass the lengths of the prompts that are read off it: as many batch rows, side by side
    rows     bank row of each pass, -1 for no adapter; passes of one adapter side by side
    room     how many tokens per row can be fed after the prompts
    """

    def __init__(
        self,
        served: Served,
        prompts: Sequence[Sequence[int]],
        reads: Sequence[Sequence[int]],
        rows: Sequence[int],
        room: int,
    ) -> None:
        self.served = served
        decoder = served.decoder
        self._virtual = decoding.virtual_tokens(served.bank)
        counts = np.array([len(found) for found in reads])
        lengths = np.concatenate([np.asarray(found) for found in reads]) + self._virtual
        self._passes = np.repeat(np.arange(len(counts)), counts)  # [B] where in the caches a row's pass lies
        self._places = np.arange(len(lengths)) - np.repeat(np.cumsum(counts) - counts, counts)  # [B] its place there
        self._rows = np.repeat(np.asarray(rows), counts)
        self._next = torch.from_numpy(lengths)  # [B] position of the token that is fed next
        self._columns = _Columns(self._virtual + max(map(len, prompts)), int(counts.max()), room)
        self._mask = self._columns.mask(decoder, len(counts), self._slots(), self._next)
        self._caches = [_LayerCache(decoder, len(counts), self._columns.count) for _ in decoder.layers]
        self.logits = served.head(self._prefill(prompts, reads, rows))
        self._packed = _single_tokens(self._rows)

    def feed(self, tokens: Tensor) -> None:
        decoder = self.served.decoder
        rotation = self.served.rotation.index_select(0, self._next)
        slots = torch.from_numpy(self._slots())

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, labels_only: bool, own: tuple[Tensor, ...]) -> Tensor:
            for part in (q, k):
                turn(part, rotation, decoder.head_width)
            cache = self._caches[layer]
            return _attend_step(q, k, v, cache.keys, cache.values, slots, self._mask, self._columns.used)

        packed = replace(self._packed, ids=tokens)
        self.logits = self.served.head(through_layers(decoder, self.served.changes, packed, None, attend))
        self._columns.used += self._columns.readers
        self._next = self._next + 1

    def take_back(self) -> None:
        self._columns.used -= self._columns.readers
        self._next = self._next - 1

    def keep(self, places: Sequence[int]) -> None:
        """Drop all batch rows but these; what a dropped pass has in the caches goes once it is worth a copy."""
        chosen = np.asarray(places)
        self._passes, self._places, self._rows = self._passes[chosen], self._places[chosen], self._rows[chosen]
        index = torch.from_numpy(chosen)
        self._next, self.logits = self._next[index], self.logits[index]
        alive, renumbered = np.unique(self._passes, return_inverse=True)
        if len(alive) <= FEW * len(self._mask):
            kept = torch.from_numpy(alive)
            self._mask = self._mask.index_select(0, kept)
            for cache in self._caches:
                cache.keep(kept)
            self._passes = renumbered
        self._packed = _single_tokens(self._rows)

    def _slots(self) -> np.ndarray:
        """[B] pass * C + place: where a row stands among the rows that all passes could have."""
        return self._passes * self._columns.readers + self._places

    def _prefill(self, prompts: Sequence[Sequence[int]], reads: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        """Hidden states [B, D] behind the last layer at the end of every prompt; fills the caches."""
        found, start, tokens = [], 0, 0
        for end, prompt in enumerate(prompts):
            if end > start and tokens + self._virtual + len(prompt) > decoding.FORWARD_TOKENS_CPU:
                found.append(self._pass(prompts[start:end], reads[start:end], rows[start:end], start))
                start, tokens = end, 0
            tokens += self._virtual + len(prompt)
        found.append(self._pass(prompts[start:], reads[start:], rows[start:], start))
        return torch.cat(found)

    def _pass(
        self, prompts: Sequence[Sequence[int]], reads: Sequence[Sequence[int]], rows: Sequence[int], first: int
    ) -> Tensor:
        """Of some prompts, which have the caches' places from `first`."""
        served = self.served
        inputs = [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
        ends = [np.asarray(found) + (self._virtual - 1) for found in reads]
        packed = pack(inputs, ends, rows, self._virtual)
        return hidden_states(
            served.decoder, served.changes, served.bank, packed, torch.tensor(list(rows)),
            lambda layer: self._caches[layer].put(first, packed.lengths),
        )  # fmt: skip


def _single_tokens(rows: np.ndarray) -> Packed:
    """A token of each of the bank rows [B]; which, is left open."""
    count = len(rows)
    nothing, every = torch.zeros(0, dtype=torch.long), torch.arange(count)
    runs = runs_of(rows.tolist(), [1] * count)
    return Packed([1] * count, nothing, every, nothing, torch.zeros_like(every), every, [1] * count, runs, runs)


class _Columns:
    """The columns of a batch's caches: a pass's T tokens, then for each step a token of each of its rows.

    readers  C, rows of a pass at most;  used: columns that are filled so far, the same in all passes
    """

    def __init__(self, longest: int, readers: int, room: int) -> None:
        self.longest, self.readers, self.used = longest, readers, longest
        self.count = longest + readers * room

    def mask(self, decoder: Decoder, passes: int, slots: np.ndarray, lengths: Tensor) -> Tensor:
        """[G, 1, C, 1, L]: minus infinity at what a row must not see: longer prompts of its pass, and other rows."""
        seen = lengths.new_full((passes * self.readers,), self.longest)  # a place without a row sees something, too
        seen[torch.from_numpy(slots)] = lengths
        column, place = torch.arange(self.count), torch.arange(self.readers)[:, None]
        fed = (column >= self.longest) & ((column - self.longest) % self.readers == place)
        visible = (column < seen.view(passes, self.readers, 1)) | fed
        mask = torch.zeros(visible.shape, dtype=decoder.table.dtype).masked_fill_(~visible, -torch.inf)
        return mask[:, None, :, None]


class _LayerCache:
    """Keys [G, K, d, L] and values [G, K, L, d] of a layer."""

    def __init__(self, decoder: Decoder, passes: int, columns: int) -> None:
        self.width = decoder.head_width
        self.keys = decoder.table.new_zeros(passes, decoder.kv_heads, decoder.head_width, columns)
        self.values = decoder.table.new_zeros(passes, decoder.kv_heads, columns, decoder.head_width)

    def put(self, first: int, lengths: Sequence[int]) -> Callable[[Tensor, Tensor], None]:
        """What takes the keys and values [R, K d] of the passes from `first`, which have so many tokens."""

        def keep(keys: Tensor, values: Tensor) -> None:
            parts = (part.unflatten(1, (-1, self.width)).split(list(lengths)) for part in (keys, values))
            for place, (key, value) in enumerate(zip(*parts, strict=True), first):
                self.keys[place, :, :, : len(key)] = key.permute(1, 2, 0)
                self.values[place, :, : len(value)] = value.transpose(0, 1)

        return keep

    def keep(self, passes: Tensor) -> None:
        self.keys, self.values = self.keys.index_select(0, passes), self.values.index_select(0, passes)


@scripted
def _attend_step(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, slots: Tensor, mask: Tensor, used: int
) -> Tensor:
    """Mixed values [B, H d]: all rows of a pass look at its columns, and at their own, in one product."""
    G, K, C, d = keys.size(0), keys.size(1), mask.size(2), keys.size(2)
    g, L = q.size(1) // (K * d), used + C
    spread = torch.cat([q, k, v], 1)
    spread = q.new_zeros([G * C, spread.size(1)]).index_copy_(0, slots, spread).view(G, C, (g + 2) * K, d)
    asked = spread.narrow(2, 0, g * K).view(G, C, K, g, d).transpose(1, 2).reshape(G * K, C * g, d)
    keys.narrow(3, used, C).copy_(spread.narrow(2, g * K, K).permute(0, 2, 3, 1))
    values.narrow(2, used, C).copy_(spread.narrow(2, (g + 1) * K, K).transpose(1, 2))
    scores = torch.bmm(asked, keys.narrow(3, 0, L).flatten(0, 1))
    scores.view(G, K, C, g, L).add_(mask.narrow(4, 0, L))
    mixed = torch.bmm(torch.softmax(scores, -1), values.narrow(2, 0, L).flatten(0, 1))
    mixed = mixed.view(G, K, C, g, d).transpose(1, 2).reshape(G * C, g * K * d)
    return mixed.index_select(0, slots)
