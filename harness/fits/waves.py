"""A step's dialogues through the frozen model in waves that fit: losses per adapter, and gradients of its numbers.

Knows neither optimiser nor schedule; see fit_loop (independent adapters) and joint_loop (shared parameters).
Legend: N adapters, K numbers of one adapter, n label positions of a wave.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from harness.adapters import Bank
from harness.adapters.bank import key_seed
from harness.backbone import Backbone
from harness.errors import HarnessError
from harness.fits.batching import Entry, Wave, collate, cut
from harness.fits.forward import prepare
from harness.fits.optimiser import Flat


class WaveRunner:
    """Runs entries of a bank's adapters with given values [N, K] (`flat` gives their layout).

    padded_tokens  that training has put through the model so far, padding included
    rewaved        whether memory ran out and a wave was halved
    """

    def __init__(self, backbone: Backbone, bank: Bank, microbatch_tokens: int, seed: int) -> None:
        self.backbone, self.bank, self.seed = backbone, bank, seed
        self.microbatch_tokens = microbatch_tokens
        self.prefix = bank.prefix_tokens
        self.forward = prepare(backbone)
        self.flat = Flat(bank.tensors)
        self.padded_tokens = 0
        self.rewaved = False

    def count(self, entries: Sequence[Entry]) -> tuple[np.ndarray, np.ndarray]:
        """(tokens [N], label tokens [N]) of some entries, without padding."""
        tokens, labels = np.zeros((2, len(self.bank)), dtype=np.int64)
        for entry in entries:
            tokens[entry.adapter] += self.prefix + len(entry.row.inputs)
            labels[entry.adapter] += len(entry.row.targets)
        return tokens, labels

    def losses(self, entries: Sequence[Entry], values: Tensor) -> np.ndarray:
        """Summed loss [N] in nats of each adapter's entries."""
        return self._all(entries, values, None, None, 0)

    def gradients(
        self, entries: Sequence[Entry], labels: np.ndarray, values: Tensor, gradients: Tensor, step: int
    ) -> np.ndarray:
        """Summed loss [N]; `gradients` [N, K] becomes the gradient of each adapter's summed loss / labels [N].

        step   decides, with seed and key, on dropout
        """
        gradients.zero_()
        return self._all(entries, values, gradients, labels, step)

    def _all(
        self,
        entries: Sequence[Entry],
        values: Tensor,
        gradients: Tensor | None,
        labels: np.ndarray | None,
        step: int,
    ) -> np.ndarray:
        pieces: list[tuple[np.ndarray, Tensor]] = []

        def attempt(part: list[Entry]) -> None:
            """Run a wave; halve it where memory does not suffice."""
            try:
                wave = collate(part, self.prefix, self.backbone.device)
                pieces.append(self._run(wave, values, gradients, labels, step))
                return
            except torch.OutOfMemoryError as fault:
                if len(part) == 1:
                    raise HarnessError(
                        f"one dialogue of {len(part[0].row.inputs)} tokens does not fit into the memory of "
                        f"{self.backbone.device}; shorten it or use a smaller model"
                    ) from fault
            self.rewaved = True
            attempt(part[: len(part) // 2])
            attempt(part[len(part) // 2 :])

        for part in cut(entries, self.prefix, self.microbatch_tokens):
            attempt(part)
        owners = np.concatenate([owners for owners, _ in pieces])
        # Summed here, in a fixed order, not by atomics on a device; a NaN stays with its owner.
        found = torch.cat([losses for _, losses in pieces]).double().cpu().numpy()
        return np.bincount(owners, weights=found, minlength=len(self.bank))

    def _run(
        self, wave: Wave, values: Tensor, gradients: Tensor | None, labels: np.ndarray | None, step: int
    ) -> tuple[np.ndarray, Tensor]:
        train = gradients is not None
        used = torch.tensor(wave.adapters, device=self.backbone.device)
        # Only this wave's adapters become a leaf: no gradient of the whole bank is made per wave.
        leaf = values[used].requires_grad_(train)
        local = self.bank.with_tensors(self.flat.split(leaf), [self.bank.keys[i] for i in wave.adapters])
        seeds = self._dropout_seeds(wave.entries, step) if train and self.bank.dropout else None
        with torch.set_grad_enabled(train):
            losses = self.forward.token_losses(local, wave, seeds)
        if gradients is not None and labels is not None:
            # A vector of weights instead of a weighted sum: a NaN loss never meets its neighbours.
            weights = torch.as_tensor(1.0 / labels[wave.owners], dtype=losses.dtype, device=losses.device)
            losses.backward(weights)
            assert leaf.grad is not None
            gradients.index_add_(0, used, leaf.grad)
            self.padded_tokens += wave.tokens
        return wave.owners, losses.detach()

    def _dropout_seeds(self, entries: Sequence[Entry], step: int) -> Tensor:
        keys = self.bank.keys
        return torch.tensor([key_seed(self.seed, keys[e.adapter], "dropout", step, e.place) for e in entries])
