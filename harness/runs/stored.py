"""Runs on disk: reading, finding and writing them. One run is a folder:

    <runs>/<id>/run.json replies.parquet adapters/

What run.json says is `record`, the replies are `replies`; how a folder is written whole is `harness.store`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import HarnessError, StoreError, did_you_mean
from harness.runs.record import SCHEMA_VERSION, BenchmarkSource, PluginSource, RunRecord, Settings, parse_record
from harness.runs.replies import Replies, read_replies
from harness.scoring import MetricSums, metric_named
from harness.statistics import pseudo_values
from harness.store import Store, read_json, write_atomically

FILE = "run.json"
_FLAGS = {  # of schema 1, in English words -> kind
    r"(?P<share>\d+)% empty replies": "empty_replies",
    r"(?P<count>\d+) of (?P<of>\d+) adapters: diverged": "diverged_adapters",
    r"(?P<count>\d+) of (?P<of>\d+) adapters: no data": "adapters_without_data",
    r"rewaved": "rewaved",
    r"adds text to the prompt": "adds_text",
    r"imported": "imported",
}


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies on disk; `path` is its folder, or the file of a published record."""

    path: Path
    record: RunRecord

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def complete(self) -> bool:
        return self.record.status == "ok"

    def replies(self) -> Replies | None:
        """The run's examples; None where only sums are stored. Raises StoreError for a file that cannot be read."""
        return read_replies(self.path)


def read_record(path: Path) -> RunRecord:
    """A run.json or a published record, of this schema or of the one before. Raises StoreError with file and field."""
    value = read_json(path)
    if isinstance(value, dict) and value.get("schema_version") == 1:
        sums = path.with_name("personas.json")
        if path.name == FILE and sums.is_file():
            value["per_persona"] = read_json(sums)
        value = _upgraded(value, path)
    return described(parse_record(value, path))


def published_run(path: Path) -> StoredRun:
    """The run of a published record, failed with the reason where that cannot be read, or bears another's name."""
    try:
        record = read_record(path)
        if record.id != path.stem:
            raise StoreError(f"{path} is the record of another run")
    except StoreError as error:
        record = _unreadable(path.stem, str(error))
    return StoredRun(path, record)


def read_run(folder: Path) -> StoredRun | None:
    """The run in a folder, complete or not; None if there is none. Raises StoreError as `read_record`."""
    return StoredRun(folder, read_record(folder / FILE)) if (folder / FILE).is_file() else None


def all_runs(root: Path) -> list[StoredRun]:
    """All runs of a folder, by id. One whose run.json cannot be read is listed as failed, with the reason."""
    found = []
    for path in sorted(root.glob(f"*/{FILE}")):
        try:
            record = read_record(path)
        except StoreError as error:
            record = _unreadable(path.parent.name, str(error))
        found.append(StoredRun(path.parent, record))
    return found


def find_run(root: Path, name: str) -> StoredRun:
    """A run by id or unique beginning of one; raises StoreError with the nearest ids."""
    runs = {run.id: run for run in all_runs(root)}
    hits = [run_id for run_id in runs if run_id == name] or [r for r in runs if name and r.startswith(name)]
    if len(hits) != 1:
        why = f"{len(hits)} runs begin with '{name}'" if hits else f"no run '{name}' in {root}"
        raise StoreError(f"{why}; {did_you_mean(name, hits or list(runs))}")
    return runs[hits[0]]


def write_run(store: Store, record: RunRecord, fill: Callable[[Path], None] | None = None) -> StoredRun:
    """Put a run in place of whatever has its id; `fill(folder)` writes the files beside run.json."""
    record = described(record)

    def write(folder: Path) -> None:
        if fill:
            fill(folder)
        write_atomically(folder / FILE, record.text())

    return StoredRun(store.write_folder(record.id, write), record)


def described(record: RunRecord) -> RunRecord:
    """The record with summaries and pooled values of its metrics, so that showing it needs no plugin any more.

    A metric of a plugin that is not there stays as it is.
    """
    sums = record.per_persona
    if sums is None or all(entry.summary is not None for entry in sums.metrics.values()):
        return record
    metrics = {name: _described(name, entry) for name, entry in sums.metrics.items()}
    return record.model_copy(update={"per_persona": sums.model_copy(update={"metrics": metrics})})


def _described(name: str, entry: MetricSums) -> MetricSums:
    if entry.summary is not None:
        return entry
    try:
        metric = metric_named(name)
    except HarnessError:
        return entry
    found: dict[str, Any] = {"summary": metric.summary}
    names = metric.columns_in(entry.counts or ())
    if metric.figure is not None and entry.counts is not None and names and {*names} <= entry.counts.keys():
        counts = np.array([entry.counts[column] for column in names], dtype=float).T  # [G, C]
        try:
            values = pseudo_values(counts, metric.figure)
            values += float(metric.figure(counts.sum(0))) - values.mean()
            found["values"] = tuple(float(f"{value:.10g}") for value in values)  # a published record is small
        except HarnessError:
            pass  # undefined with one persona left out
    return entry.model_copy(update=found)


def _unreadable(run_id: str, why: str) -> RunRecord:
    return RunRecord(
        id=run_id, status="failed", error=why, method="", plugin=PluginSource(file="", sha256=""),
        config=Settings(method="", benchmark=""), seed=0,
        benchmark=BenchmarkSource(name="", options={}, facts={}, sha256=""), metrics=(), hashes={}, created="",
    )  # fmt: skip


def _upgraded(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The same record of schema 2. Raises StoreError for what no harness wrote."""
    try:
        return _of_schema_2(value, path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: is no record of schema 1 ({type(error).__name__}: {error})") from error


def _of_schema_2(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The fields of schema 2. What schema 1 did not keep (fits, the cost of what a run stands on) stays None.

    value   with the sums of personas.json under "per_persona"
    Raises  StoreError for a flag that no harness wrote.
    """
    old = dict(value)
    source = old.get("plugin") or {}
    if isinstance(old.get("config"), dict):  # its only engine was called "local"
        old["config"] = {name: value for name, value in old["config"].items() if name != "engine"}
    found: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "flags": [_flag(words, path) for words in old.pop("flags", [])],
        "cost": old.pop("cost", None) or None,
        "plugin_files": [source["file"]] if source.get("file") and source.get("distribution") is None else [],
    }
    if old.pop("origin", None) == "imported":
        found["imported"] = {**old.pop("file"), "example_set": old.pop("example_set")}
    sums = dict(old.pop("per_persona", None) or {})
    unseen = sums.pop("unseen", None)
    if sums:
        found["per_persona"] = sums
    if old.get("unseen"):
        found["unseen"] = {**old["unseen"], "per_persona": unseen}
    return {**old, **found}


def _flag(words: str, path: Path) -> dict[str, Any]:
    for pattern, kind in _FLAGS.items():
        if match := re.fullmatch(pattern, words):
            numbers = {name: int(digits) for name, digits in match.groupdict().items()}
            return {"kind": kind, **({"share": numbers["share"] / 100} if "share" in numbers else numbers)}
    raise StoreError(f"{path}: flags: '{words}' is no flag of schema 1")
