"""Causal attention of one row, forward and backward by hand, in blocks of queries that look at no later key.

Legend: R tokens of a wave, T of a row, H heads, K key-value heads, d numbers of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.fits.decoder import Decoder

BLOCK = 96  # queries
LONGEST = 512  # tokens of a row up to which attention weights are kept for the backward pass


def by_head(tensor: Tensor, width: int) -> Tensor:
    """[R, H d] -> a view [H, R, d]"""
    return tensor.unflatten(1, (-1, width)).transpose(0, 1)


def heads_of(decoder: Decoder, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v [H, R, d]; views where every head has its own keys."""
    q, k, v = (by_head(part, decoder.head_width) for part in qkv.split(decoder.sizes, dim=1))
    if (group := decoder.heads // decoder.kv_heads) > 1:
        k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
    return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor, output: Tensor, keep: bool) -> Any:
    """Causal attention of one row, all [H, T, d], into `output`; returns what `attend_back` needs."""
    length = q.shape[1]
    if length > LONGEST:  # weights of T x T would not fit: the fused kernel, which computes them anew
        with torch.set_grad_enabled(keep):
            leaves = [part[None].detach().requires_grad_(keep) for part in (q, k, v)]
            found = F.scaled_dot_product_attention(leaves[0], leaves[1], leaves[2], is_causal=True, scale=1.0)
        output.copy_(found[0].detach())
        return (*leaves, found)
    weights = []
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        scores = torch.bmm(q[:, start:end], k[:, :end].mT)
        scores[:, :, start:] += _causal(end - start, scores.dtype)
        weight = scores.softmax(-1)
        output[:, start:end] = torch.bmm(weight, v[:, :end])
        weights.append(weight)
    return weights if keep else None


def attend_back(q: Tensor, k: Tensor, v: Tensor, weights: Any, grad: Tensor, targets: Sequence[Tensor]) -> None:
    """Gradients of one row's q, k, v into `targets` [H or K, T, d], from that of its mixed values [H, T, d]."""
    if isinstance(weights, tuple):
        *leaves, found = weights
        q_grad, k_grad, v_grad = (part[0] for part in torch.autograd.grad(found, leaves, grad[None]))
        targets[0].copy_(q_grad)
    else:
        k_grad = v_grad = grad  # set by the last block, which reaches every key; the others add to it
        for number in range(len(weights) - 1, -1, -1):
            weight = weights[number]
            start, end = number * BLOCK, number * BLOCK + weight.shape[1]
            part, keys = grad[:, start:end], k[:, :end]
            score_grad = torch._softmax_backward_data(torch.bmm(part, v[:, :end].mT), weight, -1, weight.dtype)
            targets[0][:, start:end] = torch.bmm(score_grad, keys)
            of_k, of_v = torch.bmm(score_grad.mT, q[:, start:end]), torch.bmm(weight.mT, part)
            if end == q.shape[1]:
                k_grad, v_grad = of_k, of_v
            else:
                k_grad[:, :end] += of_k
                v_grad[:, :end] += of_v
    for part, target in zip((k_grad, v_grad), targets[1:], strict=True):
        target.copy_(part if len(part) == len(target) else part.unflatten(0, (len(target), -1)).sum(1))


_MASKS: dict[torch.dtype, Tensor] = {}


def _causal(length: int, dtype: torch.dtype) -> Tensor:
    """[length, length]: 0 where a query may look, minus infinity behind it."""
    if dtype not in _MASKS:
        _MASKS[dtype] = torch.full((BLOCK, BLOCK), -torch.inf, dtype=dtype).triu(1)
    return _MASKS[dtype][:length, :length]
