"""A run in Weights & Biases; with WANDB_MODE=offline a folder below FOLDER/wandb, which `wandb sync` sends later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.runs.trackers import PROJECT, Value

LONGEST_ID, LONGEST_TAG = 128, 64  # characters


class Run:
    """A Tracker. The harness's id is the run's id there, too. Nothing is told of the machine or its folders."""

    def open(self, name: str, created: str, folder: Path) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, save_code=False,
            x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True,
        )  # fmt: skip
        self.run = wandb.init(
            project=PROJECT, name=name, id=name[-LONGEST_ID:], resume="allow", dir=str(folder), settings=settings
        )

    def params(self, values: Mapping[str, Value], tags: Mapping[str, str]) -> None:
        self.run.config.update({**values, "tags": dict(tags)}, allow_val_change=True)
        self.run.tags = [f"{key}: {value}"[:LONGEST_TAG] for key, value in tags.items() if value]

    def metrics(self, values: Mapping[str, float], epoch: int | None = None) -> None:
        if epoch is None:
            self.run.summary.update(dict(values))
        else:
            self.run.log(dict(values), step=epoch)

    def close(self) -> None:
        self.run.finish()
