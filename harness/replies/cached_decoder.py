"""Decoding through a Llama-like model by hand: a dialogue's prompts share their prefill and its keys and values.

The layers are those of training (harness.fits.decoder_pass) with an attention that remembers. Other models and kinds
of adapters take decoding.CachedBatch. No lazy annotations in this file: TorchScript reads them.
Legend: B rows of a batch, G passes (a prompt and its beginnings), T tokens of a pass, P virtual tokens, H heads,
K key-value heads, g = H / K, d numbers of a head, t tokens that were fed after the prompts.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.adapters import Bank
from harness.backbone import Backbone
from harness.fits.batching import Entry, Row
from harness.fits.causal import Attention
from harness.fits.decoder import Decoder
from harness.fits.decoder_pass import embedded, forward_layer, normalised, updates_of
from harness.fits.low_rank import folded
from harness.fits.packed import Packed, pack
from harness.fits.scripted import scripted
from harness.replies import decoding


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
    """A batch in decoding; used as decoding.CachedBatch is.

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
        prefix = 0 if model.bank is None else model.bank.prefix_tokens
        lengths = np.concatenate([np.asarray(found) for found in reads]) + prefix
        self._counts = [len(found) for found in reads]
        self._rows = np.repeat(np.asarray(rows), self._counts)
        self._next = torch.from_numpy(lengths)  # position of the token that is fed next
        self._lengths = self._next
        self._fed = 0
        self._caches = [_LayerCache(decoder, len(lengths), room) for _ in decoder.layers]
        self.logits = model.logits(self._prefill(prompts, reads, rows, prefix))
        self._arrange()

    def __enter__(self) -> "DecoderBatch":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def feed(self, tokens: Tensor) -> None:
        """Append one token per row [B] and compute the logits that follow it."""
        decoder = self.model.decoder
        x = decoder.table.index_select(0, tokens)
        rotation = self.model.rotation.index_select(0, self._next)
        for layer, updates, cache in zip(decoder.layers, self.model.updates, self._caches, strict=True):
            step = _Step(cache, decoder, self._counts, self._hidden, self._fed)
            x, _ = forward_layer(decoder, layer, updates, self._packed, step, rotation, x, False, False)
        self._fed += 1
        self._next = self._next + 1
        self.logits = self.model.logits(x)

    def keep(self, places: Sequence[int]) -> None:
        """Drop all batch rows but these, from the cache as well."""
        index = torch.tensor(places)
        owner = np.repeat(np.arange(len(self._counts)), self._counts)[index.numpy()]
        counts = np.bincount(owner, minlength=len(self._counts))
        alive = np.flatnonzero(counts)
        self._counts = counts[alive].tolist()
        self._rows = self._rows[index.numpy()]
        self._next, self._lengths, self.logits = self._next[index], self._lengths[index], self.logits[index]
        for cache in self._caches:
            cache.keep(alive, index)
        self._arrange()

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
        entries = []
        for prompt, ends, row in zip(prompts, reads, rows, strict=True):
            ids = np.asarray(prompt, dtype=np.int64)
            positions = np.asarray(ends, dtype=np.int64) + (prefix - 1)
            entries.append(Entry(row, row, 0, Row(ids, positions, positions)))
        packed = pack(entries, range(-1 if min(rows) < 0 else 0, max(rows) + 1), prefix)
        virtual = None if bank is None else bank.prefix(torch.tensor(list(rows)))
        x = embedded(decoder, packed, None if virtual is None else virtual.flatten(0, 1))
        rotation = self.model.rotation.index_select(0, packed.positions)
        attention = _Remembering(decoder, packed)
        for number, (layer, updates) in enumerate(zip(decoder.layers, self.model.updates, strict=True)):
            attention.cache = self._caches[number]
            last = number == len(decoder.layers) - 1
            x, _ = forward_layer(decoder, layer, updates, packed, attention, rotation, x, last, False)
        return x

    def _arrange(self) -> None:
        """What follows from which rows are left."""
        longest = max(keys.shape[1] for keys in self._caches[0].keys)
        self._hidden = (torch.arange(longest) >= self._lengths[:, None])[:, None, None]  # [B, 1, 1, T]
        bounds = np.flatnonzero(np.diff(self._rows, prepend=-2, append=-2))
        runs = [(int(self._rows[a]), int(a), int(b)) for a, b in itertools.pairwise(bounds)]
        nothing = torch.zeros(0, dtype=torch.long)
        self._packed = Packed([], nothing, nothing, nothing, nothing, nothing, [], runs, runs)


class _LayerCache:
    """Keys and values of a layer: of each pass [K, T, d], and of what each row was fed since [B, K, room, d]."""

    def __init__(self, decoder: Decoder, rows: int, room: int) -> None:
        shape = (rows, decoder.kv_heads, max(room, 1), decoder.head_width)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.fed_keys, self.fed_values = decoder.table.new_zeros(shape), decoder.table.new_zeros(shape)

    def keep(self, passes: np.ndarray, rows: Tensor) -> None:
        self.keys, self.values = [self.keys[i] for i in passes], [self.values[i] for i in passes]
        self.fed_keys, self.fed_values = self.fed_keys[rows], self.fed_values[rows]


class _Remembering(Attention):
    """Attention over whole prompts that puts keys and values into a layer's cache."""

    cache: _LayerCache

    def mix(self, qkv: Tensor, labels_only: bool, keep: bool) -> tuple[Tensor, Any]:
        _, keys, values = qkv.split(self.decoder.sizes, dim=1)
        for found, kept in ((keys, self.cache.keys), (values, self.cache.values)):
            for part in found.unflatten(1, (self.decoder.kv_heads, -1)).split(self.packed.lengths):
                kept.append(part.transpose(0, 1).contiguous())
        return super().mix(qkv, labels_only, keep)


class _Step:
    """Attention of one new token a row over a layer's cache, which it joins."""

    def __init__(self, cache: _LayerCache, decoder: Decoder, counts: list[int], hidden: Tensor, fed: int) -> None:
        self.cache, self.decoder, self.counts, self.hidden, self.fed = cache, decoder, counts, hidden, fed

    def mix(self, qkv: Tensor, labels_only: bool, keep: bool) -> tuple[Tensor, Any]:
        heads, kv_heads = self.decoder.heads, self.decoder.kv_heads
        q, k, v = qkv.split(self.decoder.sizes, dim=1)
        cache = self.cache
        cache.fed_keys.select(2, self.fed).copy_(k.unflatten(1, (kv_heads, -1)))
        cache.fed_values.select(2, self.fed).copy_(v.unflatten(1, (kv_heads, -1)))
        mixed = _attend_step(
            q.reshape(len(q), kv_heads, heads // kv_heads, self.decoder.head_width),
            cache.keys, cache.values, cache.fed_keys, cache.fed_values, self.counts, self.hidden, self.fed + 1,
        )  # fmt: skip
        return mixed.flatten(1), None


@scripted
def _attend_step(
    q: Tensor,
    keys: list[Tensor],
    values: list[Tensor],
    fed_keys: Tensor,
    fed_values: Tensor,
    counts: list[int],
    hidden: Tensor,
    fed: int,
) -> Tensor:
    """Mixed values [B, K, g, d] of queries [B, K, g, d]; hidden [B, 1, 1, T]: what of its pass a row must not see."""
    B, K, g, d = q.size(0), q.size(1), q.size(2), q.size(3)
    longest = hidden.size(3)
    weights = q.new_zeros([B, K, g, longest + fed])
    own_keys, own_values = fed_keys.narrow(2, 0, fed), fed_values.narrow(2, 0, fed)
    weights.narrow(3, longest, fed).copy_(torch.matmul(q, own_keys.transpose(2, 3)))
    first = 0
    for i in range(len(counts)):
        count, length = counts[i], keys[i].size(1)
        part = q.narrow(0, first, count).transpose(0, 1).reshape(K, count * g, d)
        scores = torch.bmm(part, keys[i].transpose(1, 2)).view(K, count, g, length).transpose(0, 1)
        weights.narrow(0, first, count).narrow(3, 0, length).copy_(scores)
        first += count
    weights.narrow(3, 0, longest).masked_fill_(hidden, -float("inf"))
    weights = torch.softmax(weights, -1)
    mixed = torch.matmul(weights.narrow(3, longest, fed), own_values)
    first = 0
    for i in range(len(counts)):
        count, length = counts[i], keys[i].size(1)
        part = weights.narrow(0, first, count).narrow(3, 0, length).transpose(0, 1).reshape(K, count * g, length)
        found = torch.bmm(part, values[i]).view(K, count, g, d).transpose(0, 1)
        mixed.narrow(0, first, count).add_(found)
        first += count
    return mixed
