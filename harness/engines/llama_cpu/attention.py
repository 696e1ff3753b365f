"""Causal attention of packed rows with its rotation, forward and backward by hand, in blocks of queries.

With torch's fused attention and autograd in its place a training step took 1.38 times as long row by row, and 1.58
times with rows padded to one length; with plain attention by autograd 1.53 times (docs/performance.md). By hand no
block looks at later keys, and where only virtual tokens take a gradient only theirs is computed.

No lazy annotations in this file: TorchScript reads them (see scripted). Legend: R tokens, n labels, B rows, P virtual
tokens, H heads, d numbers of a head; q [R, H d], k and v [R, H d], of each head after the other.
"""

import functools
from collections.abc import Callable
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

# Of each block of queries: first key, keys, first query, queries, how many of these take a gradient, and 1 for the last
# block of a row, which reaches all keys; and masks [queries, w] of a block's last w keys: 0 or minus infinity.
Blocks = tuple[list[list[int]], list[Tensor]]


class Rows:
    """Rows that attend to themselves, the same in every layer.

    rotation  [R, 1, d / 2] complex, of each token
    """

    def __init__(self, decoder: Decoder, packed: Packed) -> None:
        self.packed, self.heads, self.width = packed, decoder.heads, decoder.head_width
        self.rotation = decoder.rotation(max(packed.lengths))[packed.positions]
        self.long = max(packed.lengths) > LONGEST

    @functools.cached_property
    def everywhere(self) -> Blocks:
        return _blocks(self.packed.lengths)

    @functools.cached_property
    def at_labels(self) -> Blocks:
        positions = self.packed.positions.numpy()[self.packed.labels.numpy()]
        return _blocks_at(np.split(positions, np.cumsum(self.packed.label_counts)[:-1]), self.packed.lengths)

    @functools.cached_property
    def of_prefix(self) -> list[list[int]]:
        """As `everywhere` for the backward, if only gradients of the virtual tokens are wanted."""
        prefix = len(self.packed.prefix_at) // len(self.packed.lengths)
        return [
            [key, min(keys, prefix), query, count, min(max(0, prefix - query + key), count), last]
            for key, keys, query, count, _, last in self.everywhere[0]
        ]

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        labels_only: bool,
        own: tuple[Tensor, ...] = (),
        past: tuple[Tensor, ...] = (),
        see: Callable[[Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """Mixed values [R, H d], or [n, H d] of queries at the label positions.

        q, k, v  new results of linear layers, which are used up; q and k not rotated yet, k and v of K <= H heads
        own      q, k, v [B P, .] of the virtual tokens, in place of theirs: then q, k and v are constants
        past     k, v [B P, K d] that stand in for those of the virtual tokens, rotated already
        see      is shown the keys, rotated, and values [R, K d] that are attended to
        """
        narrow = not any(part.requires_grad for part in (q, k, v))
        placed: Any = _Placed.apply(self, q, k, v, len(own), *own, *past)
        q, k, v = placed
        if see is not None:
            see(k, v)
        k, v = self._wide(k), self._wide(v)
        if not self.long:
            return _Attention.apply(self, labels_only, narrow, q, k, v)  # pyright: ignore[reportReturnType]
        # By torch's fused attention and autograd: the weights of long rows, T x T, would not fit.
        parts = (self.by_head(part).split(self.packed.lengths, dim=1) for part in (q, k, v))
        rows = zip(*parts, strict=True)
        mixed = [F.scaled_dot_product_attention(*(p[None] for p in row), is_causal=True, scale=1.0)[0] for row in rows]
        found = torch.cat(mixed, dim=1).transpose(0, 1).flatten(1)
        return found.index_select(0, self.packed.labels) if labels_only else found

    def by_head(self, tensor: Tensor) -> Tensor:
        """[R, H d] -> a view [H, R, d]"""
        return tensor.unflatten(1, (-1, self.width)).transpose(0, 1)

    def _wide(self, tensor: Tensor) -> Tensor:
        """Keys or values [R, K d] of every head [R, H d]."""
        group = self.heads * self.width // tensor.shape[1]
        return tensor if group == 1 else tensor.unflatten(1, (-1, self.width)).repeat_interleave(group, 1).flatten(1)


def turn(part: Tensor, rotation: Tensor, width: int) -> None:
    """Turn queries or keys [., heads * d] by their positions, in place (RoFormer, Su et al. 2021)."""
    torch.view_as_complex(part.unflatten(1, (-1, width // 2, 2))).mul_(rotation)


class _Placed(torch.autograd.Function):
    """(rows, q, k, v, 3 or 0, own q, k, v or none, past k, v or none) -> q, k, v, changed in place."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, rows: Rows, q: Tensor, k: Tensor, v: Tensor, count: int, *more: Tensor
    ) -> tuple[Tensor, ...]:
        own, past, at = more[:count], more[count:], rows.packed.prefix_at
        if own:
            for whole, part in zip((q, k, v), own, strict=True):
                whole.index_copy_(0, at, part)
        for whole in (q, k):
            turn(whole, rows.rotation, rows.width)
        if past:
            for whole, part in zip((k, v), past, strict=True):
                whole.index_copy_(0, at, part)
        ctx.mark_dirty(q, k, v)
        ctx.facts = rows, bool(own), bool(past)
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, own, past = ctx.facts
        at = rows.packed.prefix_at
        if not any(ctx.needs_input_grad[1:4]):
            found = [part.index_select(0, at) for part in grads]
            for part in found[:2] if own else []:
                turn(part, rows.rotation.index_select(0, at).conj(), rows.width)
            return None, None, None, None, None, *(found if own else found[1:])
        of_past = [part.index_select(0, at) for part in grads[1:]] if past else []
        for part in grads[1:] if past else []:  # in place, here and below: nobody else has these gradients
            part.index_fill_(0, at, 0)
        for part in grads[:2]:
            turn(part, rows.rotation.conj(), rows.width)
        return None, *grads, None, *of_past


class _Attention(torch.autograd.Function):
    """(rows, labels only, narrow, q, k, v [R, H d]) -> mixed [R or n, H d].

    narrow   only gradients at the virtual tokens are wanted: the others' are left as they come
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, rows: Rows, labels_only: bool, narrow: bool, q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        q = q.index_select(0, rows.packed.labels) if labels_only else q
        mixed = torch.empty_like(q)
        reads, masks = rows.at_labels if labels_only else rows.everywhere
        keep = any(ctx.needs_input_grad)
        by_head = rows.by_head
        weights = _attend(by_head(q), by_head(k), by_head(v), by_head(mixed), reads, masks, keep)
        if keep:
            ctx.facts = rows, labels_only, narrow, q, k, v, weights, mixed
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, labels_only, narrow, q, k, v, weights, mixed = ctx.facts
        ctx.facts = None  # what is kept is used once; without this it would live as long as the graph
        if labels_only:
            reads, _ = rows.at_labels
        else:
            reads = rows.of_prefix if narrow else rows.everywhere[0]
        found = [torch.empty_like(part) for part in (q, k, v)]
        # A softmax's backward needs all keys only in sum_j P_ij dP_ij, which is dO_i O_i (Dao et al. 2022, B.2).
        sums = (grad * mixed).unflatten(1, (rows.heads, -1)).sum(2).T[:, :, None]
        by_head = rows.by_head
        _attend_back(by_head(q), by_head(k), by_head(v), weights, by_head(grad), sums, [*map(by_head, found)], reads)
        if labels_only:
            found[0] = torch.zeros_like(found[1]).index_copy_(0, rows.packed.labels, found[0])
        return None, None, None, *found


def _blocks(lengths: list[int]) -> Blocks:
    """Every token a query."""
    reads, masks = [], []
    first = 0
    for length in lengths:
        for start in range(0, length, BLOCK):
            count = min(BLOCK, length - start)
            reads.append([first, start + count, first + start, count, count, int(start + count == length)])
            masks.append(_triangle(count))
        first += length
    return reads, masks


def _blocks_at(queries: list[np.ndarray], lengths: list[int]) -> Blocks:
    """Queries at some positions of each row, at least one."""
    reads, masks = [], []
    first = query = 0
    size = (BLOCK + 1) // 2
    for positions, length in zip(queries, lengths, strict=True):
        for start in range(0, len(positions), size):
            part = positions[start : start + size]
            last = start + size >= len(positions)
            low, keys = int(part[0]), length if last else int(part[-1]) + 1
            reads.append([first, keys, query + start, len(part), len(part), int(last)])
            mask = np.where(np.arange(low, keys) > part[:, None], np.float32(-np.inf), np.float32(0))
            masks.append(torch.from_numpy(mask))
        first, query = first + length, query + len(positions)
    return reads, masks


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
    """Attention weights [H, queries, keys] of each block, where they are to be kept; all tensors [H, ., d]."""
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
    """Gradients of q, k and v into `targets`, all [H, ., d]; sums [H, queries, 1]: grad * output of each query."""
    across = v.transpose(1, 2)
    for number in range(len(reads)):
        i = len(reads) - 1 - number  # a row's last block sets, the others add to it
        key, keys, query, count = reads[i][0], reads[i][1], reads[i][2], reads[i][3]
        own, last = reads[i][4], reads[i][5]
        weights = kept[i].narrow(2, 0, keys)
        part = grad.narrow(1, query, count)
        scores = torch.bmm(part, across.narrow(2, key, keys)).sub_(sums.narrow(1, query, count)).mul_(weights)
        if own > 0:
            torch.bmm(scores.narrow(1, 0, own), k.narrow(1, key, keys), out=targets[0].narrow(1, query, own))
        of_k, of_v = targets[1].narrow(1, key, keys), targets[2].narrow(1, key, keys)
        torch.baddbmm(of_k, scores.transpose(1, 2), q.narrow(1, query, count), beta=1 - last, out=of_k)
        torch.baddbmm(of_v, weights.transpose(1, 2), part, beta=1 - last, out=of_v)
