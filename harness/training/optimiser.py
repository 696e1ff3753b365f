"""AdamW for a bank: every adapter with its own moments, learning rate, clipping and steps.

Loshchilov and Hutter 2019, in the arithmetic of torch.optim.AdamW; an adapter that is not named in a step is
not touched. State is one flat matrix [N, K] per quantity, K numbers an adapter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from harness.contract import Schedule

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def learning_rate_factor(step: int, total_steps: int, warmup: float, schedule: Schedule) -> float:
    """Share of the peak learning rate in step `step` (from 0) of an adapter's `total_steps`.

    Warm-up over ceil(warmup * total_steps) steps reaches 1 with its last; transformers' schedules are one
    step behind and waste the first step on a rate of 0.
    """
    rising = math.ceil(warmup * total_steps)
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(1, total_steps - rising)
    if schedule == "linear":
        return 1.0 - progress
    return 0.5 * (1.0 + math.cos(math.pi * progress)) if schedule == "cosine" else 1.0


class Flat:
    """The tensors of a bank as one matrix [N, K], and back. Tensors in order of their names."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.names = sorted(tensors)
        self.shapes = [tensors[name].shape[1:] for name in self.names]
        self.sizes = [math.prod(shape) for shape in self.shapes]

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """[N, K], a copy."""
        return torch.cat([tensors[name].detach().flatten(1) for name in self.names], dim=1)

    def split(self, matrix: Tensor) -> dict[str, Tensor]:
        """Views of [N, K] by name; gradients flow back through one operation."""
        parts = matrix.split_with_sizes(self.sizes, dim=1)
        count = matrix.shape[0]
        return {
            name: part.view(count, *shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }


class BankAdamW:
    """Values, gradients and moments of N adapters; all [N, K]."""

    def __init__(self, values: Tensor, weight_decay: float, clip: float, anchor: Tensor | None = None) -> None:
        """anchor [N, K]: what weight decay pulls towards; None: 0."""
        self.values = values
        self.anchor = anchor
        self.gradients = torch.zeros_like(values)
        self.moment1 = torch.zeros_like(values)
        self.moment2 = torch.zeros_like(values)
        self.weight_decay = weight_decay
        self.clip = clip

    def gradient_norms(self) -> np.ndarray:
        """Euclidean norm [N] of each adapter's gradient over all its tensors; not finite where one is not."""
        return self.gradients.norm(dim=1).double().cpu().numpy()

    def step(self, adapters: np.ndarray, step: int, rates: np.ndarray, norms: np.ndarray) -> None:
        """One update of the rows `adapters` [n].

        step       its number, from 1; adapters that still learn have all made as many (they start together)
        rates [n]  learning rates;  norms [n]: gradient norms, for clipping
        """
        everybody = len(adapters) == len(self.values)
        index = torch.as_tensor(adapters, device=self.values.device)
        state = (self.values, self.gradients, self.moment1, self.moment2)
        # Rows that sit this step out must keep their bits, so a subset is copied out and back.
        values, gradients, moment1, moment2 = state if everybody else (part[index] for part in state)
        if self.clip:
            gradients = gradients * self._column(np.minimum(1.0, self.clip / (norms + 1e-6)))
        decay = self._column(rates * self.weight_decay)
        if self.anchor is None:
            values.mul_(1.0 - decay)
        else:
            values.sub_((values - (self.anchor if everybody else self.anchor[index])) * decay)
        moment1.lerp_(gradients, 1.0 - BETA1)
        moment2.mul_(BETA2).addcmul_(gradients, gradients, value=1.0 - BETA2)
        denominator = (moment2.sqrt() / math.sqrt(1.0 - BETA2**step)).add_(EPSILON)
        values.sub_(moment1 / denominator * self._column(rates / (1.0 - BETA1**step)))
        if not everybody:
            self.values[index], self.moment1[index], self.moment2[index] = values, moment1, moment2

    def _column(self, numbers: np.ndarray) -> Tensor:
        return torch.as_tensor(numbers, dtype=self.values.dtype, device=self.values.device)[:, None]
