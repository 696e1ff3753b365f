"""Causal attention of a wave's rows, forward and backward by hand, in blocks of queries that look at no later key.

No lazy annotations in this file: TorchScript reads them (see scripted). Legend: R tokens of a wave, T of a row,
H heads, K key-value heads, d numbers of a head; q, k, v are views [H, R, d].
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.fits.decoder import Decoder
from harness.fits.scripted import scripted

BLOCK = 96  # queries
LONGEST = 512  # tokens of a row up to which attention weights are kept for the backward pass


def by_head(tensor: Tensor, width: int) -> Tensor:
    """[R, H d] -> a view [H, R, d]"""
    return tensor.unflatten(1, (-1, width)).transpose(0, 1)


def attend(decoder: Decoder, qkv: Tensor, mixed: Tensor, lengths: list[int], keep: bool) -> Any:
    """Causal attention of each row into mixed [R, H d]; returns what `attend_back` needs."""
    q, k, v = _heads(decoder, qkv)
    output = by_head(mixed, decoder.head_width)
    if max(lengths) > LONGEST:
        return _attend_long(q, k, v, output, lengths, keep)
    return _attend(q, k, v, output, lengths, _causal(qkv.dtype), keep)


def attend_back(decoder: Decoder, qkv: Tensor, kept: Any, grad: Tensor, into: Tensor, lengths: list[int]) -> None:
    """Gradients of q, k and v into `into` [R, (H + 2 K) d], from that of the mixed values [R, H d]."""
    q, k, v = _heads(decoder, qkv)
    grad = by_head(grad, decoder.head_width)
    targets = [by_head(part, decoder.head_width) for part in into.split(decoder.sizes, dim=1)]
    group = decoder.heads // decoder.kv_heads
    wide = targets if group == 1 else [targets[0], torch.empty_like(k), torch.empty_like(v)]
    if max(lengths) > LONGEST:
        _attend_long_back(kept, grad, wide, lengths)
    else:
        _attend_back(q, k, v, kept, grad, wide, lengths, BLOCK)
    if group > 1:
        for target, part in zip(targets[1:], wide[1:], strict=True):
            target.copy_(part.unflatten(0, (-1, group)).sum(1))


def _heads(decoder: Decoder, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v [H, R, d]; views where every head has its own keys."""
    q, k, v = (by_head(part, decoder.head_width) for part in qkv.split(decoder.sizes, dim=1))
    if (group := decoder.heads // decoder.kv_heads) > 1:
        k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
    return q, k, v


@scripted
def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    lengths: list[int],
    mask: Tensor,
    keep: bool,
) -> list[Tensor]:
    """Attention weights [H, block, keys] of each block of each row, where they are to be kept; mask [block, block]."""
    kept: list[Tensor] = []
    first = 0
    for length in lengths:
        for start in range(0, length, mask.size(0)):
            count = min(mask.size(0), length - start)
            end = start + count
            weights = torch.bmm(q.narrow(1, first + start, count), k.narrow(1, first, end).transpose(1, 2))
            weights.narrow(2, start, count).add_(mask.narrow(0, 0, count).narrow(1, 0, count))
            weights = torch.softmax(weights, -1)
            output.narrow(1, first + start, count).copy_(torch.bmm(weights, v.narrow(1, first, end)))
            if keep:
                kept.append(weights)
        first += length
    return kept


@scripted
def _attend_back(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: list[Tensor],
    grad: Tensor,
    targets: list[Tensor],
    lengths: list[int],
    block: int,
) -> None:
    first = 0
    place = 0
    for length in lengths:
        blocks = (length + block - 1) // block
        for i in range(blocks):
            number = blocks - 1 - i  # the last block reaches every key: it sets, the others add to it
            weights = kept[place + number]
            start, count = number * block, weights.size(1)
            end = start + count
            part, keys = grad.narrow(1, first + start, count), k.narrow(1, first, end)
            product = torch.bmm(part, v.narrow(1, first, end).transpose(1, 2))
            scores = torch._softmax_backward_data(product, weights, -1, weights.dtype)
            targets[0].narrow(1, first + start, count).copy_(torch.bmm(scores, keys))
            of_k = torch.bmm(scores.transpose(1, 2), q.narrow(1, first + start, count))
            of_v = torch.bmm(weights.transpose(1, 2), part)
            if i == 0:
                targets[1].narrow(1, first, end).copy_(of_k)
                targets[2].narrow(1, first, end).copy_(of_v)
            else:
                targets[1].narrow(1, first, end).add_(of_k)
                targets[2].narrow(1, first, end).add_(of_v)
        first += length
        place += blocks


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


_MASKS: dict[tuple[torch.dtype, int], Tensor] = {}


def _causal(dtype: torch.dtype) -> Tensor:
    """[block, block]: 0 where a query may look, minus infinity behind it."""
    if (dtype, BLOCK) not in _MASKS:
        _MASKS[dtype, BLOCK] = torch.full((BLOCK, BLOCK), -torch.inf, dtype=dtype).triu(1)
    return _MASKS[dtype, BLOCK]
