"""A step's dialogues through the frozen model in waves that fit: losses per adapter, and gradients of its numbers.

Knows neither optimiser nor schedule; see fit_loop (independent adapters) and joint_loop (shared parameters).
Legend: N adapters, K numbers of one adapter, n label positions of a wave.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from harness.adapters import Bank, key_seed
from harness.engines import Each, Entry, Row, Wave, collate, engine_for, side_by_side
from harness.errors import HarnessError
from harness.model import Backbone
from harness.training.estimate import Estimate, Load, estimate_step
from harness.training.optimiser import Flat

# What a wave gives: owners of its labels, their losses, bank rows that occur and their gradients.
_Piece = tuple[np.ndarray, Tensor, Tensor, Tensor | None]


class WaveRunner:
    """Runs entries of a bank's adapters with given values [N, K] (`flat` gives their layout).

    Waves share nothing, so an engine with several workers takes whole waves side by side, with one thread each: no
    thread waits for another inside a product, and the bits do not depend on who was quick.

    padded_tokens  that training has put through the model so far, padding included
    rewaved        whether memory ran out and a wave was halved
    """

    def __init__(self, backbone: Backbone, bank: Bank, microbatch_tokens: int, seed: int) -> None:
        self.backbone, self.bank, self.seed = backbone, bank, seed
        self.microbatch_tokens = microbatch_tokens
        self.prefix = bank.prefix_tokens
        self.engine, self.why = engine_for(backbone, bank, dropout=bool(bank.dropout))
        self.workers = self.engine.workers
        self.flat = Flat(bank.tensors)
        self.padded_tokens = 0
        self.rewaved = False
        self._each: Each | None = None

    def estimate(self, rows: Sequence[Sequence[Row]], batch_size: int) -> Estimate:
        """Memory of a step; rows: each adapter's, of which the longest are taken to come together."""
        virtual = self.prefix + self.bank.cached_tokens
        model = self.backbone.model
        config = model.config.get_text_config()
        load = Load.of_step(
            [[(virtual + len(row.inputs), len(row.targets)) for row in own] for own in rows],
            batch_size,
            self.microbatch_tokens,
            self.workers,
            vocabulary=config.vocab_size,
            numbers=sum(self.flat.sizes),
            device_type=self.backbone.device.type,
            engine=self.engine.name,
            adapted=tuple(sorted({name.rsplit(".", 1)[-1] for name in self.bank.low_rank() or {}})),
        )
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        return estimate_step(config, load, self.backbone.dtype.itemsize, weights)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """While open, waves are computed side by side, where that is possible."""
        with side_by_side(self.workers) as self._each:
            yield
        self._each = None

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
        def attempt(part: list[Entry]) -> list[_Piece]:
            """Run a wave; halve it where memory does not suffice."""
            try:
                wave = collate(part, self.prefix, self.backbone.device)
                return [self._run(wave, values, labels, step)]
            except torch.OutOfMemoryError as fault:
                if len(part) == 1:
                    raise HarnessError(
                        f"one dialogue of {len(part[0].row.inputs)} tokens does not fit into the memory of "
                        f"{self.backbone.device}; shorten it or use a smaller model"
                    ) from fault
            self.rewaved = True
            return attempt(part[: len(part) // 2]) + attempt(part[len(part) // 2 :])

        parts = self.engine.cut(self.bank, entries, self.microbatch_tokens, self.workers)
        done = [attempt(part) for part in parts] if self._each is None else self._each(attempt, parts)
        pieces = [piece for found in done for piece in found]
        if gradients is not None:  # added here, in the order of the waves, whoever was quick
            for _, _, used, gradient in pieces:
                assert gradient is not None
                gradients.index_add_(0, used, gradient)
            self.padded_tokens += sum(sum(self.engine.lengths(self.bank, part)) for part in parts)
        owners = np.concatenate([piece[0] for piece in pieces])
        # Summed here, in a fixed order, not by atomics on a device; a NaN stays with its owner.
        found = torch.cat([piece[1] for piece in pieces]).double().cpu().numpy()
        return np.bincount(owners, weights=found, minlength=len(self.bank))

    def _run(self, wave: Wave, values: Tensor, labels: np.ndarray | None, step: int) -> _Piece:
        """A wave's losses, and with `labels` [N] the gradients of each adapter's summed loss / labels."""
        train = labels is not None
        used = torch.tensor(wave.adapters, device=self.backbone.device)
        # Only this wave's adapters become a leaf: no gradient of the whole bank is made per wave.
        leaf = values[used].requires_grad_(train)
        local = self.bank.with_tensors(self.flat.split(leaf), wave.adapters)
        seeds = self._dropout_seeds(wave.entries, step) if train and self.bank.dropout else None
        with torch.set_grad_enabled(train):
            losses = self.engine.token_losses(local, wave, seeds)
        if labels is not None:
            # A vector of weights instead of a weighted sum: a NaN loss never meets its neighbours.
            weights = torch.as_tensor(1.0 / labels[wave.owners], dtype=losses.dtype, device=losses.device)
            losses.backward(weights)
        return wave.owners, losses.detach(), used, leaf.grad

    def _dropout_seeds(self, entries: Sequence[Entry], step: int) -> Tensor:
        keys = self.bank.keys
        return torch.tensor([key_seed(self.seed, keys[e.adapter], "dropout", step, e.place) for e in entries])
