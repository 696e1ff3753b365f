"""`--log`: what commands hand to experiment trackers once runs are stored. The trackers themselves: `runs.trackers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands import completion
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.runs import StoredRun
    from harness.statistics import ComparisonRow

    Compared = Sequence[tuple[StoredRun, ComparisonRow | None]]

Log = Annotated[
    list[str] | None,
    typer.Option(
        help="Also to a tracker: tensorboard, wandb, trackio, mlflow; repeatable, or with commas.",
        autocompletion=completion.trackers,
    ),
]
LogDir = Annotated[
    Path | None, typer.Option(help="Folder of what trackers write here. [default: trackers, in the runs folder]")
]
FOLDER = "trackers"


@dataclass(frozen=True)
class Logbook:
    """The trackers that a command was told of."""

    names: Sequence[str]
    folder: Path | None

    @classmethod
    def of(cls, names: Sequence[str] | None, folder: Path | None) -> Logbook:
        """Raises ConfigError for a tracker that is none or is not installed: before anything slow begins."""
        if not names:
            return cls((), folder)
        from harness.runs import chosen_trackers

        return cls(chosen_trackers(names), folder)

    def send(self, runs: Compared, runs_dir: Path, progress: Any) -> bool:
        """Send runs with their comparisons to each tracker; whether all is there. What fails is a warning."""
        if not self.names or not runs:
            return True
        from harness.compare import tracked
        from harness.runs import send

        once = {run.id: (run, row) for run, row in reversed(runs)}
        try:
            found = [tracked(run, row) for run, row in reversed(once.values())]
        except HarnessError as error:  # a file of a run has been damaged meanwhile
            progress.warn(f"nothing is sent to {', '.join(self.names)}: {error}")
            return False
        folder = self.folder or runs_dir / FOLDER
        sent = [name for name in self.names if send(name, found, folder, progress.warn)]
        if sent:
            count = f"{len(found)} run{' is' if len(found) == 1 else 's are'}"
            progress.note(f"{count} in {', '.join(sent)}; their files on this machine: {folder}")
        return sent == list(self.names)
