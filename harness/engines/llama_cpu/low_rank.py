"""Low-rank updates of a decoder's linear layers, several adapters side by side, with their gradients by hand.

LoRA's files and hooks are in harness.adapters. No lazy annotations in this file: TorchScript reads them (see scripted).
Legend: U adapters, R tokens, N adapters of a bank.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.engines.llama_cpu.decoder import MLP_PARTS, PARTS, Decoder
from harness.engines.llama_cpu.packed import Run
from harness.engines.llama_cpu.scripted import scripted


def folded(decoder: Decoder, low_rank: Mapping[str, tuple[Tensor, Tensor]]) -> list[Tensor]:
    """a, b, a, b, ... as the folded weights need them: a with the norm's weight, b of q and k in the new order."""
    pairs: list[Tensor] = []
    for name, (a, b) in low_rank.items():
        number, part = decoder.places[name]
        layer = decoder.layers[number]
        if part in PARTS[:3]:
            b = b[:, decoder.order_of(PARTS.index(part))]
            a, b = a * layer.norm1, b * decoder.head_width**-0.5 if part == "q_proj" else b
        elif part in MLP_PARTS[:2]:
            a = a * layer.norm2
        pairs += [a, b]
    return pairs


@dataclass
class Update:
    """A low-rank update of one linear layer for U adapters: a [U, rank, in], b [U, out, rank], their gradients."""

    a: Tensor
    b: Tensor
    grad_a: Tensor | None = None
    grad_b: Tensor | None = None

    def add(self, x: Tensor, y: Tensor, runs: list[Run]) -> Tensor:
        """y += (x a^T) b^T for each adapter's tokens; returns x a^T [R, rank]."""
        return _add(x, y, self.a, self.b, runs)

    def back(self, x: Tensor, down: Tensor, grad: Tensor, into: Tensor | None, runs: list[Run]) -> None:
        """Gradients of a and b from that of y; `into` gets what belongs to x, added."""
        self.grad_a, self.grad_b = torch.zeros_like(self.a), torch.zeros_like(self.b)
        _back(x, down, grad, into, self.a, self.b, self.grad_a, self.grad_b, runs)


@scripted
def _add(x: Tensor, y: Tensor, a: Tensor, b: Tensor, runs: list[tuple[int, int, int]]) -> Tensor:
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
    into: Tensor | None,
    a: Tensor,
    b: Tensor,
    grad_a: Tensor,
    grad_b: Tensor,
    runs: list[tuple[int, int, int]],
) -> None:
    for u, first, last in runs:
        part = grad[first:last]
        up = part @ b[u]
        grad_b[u].addmm_(part.t(), down[first:last])
        grad_a[u].addmm_(up.t(), x[first:last])
        if into is not None:
            into[first:last].addmm_(up, a[u])
