"""Dropout whose mask follows from (row seed, layer, position) alone, not from batch, padding or device."""

from __future__ import annotations

import torch
from torch import Tensor


def dropped(x: Tensor, seeds: Tensor, layer: int, share: float) -> Tensor:
    """x [B, T, C] with about `share` of its numbers set to 0 and the others scaled up, as nn.Dropout does.

    seeds [B] int64: the same seed and layer give the same mask for a row, whatever T the batch is padded to.
    """
    rows, length, width = x.shape
    index = torch.arange(length * width, dtype=torch.int32, device=x.device).view(1, length, width)
    row = (seeds ^ (layer * 0x9E3779B97F4A7C15 & 0x7FFFFFFFFFFFFFFF)).to(x.device)
    bits = _mix(index ^ (row & 0x7FFFFFFF).to(torch.int32).view(rows, 1, 1))
    bits = _mix(bits.bitwise_xor_((row >> 31 & 0x7FFFFFFF).to(torch.int32).view(rows, 1, 1)))
    # Signed 32-bit numbers are uniform in [-2^31, 2^31): keep those above the share's quantile.
    keep = bits >= round(share * 2**32) - 2**31
    return x * keep.to(x.dtype).mul_(1.0 / (1.0 - share))


def _mix(bits: Tensor) -> Tensor:
    """MurmurHash3's 32-bit finaliser (Appleby), in place on int32; every input bit moves every output bit."""
    bits.bitwise_xor_(bits >> 16 & 0xFFFF)
    bits.mul_(0x85EBCA6B - 2**32)
    bits.bitwise_xor_(bits >> 13 & 0x7FFFF)
    bits.mul_(0xC2B2AE35 - 2**32)
    return bits.bitwise_xor_(bits >> 16 & 0xFFFF)
