"""A run as event files of TensorBoard: FOLDER/tensorboard/RUN."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.runs.trackers import Value
from harness.text import markdown


class Run:
    """A Tracker. Configuration and final figures stand in the tab HPARAMS, words in TEXT."""

    def open(self, name: str, created: str, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = folder / "tensorboard" / name
        for old in place.glob("events.out.tfevents.*"):
            old.unlink()
        self.writer = SummaryWriter(str(place))
        self.values: Mapping[str, Value] = {}

    def params(self, values: Mapping[str, Value], tags: Mapping[str, str]) -> None:
        self.values = values
        for title, rows in (("tags", tags), ("config", values)):
            lines = [f"| {markdown(key)} | {markdown(value)} |" for key, value in rows.items()]
            self.writer.add_text(title, "\n".join(["| | |", "|---|---|", *lines]))

    def metrics(self, values: Mapping[str, float], epoch: int | None = None) -> None:
        if epoch is None:
            self._hparams(values)
        for key, value in values.items():
            self.writer.add_scalar(key, value, epoch or 0)

    def _hparams(self, figures: Mapping[str, float]) -> None:
        """As SummaryWriter.add_hparams, which would make a second run of it."""
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(dict(self.values), dict(figures)):
            assert self.writer.file_writer is not None
            self.writer.file_writer.add_summary(summary)

    def close(self) -> None:
        self.writer.close()
