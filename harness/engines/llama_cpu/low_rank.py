"""Linear layers with low-rank updates of several adapters side by side, forward and backward by hand.

With autograd in all but attention a step of a bank of LoRAs took 1.15 times as long as all by hand, with this 1.06
times (docs/performance.md). LoRA's files and hooks are in harness.adapters.

No lazy annotations in this file: TorchScript reads them (see scripted). Legend: U adapters, R tokens.
"""

from typing import Any

import torch
from torch import Tensor

from harness.engines.llama_cpu.packed import Run
from harness.engines.llama_cpu.scripted import scripted
from harness.engines.products import frozen_linear, product

Pair = tuple[Tensor, Tensor]  # a [U, rank, in], b [U, out, rank]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, pair: Pair | None, runs: list[Run]) -> Tensor:
    """x W^T + bias, and for each adapter's tokens (x a^T) b^T where there is a pair; x [R, in] -> [R, out]."""
    if pair is None:
        return frozen_linear(x, weight, bias)
    return _Updated.apply(x, weight, bias, *pair, runs)  # pyright: ignore[reportReturnType]


class _Updated(torch.autograd.Function):
    """Weight and bias are frozen."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, runs: list[Run]
    ) -> Tensor:
        y = product(x, weight, bias)
        down = _add(x, y, a, b, runs)
        ctx.save_for_backward(x, weight, a, b, down)
        ctx.runs = runs
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, a, b, down = ctx.saved_tensors
        grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(b)
        grad_x = product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        _back(x, down, grad, grad_x, a, b, grad_a, grad_b, ctx.runs)
        return grad_x, None, None, grad_a, grad_b, None


@scripted
def _add(x: Tensor, y: Tensor, a: Tensor, b: Tensor, runs: list[tuple[int, int, int]]) -> Tensor:
    """y += (x a^T) b^T for each adapter's tokens; returns x a^T [R, rank]."""
    down = x.new_empty([x.size(0), a.size(1)])
    for u, first, last in runs:
        part = torch.mm(x[first:last], a[u].t(), out=down[first:last])
        y[first:last].addmm_(part, b[u].t())
    return down


@scripted
def _back(
    x: Tensor,
    down: Tensor,
    grad: Tensor,
    grad_x: Tensor | None,
    a: Tensor,
    b: Tensor,
    grad_a: Tensor,
    grad_b: Tensor,
    runs: list[tuple[int, int, int]],
) -> None:
    """Gradients of a and b from that of y; `grad_x` gets what belongs to x, added."""
    for u, first, last in runs:
        part = grad[first:last]
        up = part @ b[u]
        grad_b[u].addmm_(part.t(), down[first:last])
        grad_a[u].addmm_(up.t(), x[first:last])
        if grad_x is not None:
            grad_x[first:last].addmm_(up, a[u])
