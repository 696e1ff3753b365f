"""Products with frozen weights on a CPU, by the faster of torch's two libraries.

torch multiplies fp32 matrices on a CPU with MKL, which is slow on processors of other makers than Intel: 105 and not
240 GFLOP/s a core on an AMD EPYC with AVX-512 (docs/performance.md). There oneDNN is asked, which torch has as well.
Where this torch does not have that operation MKL multiplies, as it does on Intel; the results are right either way.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST_ROWS, FEWEST_WEIGHTS = 8, 2**15  # smaller products take longer to hand over than they gain


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias: x [R, in], weight [out, in] (a transposed view is as good); no gradients."""
    if len(x) >= FEWEST_ROWS and weight.numel() >= FEWEST_WEIGHTS and x.dtype == torch.float32 and prefers_onednn():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def frozen_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same with a gradient for x."""
    if prefers_onednn() and x.device.type == "cpu":
        return _Frozen.apply(x, weight, bias)  # pyright: ignore[reportReturnType]
    return F.linear(x, weight, bias)


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.weight = weight  # frozen: it does not change before the backward
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return product(grad, ctx.weight.t()), None, None


@functools.cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies faster here than MKL, and this torch lets it."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()) or _is_intel():
        return False
    try:
        x, weight = torch.ones(FEWEST_ROWS, 4), torch.ones(4, 4)
        return bool((torch.ops.mkldnn._linear_pointwise(x, weight.t(), None, "none", [], "") == 4).all())
    except (AttributeError, RuntimeError, TypeError):
        return False


def _is_intel() -> bool:
    """Also where the system does not say: then nothing is changed."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    vendors = {line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")}
    return not vendors or "GenuineIntel" in vendors
