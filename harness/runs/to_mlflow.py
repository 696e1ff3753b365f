"""A run in MLflow: at MLFLOW_TRACKING_URI where that is set, else in FOLDER/mlflow/mlflow.db."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.runs.trackers import PROJECT, Value

MOST_AT_ONCE = 100  # params, or tags, of one request
QUIET = {"MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_DISABLE_TELEMETRY": "true"}
LONGEST = 500  # characters of a value that every server takes


class Run:
    """A Tracker. The tag `harness.run` finds a run that was sent before."""

    def open(self, name: str, created: str, folder: Path) -> None:
        for variable, value in QUIET.items():
            os.environ.setdefault(variable, value)
        from mlflow.tracking import MlflowClient

        for noisy in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)

        place = (folder / "mlflow").resolve()
        uri, files = os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            place.mkdir(parents=True, exist_ok=True)
            uri, files = f"sqlite:///{place.as_posix()}/mlflow.db", (place / "artifacts").as_uri()
        self.client = MlflowClient(uri)
        experiment = self.client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment else self.client.create_experiment(PROJECT, files)
        for old in self.client.search_runs([number], f"tags.`harness.run` = '{name}'"):
            self.client.delete_run(old.info.run_id)  # it stays in MLflow's own bin
        self.milliseconds = int(datetime.fromisoformat(created).timestamp() * 1000)
        run = self.client.create_run(number, self.milliseconds, {"harness.run": name}, name)
        self.run_id = run.info.run_id

    def params(self, values: Mapping[str, Value], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        for part in _parts(values):
            self.client.log_batch(self.run_id, params=[Param(*one) for one in part])
        for part in _parts(tags):
            self.client.log_batch(self.run_id, tags=[RunTag(*one) for one in part])

    def metrics(self, values: Mapping[str, float], epoch: int | None = None) -> None:
        from mlflow.entities import Metric

        found = [Metric(_key(key), value, self.milliseconds, epoch or 0) for key, value in values.items()]
        self.client.log_batch(self.run_id, metrics=found)

    def close(self) -> None:
        self.client.set_terminated(self.run_id, "FINISHED")


def _parts(values: Mapping[str, Any]) -> Iterator[list[tuple[str, str]]]:
    pairs = [(_key(key), str(value)[:LONGEST]) for key, value in values.items()]
    for start in range(0, len(pairs), MOST_AT_ONCE):
        yield pairs[start : start + MOST_AT_ONCE]


def _key(name: str) -> str:
    """A name of the characters that MLflow takes."""
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)[:250]
