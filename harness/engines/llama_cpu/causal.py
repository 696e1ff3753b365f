"""Causal attention of a wave's rows, forward and backward by hand, in blocks of queries that look at no later key.

No lazy annotations in this file: TorchScript reads them (see scripted). Legend: R tokens of a wave, n labels, P virtual
tokens, H heads, K key-value heads, d numbers of a head; q is a view [H, R or n, d], k and v are [H, R, d].
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engines.llama_cpu.decoder import Decoder
from harness.engines.llama_cpu.packed import Packed
from harness.engines.llama_cpu.scripted import scripted

BLOCK = 96  # queries; half as many where they are the labels' alone, which lie further apart
LONGEST = 512  # tokens of a row up to which attention weights are kept for the backward pass


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Where the blocks of queries lie, row by row.

    reads   first key and number of keys, first query and number of queries, and 1 for the last block of a row: it
            reaches all its keys
    masks   [queries, w] for a block's last w keys: 0 where a query may look, minus infinity behind it
    """

    reads: list[list[int]]
    masks: list[Tensor]


class Attention:
    """Causal attention of one wave's rows, for every layer in turn.

    past       [B P, 2 K d] keys and values that stand in for the virtual tokens' own, of the layer whose turn it is;
               None: their own
    past_grad  their gradient, once `back` or `back_to_prefix` has been called
    """

    def __init__(self, decoder: Decoder, packed: Packed) -> None:
        self.decoder, self.packed = decoder, packed
        self.long = max(packed.lengths) > LONGEST  # then everywhere, whatever is wanted
        self.past: Tensor | None = None
        self.past_grad: Tensor | None = None

    @functools.cached_property
    def everywhere(self) -> _Blocks:
        return _blocks(self.packed.lengths)

    @functools.cached_property
    def for_prefix(self) -> list[list[int]]:
        return _reads_of_prefix(self.packed.lengths, len(self.packed.prefix_at) // len(self.packed.lengths))

    @functools.cached_property
    def at_labels(self) -> _Blocks:
        positions = self.packed.positions.numpy()[self.packed.labels.numpy()]
        return _blocks_at(np.split(positions, np.cumsum(self.packed.label_counts)[:-1]), self.packed.lengths)

    def mix(self, qkv: Tensor, labels_only: bool, keep: bool) -> tuple[Tensor, Any]:
        """Mixed values [R, H d], or [n, H d] on the label positions; and what `back` needs.

        Where there is a past, it is written into `qkv`.
        """
        if self.past is not None:
            qkv[:, self.decoder.sizes[0] :].index_copy_(0, self.packed.prefix_at, self.past)
        q, k, v = self._split(qkv)
        if self.long:
            mixed = qkv.new_empty(len(qkv), self.decoder.sizes[0])
            kept = _attend_long(self._by_head(q), k, v, self._by_head(mixed), self.packed.lengths, keep)
            return mixed.index_select(0, self.packed.labels) if labels_only else mixed, kept
        if labels_only:
            q = q.index_select(0, self.packed.labels)
        mixed = qkv.new_empty(len(q), self.decoder.sizes[0])
        blocks = self.at_labels if labels_only else self.everywhere
        weights = _attend(self._by_head(q), k, v, self._by_head(mixed), blocks.reads, blocks.masks, keep)
        return mixed, (q if labels_only else None, weights)

    def back(self, qkv: Tensor, kept: Any, mixed: Tensor, grad: Tensor, labels_only: bool) -> Tensor:
        """Gradient of qkv, [R, (H + 2 K) d]; mixed and grad: what `mix` gave, and its gradient.

        The backward of a softmax needs sum_j P_ij dP_ij, which is dO_i O_i (Dao et al. 2022, FlashAttention, B.2).
        """
        packed = self.packed
        chosen, weights = (None, []) if self.long else kept
        if self.long and labels_only:
            grad = grad.new_zeros(len(qkv), grad.shape[1]).index_copy_(0, packed.labels, grad)
        found = torch.empty_like(qkv)
        of_q, of_k, of_v = found.split(self.decoder.sizes, dim=1)
        into = of_q if chosen is None else torch.empty_like(chosen)
        targets = [self._by_head(part) for part in (into, of_k, of_v)]
        wide = self._wide(targets)
        if self.long:
            _attend_long_back(kept, self._by_head(grad), wide, packed.lengths)
        else:
            q, k, v = self._split(qkv)
            q = self._by_head(q if chosen is None else chosen)
            blocks = self.at_labels if labels_only else self.everywhere
            _attend_back(q, k, v, weights, self._by_head(grad), self._sums(mixed, grad), wide, blocks.reads)
        self._narrow(wide, targets)
        if chosen is not None:
            of_q.zero_().index_copy_(0, packed.labels, into)
        if self.past is not None:
            self.past_grad = found[:, self.decoder.sizes[0] :].index_select(0, packed.prefix_at)
            found.index_fill_(0, packed.prefix_at, 0)
        return found

    def back_to_prefix(self, qkv: Tensor, kept: Any, mixed: Tensor, grad: Tensor) -> Tensor:
        """Gradient of the virtual tokens' qkv alone, [B P, (H + 2 K) d]; mixed and grad: of every position.

        The virtual tokens see nothing but one another, and the other keys matter only in `_sums`.
        """
        if self.long:
            return self.back(qkv, kept, mixed, grad, labels_only=False).index_select(0, self.packed.prefix_at)
        found = qkv.new_empty(len(self.packed.prefix_at), qkv.shape[1])
        targets = [self._by_head(part) for part in found.split(self.decoder.sizes, dim=1)]
        wide = self._wide(targets)
        q, k, v = self._split(qkv)
        _, weights = kept
        sums, of_head = self._sums(mixed, grad), self._by_head(grad)
        _attend_back_to_prefix(self._by_head(q), k, v, weights, of_head, sums, wide, self.for_prefix)
        self._narrow(wide, targets)
        if self.past is not None:
            self.past_grad, found = found[:, self.decoder.sizes[0] :], torch.zeros_like(found)
        return found

    def _sums(self, mixed: Tensor, grad: Tensor) -> Tensor:
        """dO_i O_i of each head and query, [H, R or n, 1]."""
        return (grad * mixed).unflatten(1, (self.decoder.heads, -1)).sum(2).T[:, :, None]

    def _by_head(self, tensor: Tensor) -> Tensor:
        """[R, H d] -> a view [H, R, d]"""
        return tensor.unflatten(1, (-1, self.decoder.head_width)).transpose(0, 1)

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q [R, H d], and k, v [H, R, d]: views where every head has its own keys."""
        q, k, v = qkv.split(self.decoder.sizes, dim=1)
        k, v = self._by_head(k), self._by_head(v)
        if (group := self.decoder.heads // self.decoder.kv_heads) > 1:
            k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
        return q, k, v

    def _wide(self, targets: list[Tensor]) -> list[Tensor]:
        """The same places for every head where heads share keys; else the targets themselves."""
        if self.decoder.heads == self.decoder.kv_heads:
            return targets
        shape = (self.decoder.heads, *targets[1].shape[1:])
        return [targets[0], targets[1].new_empty(shape), targets[1].new_empty(shape)]

    def _narrow(self, wide: list[Tensor], targets: list[Tensor]) -> None:
        if wide is targets:
            return
        for target, part in zip(targets[1:], wide[1:], strict=True):
            target.copy_(part.unflatten(0, (self.decoder.kv_heads, -1)).sum(1))


def _blocks(lengths: list[int]) -> _Blocks:
    """Every token a query."""
    blocks = _Blocks([], [])
    first = 0
    for length in lengths:
        for start in range(0, length, BLOCK):
            count = min(BLOCK, length - start)
            blocks.reads.append([first, start + count, first + start, count, int(start + count == length)])
            blocks.masks.append(_triangle(count))
        first += length
    return blocks


def _reads_of_prefix(lengths: list[int], prefix: int) -> list[list[int]]:
    """For the same blocks: first key, how many virtual tokens they see, first query, number of queries, how many of
    these are virtual, 1 for the last block of a row, and which of all virtual tokens is the row's first."""
    reads: list[list[int]] = []
    first = 0
    for row, length in enumerate(lengths):
        for start in range(0, length, BLOCK):
            count = min(BLOCK, length - start)
            seen, own = min(start + count, prefix), max(0, min(prefix - start, count))
            reads.append([first, seen, first + start, count, own, int(start + count == length), row * prefix])
        first += length
    return reads


def _blocks_at(queries: list[np.ndarray], lengths: list[int]) -> _Blocks:
    """Queries at some positions of each row, at least one."""
    blocks = _Blocks([], [])
    first = query = 0
    size = (BLOCK + 1) // 2
    for positions, length in zip(queries, lengths, strict=True):
        for start in range(0, len(positions), size):
            part = positions[start : start + size]
            last = start + size >= len(positions)
            low, keys = int(part[0]), length if last else int(part[-1]) + 1
            blocks.reads.append([first, keys, query + start, len(part), int(last)])
            mask = np.where(np.arange(low, keys) > part[:, None], np.float32(-np.inf), np.float32(0))
            blocks.masks.append(torch.from_numpy(mask))
        first, query = first + length, query + len(positions)
    return blocks


@functools.lru_cache(maxsize=1024)
def _triangle(count: int) -> Tensor:
    """[count, count]: 0 where a query may look, minus infinity behind it."""
    return torch.full((count, count), -torch.inf).triu_(1)


@scripted
def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    reads: list[list[int]],
    masks: list[Tensor],
    keep: bool,
) -> list[Tensor]:
    """Attention weights [H, queries, keys] of each block, where they are to be kept."""
    kept: list[Tensor] = []
    across = k.transpose(1, 2)
    for i in range(len(reads)):
        key, keys, query, count = reads[i][0], reads[i][1], reads[i][2], reads[i][3]
        weights = torch.bmm(q.narrow(1, query, count), across.narrow(2, key, keys))
        behind = masks[i].size(1)
        weights.narrow(2, keys - behind, behind).add_(masks[i])
        torch.softmax(weights, -1, out=weights)
        torch.bmm(weights, v.narrow(1, key, keys), out=output.narrow(1, query, count))
        if keep:
            kept.append(weights)
    return kept


@scripted
def _attend_back(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: list[Tensor],
    grad: Tensor,
    sums: Tensor,
    targets: list[Tensor],
    reads: list[list[int]],
) -> None:
    across = v.transpose(1, 2)
    for number in range(len(reads)):
        i = len(reads) - 1 - number  # a row's last block sets, the others add to it
        key, keys, query, count, last = reads[i][0], reads[i][1], reads[i][2], reads[i][3], reads[i][4]
        weights = kept[i]
        part = grad.narrow(1, query, count)
        scores = torch.bmm(part, across.narrow(2, key, keys))
        scores.sub_(sums.narrow(1, query, count)).mul_(weights)
        torch.bmm(scores, k.narrow(1, key, keys), out=targets[0].narrow(1, query, count))
        of_k, of_v = targets[1].narrow(1, key, keys), targets[2].narrow(1, key, keys)
        torch.baddbmm(of_k, scores.transpose(1, 2), q.narrow(1, query, count), beta=1 - last, out=of_k)
        torch.baddbmm(of_v, weights.transpose(1, 2), part, beta=1 - last, out=of_v)


@scripted
def _attend_back_to_prefix(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: list[Tensor],
    grad: Tensor,
    sums: Tensor,
    targets: list[Tensor],
    reads: list[list[int]],
) -> None:
    across = v.transpose(1, 2)
    for number in range(len(reads)):
        i = len(reads) - 1 - number
        key, seen, query, count = reads[i][0], reads[i][1], reads[i][2], reads[i][3]
        own, last, start = reads[i][4], reads[i][5], reads[i][6]
        weights = kept[i].narrow(2, 0, seen)
        part = grad.narrow(1, query, count)
        product = torch.bmm(part, across.narrow(2, key, seen))
        scores = product.sub_(sums.narrow(1, query, count)).mul_(weights)
        if own > 0:
            to = targets[0].narrow(1, start + query - key, own)
            torch.bmm(scores.narrow(1, 0, own), k.narrow(1, key, seen), out=to)
        of_k, of_v = targets[1].narrow(1, start, seen), targets[2].narrow(1, start, seen)
        torch.baddbmm(of_k, scores.transpose(1, 2), q.narrow(1, query, count), beta=1 - last, out=of_k)
        torch.baddbmm(of_v, weights.transpose(1, 2), part, beta=1 - last, out=of_v)


def _attend_long(q: Tensor, k: Tensor, v: Tensor, output: Tensor, lengths: list[int], keep: bool) -> list[Any]:
    """The same by torch's fused kernel, which computes the weights anew in its backward: T x T would not fit."""
    kept = []
    rows = zip(*(part.split(lengths, dim=1) for part in (q, k, v, output)), strict=True)
    for *parts, into in rows:
        with torch.set_grad_enabled(keep):
            a, b, c = (part[None].detach().requires_grad_(keep) for part in parts)
            found = F.scaled_dot_product_attention(a, b, c, is_causal=True, scale=1.0)
        into.copy_(found[0].detach())
        kept.append(((a, b, c), found))
    return kept


def _attend_long_back(kept: list[Any], grad: Tensor, targets: list[Tensor], lengths: list[int]) -> None:
    rows = zip(*(part.split(lengths, dim=1) for part in (grad, *targets)), strict=True)
    for (leaves, found), (own, *into) in zip(kept, rows, strict=True):
        for target, part in zip(into, torch.autograd.grad(found, leaves, own[None]), strict=True):
            target.copy_(part[0])
