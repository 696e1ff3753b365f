"""A run in trackio: in FOLDER/trackio, unless TRACKIO_DIR, TRACKIO_SPACE_ID or TRACKIO_SERVER_URL says where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from harness.runs.trackers import PROJECT, Value

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")  # trackio then writes nothing that lasts on this machine


class Run:
    """A Tracker. trackio takes its folder when it is imported: one process writes to one folder."""

    def open(self, name: str, created: str, folder: Path) -> None:
        os.environ.setdefault("TRACKIO_DIR", str((folder / "trackio").resolve()))
        if not any(os.environ.get(variable) for variable in ELSEWHERE):
            _remove(name)
        self.name, self.run = name, None

    def params(self, values: Mapping[str, Value], tags: Mapping[str, str]) -> None:
        import trackio

        config = {**values, **{f"tag.{key}": value for key, value in tags.items()}}
        self.run = trackio.init(PROJECT, self.name, config=config, embed=False, auto_log_gpu=False, auto_log_cpu=False)

    def metrics(self, values: Mapping[str, float], epoch: int | None = None) -> None:
        """Final figures stand at the step after the last epoch: trackio has no summary."""
        assert self.run is not None
        self.run.log(dict(values), step=epoch)

    def close(self) -> None:
        if self.run is not None:
            import trackio

            trackio.finish()


def _remove(name: str) -> None:
    """What was sent before of this run."""
    import trackio

    try:
        runs = list(trackio.Api().runs(PROJECT))
    except ValueError:  # there is no such project yet
        return
    for run in runs:
        if run.name == name:
            run.delete()
