"""Cross-entropy of a frozen linear head, block by block, for every engine.

Legend: n labels, D hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits that exist at one time. On a CPU a block should stay in the second-level cache.
BLOCK_NUMBERS = {"cpu": 2**19, "cuda": 2**27}
LEAST_ROWS = 64  # of a block: with a large vocabulary the head's weights are read anew for each


def rows_of_logits(device_type: str, vocabulary: int) -> int:
    """Label positions whose logits exist at one time."""
    return max(LEAST_ROWS, BLOCK_NUMBERS.get(device_type, 2**24) // vocabulary)


def head_losses(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy [n] in nats of targets [n] behind hidden states [n, D], without ever holding all logits."""
    return _HeadLoss.apply(hidden, head.weight, head.bias, targets)  # pyright: ignore[reportReturnType]


def wide(logits: Tensor) -> Tensor:
    """Logits in the dtype in which losses are computed: fp64 stays, everything else becomes fp32."""
    return logits if logits.dtype == torch.float64 else logits.float()


class _HeadLoss(torch.autograd.Function):
    """The gradient for a hidden state is (softmax - onehot) W. It is cheapest while the block's logits are at hand, so
    the forward computes it and the backward only scales it. Autograd would keep or recompute all logits: 600 kB a
    label position at a vocabulary of 151 936.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> Tensor:
        block = rows_of_logits(hidden.device.type, weight.shape[0])
        losses, gradients = [], []
        for start in range(0, hidden.shape[0], block):
            part, target = hidden[start : start + block], targets[start : start + block, None]
            logits = wide(F.linear(part, weight, bias))
            logarithms = logits.log_softmax(dim=1)
            losses.append(-logarithms.gather(1, target).squeeze(1))
            if ctx.needs_input_grad[0]:
                probability = logarithms.exp_()
                probability.scatter_add_(1, target, probability.new_full(target.shape, -1.0))
                gradients.append(probability.to(weight.dtype) @ weight)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradients,) = ctx.saved_tensors
        return gradients * upstream[:, None].to(gradients.dtype), None, None, None
