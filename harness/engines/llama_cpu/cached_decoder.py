"""Decoding through a Llama-like model by hand: a dialogue's prompts share their prefill and its keys and values.

The layers are those of training (decoder_pass) with an attention that remembers. Other models and kinds of adapters
take decoding.CachedBatch. No lazy annotations in this file: TorchScript reads them.
Legend: B rows of a batch, G passes (a prompt and its beginnings), C rows of a pass at most, T tokens of a pass at most,
L columns of the cache, P virtual tokens, H heads, K key-value heads, g = H / K, d numbers of a head.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.adapters import Bank
from harness.engines import decoding
from harness.engines.llama_cpu.causal import Attention
from harness.engines.llama_cpu.decoder import Decoder
from harness.engines.llama_cpu.decoder_pass import embedded, forward_layer, normalised, past_of, updates_of
from harness.engines.llama_cpu.low_rank import folded
from harness.engines.llama_cpu.packed import Packed, pack
from harness.engines.llama_cpu.scripted import scripted
from harness.model import Backbone

FEW = 0.75  # finished passes are dropped from the caches when no larger share of a batch's passes remains


class CachedDecoder:
    """A frozen decoder and the adapters of a bank, laid out once for many batches."""

    def __init__(self, backbone: Backbone, decoder: Decoder, bank: Bank | None, positions: int) -> None:
        """positions: as many as the longest prompt with its virtual tokens and its reply needs."""
        self.decoder, self.bank = decoder, bank
        head: Any = backbone.model.get_output_embeddings()
        self.head, self.head_bias = head.weight, head.bias
        low_rank = (bank.low_rank() if bank is not None else None) or {}
        self.updates = updates_of(decoder, list(low_rank), folded(decoder, low_rank))
        self.rotation = decoder.rotation(positions)

    def logits(self, hidden: Tensor) -> Tensor:
        normal, _ = normalised(hidden, self.decoder.epsilon)
        return F.linear(normal * self.decoder.norm, self.head, self.head_bias)


class DecoderBatch:
    """A batch in decoding; see `generation.Batch`.

    prompts  token ids of each pass: the longest prompt of a chain of beginnings
    reads    for each pass the lengths of the prompts that are read off it: as many batch rows, side by side
    rows     bank row of each pass, -1 for no adapter; passes of one adapter side by side
    room     how many tokens per row can be fed after the prompts
    `logits` [B, V] are the latest next-token logits.
    """

    def __init__(
        self,
        model: CachedDecoder,
        prompts: Sequence[Sequence[int]],
        reads: Sequence[Sequence[int]],
        rows: Sequence[int],
        room: int,
    ) -> None:
        self.model = model
        decoder = model.decoder
        prefix = decoding.virtual_tokens(model.bank)
        counts = np.array([len(found) for found in reads])
        lengths = np.concatenate([np.asarray(found) for found in reads]) + prefix
        self._passes = np.repeat(np.arange(len(counts)), counts)  # [B] where in the caches a row's pass lies
        self._places = np.arange(len(lengths)) - np.repeat(np.cumsum(counts) - counts, counts)  # [B] its place there
        self._rows = np.repeat(np.asarray(rows), counts)
        self._next = torch.from_numpy(lengths)  # [B] position of the token that is fed next
        self._columns = _Columns(prefix + max(map(len, prompts)), int(counts.max()), room)
        self._mask = self._columns.mask(decoder, len(counts), self._slots(), self._next)
        self._caches = [_LayerCache(decoder, len(counts), self._columns.count) for _ in decoder.layers]
        self.logits = model.logits(self._prefill(prompts, reads, rows, prefix))
        self._arrange()

    def feed(self, tokens: Tensor) -> None:
        """Append one token per row [B] and compute the logits that follow it."""
        decoder = self.model.decoder
        x = decoder.table.index_select(0, tokens)
        rotation = self.model.rotation.index_select(0, self._next)
        slots = torch.from_numpy(self._slots())
        for layer, updates, cache in zip(decoder.layers, self.model.updates, self._caches, strict=True):
            step = _Step(cache, decoder, slots, self._mask, self._columns)
            x, _ = forward_layer(decoder, layer, updates, self._packed, step, rotation, x, False, False)
        self._columns.used += self._columns.readers
        self._next = self._next + 1
        self.logits = self.model.logits(x)

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
        self._arrange()

    def _slots(self) -> np.ndarray:
        """[B] pass * C + place: where a row stands among the rows that all passes could have."""
        return self._passes * self._columns.readers + self._places

    def _prefill(
        self, prompts: Sequence[Sequence[int]], reads: Sequence[Sequence[int]], rows: Sequence[int], prefix: int
    ) -> Tensor:
        """Hidden states [B, D] behind the last layer at the end of every prompt; fills the caches."""
        found, start, tokens = [], 0, 0
        for end, prompt in enumerate(prompts):
            if end > start and tokens + prefix + len(prompt) > decoding.FORWARD_TOKENS_CPU:
                found.append(self._pass(prompts[start:end], reads[start:end], rows[start:end], prefix))
                start, tokens = end, 0
            tokens += prefix + len(prompt)
        found.append(self._pass(prompts[start:], reads[start:], rows[start:], prefix))
        return torch.cat(found)

    def _pass(
        self, prompts: Sequence[Sequence[int]], reads: Sequence[Sequence[int]], rows: Sequence[int], prefix: int
    ) -> Tensor:
        decoder, bank = self.model.decoder, self.model.bank
        inputs = [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
        positions = [np.asarray(ends, dtype=np.int64) + (prefix - 1) for ends in reads]
        packed = pack(inputs, positions, [max(row, 0) for row in rows], prefix)
        adapters = torch.tensor(list(rows))
        virtual = None if bank is None else bank.prefix(adapters)
        x = embedded(decoder, packed, None if virtual is None else virtual.flatten(0, 1))
        past = None if bank is None else past_of(decoder, bank, adapters)
        rotation = self.model.rotation.index_select(0, packed.positions)
        attention = _Remembering(decoder, packed)
        for number, (layer, updates) in enumerate(zip(decoder.layers, self.model.updates, strict=True)):
            attention.cache = self._caches[number]
            attention.past = None if past is None else past[number]
            last = number == len(decoder.layers) - 1
            x, _ = forward_layer(decoder, layer, updates, packed, attention, rotation, x, last, False)
        return x

    def _arrange(self) -> None:
        """Which rows have the same adapter, of those that are left."""
        bounds = np.flatnonzero(np.diff(self._rows, prepend=-2, append=-2))
        runs = [(int(self._rows[a]), int(a), int(b)) for a, b in itertools.pairwise(bounds)]
        nothing = torch.zeros(0, dtype=torch.long)
        self._packed = Packed([], nothing, nothing, nothing, nothing, nothing, [], runs, runs)


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
        self.keys = decoder.table.new_zeros(passes, decoder.kv_heads, decoder.head_width, columns)
        self.values = decoder.table.new_zeros(passes, decoder.kv_heads, columns, decoder.head_width)
        self._next = 0

    def add(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """The next passes' keys and values, each [tokens, K, d]."""
        for key, value in zip(keys, values, strict=True):
            self.keys[self._next, :, :, : len(key)] = key.permute(1, 2, 0)
            self.values[self._next, :, : len(value)] = value.transpose(0, 1)
            self._next += 1

    def keep(self, passes: Tensor) -> None:
        self.keys, self.values = self.keys.index_select(0, passes), self.values.index_select(0, passes)


class _Remembering(Attention):
    """Attention over whole prompts that puts keys and values into a layer's cache."""

    cache: _LayerCache

    def mix(self, qkv: Tensor, labels_only: bool, keep: bool) -> tuple[Tensor, Any]:
        found = super().mix(qkv, labels_only, keep)  # first: it writes a past into qkv
        _, *parts = qkv.split(self.decoder.sizes, dim=1)
        self.cache.add(*(part.unflatten(1, (self.decoder.kv_heads, -1)).split(self.packed.lengths) for part in parts))
        return found


class _Step:
    """Attention of one new token a row over a layer's cache, which it joins; slots and mask of the batch."""

    def __init__(self, cache: _LayerCache, decoder: Decoder, slots: Tensor, mask: Tensor, columns: _Columns) -> None:
        self.cache, self.heads, self.slots, self.mask, self.columns = cache, decoder.heads, slots, mask, columns

    def mix(self, qkv: Tensor, labels_only: bool, keep: bool) -> tuple[Tensor, Any]:
        cache = self.cache
        return _attend_step(qkv, cache.keys, cache.values, self.slots, self.mask, self.heads, self.columns.used), None


@scripted
def _attend_step(
    qkv: Tensor, keys: Tensor, values: Tensor, slots: Tensor, mask: Tensor, heads: int, used: int
) -> Tensor:
    """Mixed values [B, H d]: all rows of a pass look at its columns, and at their own, in one product."""
    G, K, C, d = keys.size(0), keys.size(1), mask.size(2), keys.size(2)
    g, L = heads // K, used + C
    spread = qkv.new_zeros([G * C, qkv.size(1)]).index_copy_(0, slots, qkv).view(G, C, heads + 2 * K, d)
    q = spread.narrow(2, 0, heads).view(G, C, K, g, d).transpose(1, 2).reshape(G * K, C * g, d)
    keys.narrow(3, used, C).copy_(spread.narrow(2, heads, K).permute(0, 2, 3, 1))
    values.narrow(2, used, C).copy_(spread.narrow(2, heads + K, K).transpose(1, 2))
    scores = torch.bmm(q, keys.narrow(3, 0, L).flatten(0, 1))
    scores.view(G, K, C, g, L).add_(mask.narrow(4, 0, L))
    mixed = torch.bmm(torch.softmax(scores, -1), values.narrow(2, 0, L).flatten(0, 1))
    mixed = mixed.view(G, K, C, g, d).transpose(1, 2).reshape(G * C, heads * d)
    return mixed.index_select(0, slots)
