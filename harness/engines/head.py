"""Token losses of a frozen linear head on label positions, block by block.

Legend: D hidden, V vocabulary, n label positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.engines.products import product

# Logits that exist at one time. On a CPU a block should stay in the second-level cache.
BLOCK_NUMBERS = {"cpu": 2**19, "cuda": 2**27}
LEAST_ROWS = 64  # of a block: with a large vocabulary the head's weights are read anew for each


def head_losses(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    """Cross-entropy in nats [n] of targets [n] given hidden states [n, D]; in fp32, or fp64 on an fp64 model."""
    return _HeadLoss.apply(hidden, head.weight, head.bias, targets)  # pyright: ignore[reportReturnType]


def rows_of_logits(device_type: str, vocabulary: int) -> int:
    """Label positions whose logits exist at one time."""
    return max(LEAST_ROWS, BLOCK_NUMBERS.get(device_type, 2**24) // vocabulary)


def close(got: Tensor, wanted: Tensor) -> bool:
    """Whether two ways to compute logits agree, as far as the dtype lets them."""
    tolerance = 0.05 if wanted.dtype in (torch.bfloat16, torch.float16) else 1e-3
    return torch.allclose(got, wanted, rtol=tolerance, atol=tolerance * float(wanted.float().std()))


def wide(logits: Tensor) -> Tensor:
    """In fp32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


class _HeadLoss(torch.autograd.Function):
    """Cross-entropy of a frozen linear head, block by block, without ever holding all logits.

    The gradient for a hidden state is (softmax - onehot) W; it is cheapest while the block's logits are at
    hand, so the forward computes it and the backward only scales it.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> Tensor:
        block = rows_of_logits(hidden.device.type, weight.shape[0])
        losses, gradients = [], []
        for start in range(0, hidden.shape[0], block):
            part, target = hidden[start : start + block], targets[start : start + block, None]
            logits = wide(product(part, weight, bias))
            logarithms = logits.log_softmax(dim=1)
            losses.append(-logarithms.gather(1, target).squeeze(1))
            if ctx.needs_input_grad[0]:
                probability = logarithms.exp_()
                probability.scatter_add_(1, target, probability.new_full(target.shape, -1.0))
                gradients.append(product(probability.to(weight.dtype), weight.t()))
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradients,) = ctx.saved_tensors
        return gradients * upstream[:, None].to(gradients.dtype), None, None, None
