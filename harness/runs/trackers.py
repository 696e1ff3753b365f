"""What a run found, sent to an experiment tracker by one interface. One file a tracker: `to_tensorboard` and its like.

What is sent is made by `harness.compare.tracked`, of a stored run alone: sending changes no score and no id.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.errors import ConfigError, did_you_mean
from harness.text import one_line

PROJECT = "peft-personalisation-harness"
INSTALL = f"pip install '{PROJECT}[{{}}]'"
Value = str | int | float | bool


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told about a run.

    params    its configuration, flat;  tags: words about it
    figures   scores, cost and comparison;  curves: epoch -> figures of that epoch
    """

    name: str
    created: str
    params: Mapping[str, Value]
    tags: Mapping[str, str]
    figures: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[int, Mapping[str, float]] = field(default_factory=dict)


class Tracker(Protocol):
    """One run in an experiment tracker. A run that is sent again takes the place of what was sent before."""

    def open(self, name: str, created: str, folder: Path) -> None:
        """Begin the run of this name; created: ISO time; files go below the folder."""

    def params(self, values: Mapping[str, Value], tags: Mapping[str, str]) -> None:
        """The configuration, and words about the run. Called once."""

    def metrics(self, values: Mapping[str, float], epoch: int | None = None) -> None:
        """Figures of an epoch, epochs ascending; None: the run's final figures, last."""

    def close(self) -> None:
        """Wait until all is written."""


# Name -> the package that it needs. Its file here is to_NAME.py, with a class `Run` that is a Tracker.
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}


def chosen_trackers(names: Sequence[str]) -> list[str]:
    """The trackers of a list whose items may hold several, with commas.

    Raises ConfigError for a name that is none, and for one whose package is not installed.
    """
    found = [name.strip() for item in names for name in item.split(",") if name.strip()]
    for name in found:
        if name not in TRACKERS:
            raise ConfigError(f"there is no tracker '{name}'; {did_you_mean(name, TRACKERS)}")
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise ConfigError(f"{name} is not installed; {INSTALL.format(name)} installs it")
    return list(dict.fromkeys(found))


def open_tracker(name: str) -> Tracker:
    """A tracker for one run. Raises whatever its package raises where it cannot be imported."""
    return importlib.import_module(f"harness.runs.to_{name}").Run()


def send(name: str, runs: Sequence[Tracked], folder: Path, warn: Callable[[str], None]) -> bool:
    """Send runs to a tracker; whether all are there. One that fails is told in one line, and gets no more runs."""
    for run in runs:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # stdout is for results
                _send(open_tracker(name), run, folder)
        except (Exception, SystemExit) as error:
            why = one_line(f"{type(error).__name__}: {error}")
            again = f"`harness runs log {run.name} --to {name}` sends it later"
            warn(f"{name} has failed ({why}); the run is stored, and {again}; {INSTALL.format(name)} installs {name}")
            return False
    return True


def _send(tracker: Tracker, run: Tracked, folder: Path) -> None:
    tracker.open(run.name, run.created, folder)
    try:
        tracker.params(run.params, run.tags)
        for epoch, values in sorted(run.curves.items()):
            tracker.metrics(values, epoch)
        tracker.metrics(run.figures)
    finally:
        tracker.close()
