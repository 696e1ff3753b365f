"""How the adapters of a run learnt: losses by epoch, a band over adapters. learning.json in a run's folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError, model_validator

from harness.errors import StoreError
from harness.store import dump_json, read_json

FILE = "learning.json"
BAND = (10, 90)  # percentiles over adapters
STILL_LEARNING = 0.01  # of the mean validation loss: whoever gains so much in the last epoch was stopped by the budget


class Learning(BaseModel, frozen=True, extra="forbid"):
    """Validation loss in nats a token, E values each. An adapter that has stopped early counts with its lowest loss.

    first      the first value's epoch; 0: of the starting values, where they are known
    adapters   that have a validation loss
    mean, low, high   over these adapters: mean, and the percentiles of BAND
    training   how many were still trained in that epoch
    train_loss  mean training loss by epoch from the first on, over those that were still trained; empty: not known
    """

    first: int
    adapters: int
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    training: tuple[int, ...]
    train_loss: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _alike(self) -> Learning:
        if len({len(self.mean), len(self.low), len(self.high), len(self.training)}) != 1 or not self.mean:
            raise ValueError("mean, low, high and training need one value for each epoch")
        if self.train_loss and len(self.train_loss) != self.epochs[-1]:
            raise ValueError("train_loss needs one value for each epoch from the first on")
        return self

    @property
    def epochs(self) -> range:
        return range(self.first, self.first + len(self.mean))

    @property
    def last_fall(self) -> float:
        """The share by which the mean loss fell in the last epoch; negative where it rose, 0 without a loss before."""
        if len(self.mean) < 2 or self.mean[-2] <= 0:
            return 0.0
        return 1 - self.mean[-1] / self.mean[-2]


def learning_of(report: Mapping[str, Any]) -> Learning | None:
    """From a fit's report (training.FitReport as plain data); None where no adapter has a validation loss.

    The starting values take part where they did for every adapter. Losses that are not finite are left out.
    """
    known = [one for one in report.get("adapters", {}).values() if one["validation_loss"]]
    starts = [one["start_validation_loss"] for one in known]
    with_start = bool(starts) and None not in starts
    rows = []
    for one, start in zip(known, starts, strict=True):
        losses = [*([start] if with_start else []), *one["validation_loss"]]
        if all(map(math.isfinite, losses)):
            rows.append(losses)
    if not rows:
        return None
    longest = max(map(len, rows))
    table = np.array([[*losses, *[min(losses)] * (longest - len(losses))] for losses in rows])  # [adapters, epochs]
    low, high = np.percentile(table, BAND, axis=0)
    return Learning(
        first=0 if with_start else 1,
        adapters=len(rows),
        mean=_rounded(table.mean(0)),
        low=_rounded(low),
        high=_rounded(high),
        training=tuple(sum(len(losses) > place for losses in rows) for place in range(longest)),
        train_loss=_train_loss([one.get("train_loss", ()) for one in known], longest - with_start),
    )


def _train_loss(rows: Sequence[Sequence[float]], epochs: int) -> tuple[float, ...]:
    """Means over the adapters that were trained in an epoch; empty where an epoch has none that is finite."""
    means = []
    for epoch in range(epochs):
        values = [losses[epoch] for losses in rows if len(losses) > epoch and math.isfinite(losses[epoch])]
        if not values:
            return ()
        means.append(sum(values) / len(values))
    return _rounded(np.array(means))


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)


def write_learning(folder: Path, learning: Learning | None) -> None:
    """Write learning.json where a validation loss is known."""
    if learning:
        dump_json(learning.model_dump(), folder / FILE)


def read_learning(folder: Path) -> Learning | None:
    """None where a run has none. Raises StoreError for a file that cannot be read."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Learning.model_validate(read_json(path))
    except ValidationError as error:
        raise StoreError(f"{path}: is no learning curve ({error.error_count()} faults); run it again") from error
