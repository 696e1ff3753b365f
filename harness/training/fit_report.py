"""The figures of each adapter's fit: AdapterState while it runs, AdapterReport and FitReport afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "diverged", "no data"]
# An epoch's loss of at least so many times the least before it, and so many nats above it, is a spike.
SPIKE_TIMES, SPIKE_NATS = 2.0, 0.2


def has_spike(losses: Sequence[float]) -> bool:
    """Whether a later epoch's mean loss rose far above the least before it: the learning rate may be too high."""
    least = float("inf")
    for loss in losses:
        if loss >= max(SPIKE_TIMES * least, least + SPIKE_NATS):
            return True
        least = min(least, loss)
    return False


@dataclass(frozen=True)
class AdapterReport:
    """One adapter's fit. Losses are means per token in nats.

    steps, epochs         optimiser steps and complete passes that changed it
    tokens, label_tokens  that it was trained on, without padding; virtual tokens included in `tokens`
    best_epoch            whose values were kept, from 1; 0: the starting values
    train_loss            per epoch, while it was learning
    validation_loss       per epoch; empty without validation dialogues
    start_validation_loss of the starting values, where they took part
    status                "diverged": a loss or gradient was not finite or exploded; earlier values stand
    """

    steps: int
    epochs: int
    tokens: int
    label_tokens: int
    best_epoch: int
    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    start_validation_loss: float | None
    status: Status


@dataclass(frozen=True)
class FitReport:
    """A whole fit.

    adapters       key -> its report
    seconds        wall-clock, the parts before an interruption included
    tokens, label_tokens  sums over the adapters
    padded_tokens  that training put through the model, padding included
    rewaved        memory ran out and a wave was halved: equal to 1e-12 in fp64, not to the bit
    hidden         dialogues whose last reply token sees no virtual token, because every layer has a sliding window
    """

    adapters: Mapping[str, AdapterReport]
    seconds: float
    tokens: int
    label_tokens: int
    padded_tokens: int
    rewaved: bool
    hidden: int = 0

    @property
    def diverged(self) -> list[str]:
        """Keys of the adapters that failed."""
        return [key for key, report in self.adapters.items() if report.status == "diverged"]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass
class AdapterState:
    """An adapter's bookkeeping while the fit runs; plain data, so that a checkpoint can hold it."""

    status: Status = "ok"
    done: bool = False  # learns no more: finished, stopped early, failed, or without data
    steps: int = 0
    tokens: int = 0
    label_tokens: int = 0
    best_epoch: int = 0
    best_loss: float = float("inf")
    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    start_validation_loss: float | None = None
    epoch_loss: float = 0.0  # summed nats and label tokens of the epoch under way
    epoch_labels: int = 0

    def count_step(self, tokens: int, label_tokens: int, loss: float) -> None:
        """Book one optimiser step with its mean loss per label token."""
        self.steps += 1
        self.tokens += tokens
        self.label_tokens += label_tokens
        self.epoch_loss += loss * label_tokens
        self.epoch_labels += label_tokens

    def end_epoch(self) -> int:
        """Close the epoch under way; returns its number, from 1."""
        self.train_loss.append(self.epoch_loss / self.epoch_labels)
        self.epoch_loss, self.epoch_labels = 0.0, 0
        return len(self.train_loss)

    def report(self) -> AdapterReport:
        return AdapterReport(
            steps=self.steps,
            epochs=len(self.train_loss),
            tokens=self.tokens,
            label_tokens=self.label_tokens,
            best_epoch=self.best_epoch,
            train_loss=tuple(self.train_loss),
            validation_loss=tuple(self.validation_loss),
            start_validation_loss=self.start_validation_loss,
            status=self.status,
        )
