"""Runs on disk: reading, finding and writing them. One run is a folder:

    <runs>/<id>/run.json replies.parquet adapters/
                people.parquet, in place of a field of run.json where there are many people

What run.json says is `record`, the replies are `replies`, people.parquet is `people`; how a folder is written whole is
`harness.store`.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from harness.errors import HarnessError, StoreError, did_you_mean
from harness.runs.learning import Learning, read_learning
from harness.runs.people import with_people, write_people
from harness.runs.record import (
    SCHEMA_VERSION,
    BenchmarkSource,
    PluginSource,
    RunHead,
    RunRecord,
    Settings,
    parse_head,
    parse_record,
)
from harness.runs.replies import FILE as REPLIES, Replies, read_replies
from harness.scoring import MetricSums, metric_named
from harness.statistics import pseudo_values
from harness.store import (
    SEAL,
    Store,
    damage,
    file_damage,
    file_digest,
    is_signed,
    read_json,
    signed_well,
    write_atomically,
)

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
    """A run as it lies on disk.

    path   its folder, or the file of a published record
    head   what the record says but for the scores by persona; or all of the record
    """

    path: Path
    head: RunHead

    @functools.cached_property
    def record(self) -> RunRecord:
        """All that is recorded. Raises StoreError as `read_record`."""
        return self.head if isinstance(self.head, RunRecord) else read_record(self.path / FILE)

    @property
    def id(self) -> str:
        return self.head.id

    @property
    def complete(self) -> bool:
        return self.head.status == "ok"

    def replies(self) -> Replies | None:
        """The run's examples; None where only sums are stored. Raises StoreError for a file that cannot be read."""
        digest = self.record.files.get(REPLIES)
        if digest and self.path.is_dir() and (fault := file_damage(self.path / REPLIES, digest)):
            raise StoreError(f"{fault}; {self.mend}")
        return read_replies(self.path)

    def learning(self) -> Learning | None:
        """How its adapters learnt; None where that is not stored. Raises StoreError for a file that cannot be read."""
        return read_learning(self.path)

    def damage(self, adapters: bool = True) -> str:
        """What is wrong with the files beside run.json, in one line with the path; empty if nothing is.

        adapters  with all of its adapters; False: `loading.adapters_damage` looks at those that are read
        """
        for name, digest in self.record.files.items():
            path = self.path / name
            whole = adapters and path.name == SEAL
            if fault := damage(path.parent, digest) if whole else file_damage(path, digest):
                return fault
        return ""

    @property
    def mend(self) -> str:
        """What a user does about damage."""
        if self.record.imported:
            return f"remove {self.path} and import {self.record.imported.name} again"
        return "the command that made the run makes it again"


def read_record(path: Path) -> RunRecord:
    """A run.json or a published record, of this schema or of the one before. Raises StoreError with file and field."""
    return _whole(_text_of(path), path)


def _text_of(path: Path) -> str:
    try:
        text = path.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    if "\r" in text:  # a checkout on another system, or an editor there
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not signed_well(text):
        raise StoreError(f"{path} is damaged: its digest does not match its text")
    return text


def _whole(text: str, path: Path) -> RunRecord:
    try:
        value = from_json(text)
    except ValueError as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    if isinstance(value, dict):
        value.pop("digest", None)  # that of another program's layout says nothing
        if value.get("schema_version") == 1:
            sums = path.with_name("personas.json")
            if path.name == FILE and sums.is_file():
                value["per_persona"] = read_json(sums)
            value = _upgraded(value, path)
        elif path.name == FILE:
            value = with_people(value, path.parent)
    record = described(parse_record(value, path))
    _check_place(record, path)
    return record if is_signed(text) else record.without_places()  # `RunRecord.text` has taken them out


def _check_place(head: RunHead, path: Path) -> None:
    if path.name == FILE and head.id != path.parent.name:
        raise StoreError(f"{path} is the record of {head.id!r}, but its folder has another name")


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


def all_runs(root: Path, whole: bool = False, named: str = "") -> list[StoredRun]:
    """All runs of a folder, by id. One whose run.json cannot be read is listed as failed, with the reason.

    whole   read and check all that is recorded; by default scores by persona are read where they are asked for
    named   only those whose id begins so
    """
    with reading():
        return [listed(root / name, whole) for name in run_names(root) if name.startswith(named)]


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """While open nothing looks for garbage: among ten thousand records there is none, and looking takes longer."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def run_names(root: Path) -> list[str]:
    """The names of the folders that hold a run, in order; hidden ones are not looked at."""
    try:
        found = [entry for entry in os.scandir(root) if not entry.name.startswith(".")]
    except OSError:
        return []
    return sorted(entry.name for entry in found if os.path.isfile(f"{entry.path}/{FILE}"))  # noqa: PTH113  Path is slow


def listed(folder: Path, whole: bool = False) -> StoredRun:
    """The run in a folder; failed, with the reason, where its run.json cannot be read. `whole` as in `all_runs`."""
    path = folder / FILE
    try:
        text = _text_of(path)
        # Only what carries a digest is known to be as it was written, in the form that a head can be taken of.
        if whole or not is_signed(text):
            return StoredRun(folder, _whole(text, path))
        head = parse_head(text, path)
        _check_place(head, path)
    except StoreError as error:
        return StoredRun(folder, _unreadable(folder.name, str(error)))
    return StoredRun(folder, head)


def find_run(root: Path, name: str) -> StoredRun:
    """A run by id or unique beginning of one; raises StoreError with the nearest ids."""
    names = run_names(root)
    hits = [run_id for run_id in names if run_id == name] or [r for r in names if name and r.startswith(name)]
    if len(hits) != 1:
        why = f"{len(hits)} runs begin with '{name}'" if hits else f"no run '{name}' in {root}"
        raise StoreError(f"{why}; {did_you_mean(name, hits or names)}")
    return listed(root / hits[0], whole=True)


def write_run(store: Store, record: RunRecord, fill: Callable[[Path], None] | None = None) -> StoredRun:
    """Put a run in place of whatever has its id; `fill(folder)` writes the files beside run.json."""
    whole = described(record)

    def write(folder: Path) -> None:
        nonlocal whole
        if fill:
            fill(folder)
        apart = write_people(folder, whole)
        if fill or apart:
            files = [*(p for p in folder.iterdir() if p.is_file()), *folder.glob(f"*/{SEAL}")]
            whole = whole.amended(files={p.relative_to(folder).as_posix(): file_digest(p) for p in sorted(files)})
        write_atomically(folder / FILE, whole.text(apart))

    return StoredRun(store.write_folder(whole.id, write), whole)


def described(record: RunRecord) -> RunRecord:
    """The record with summaries and pooled values of its metrics, so that showing it needs no plugin any more.

    A metric of a plugin that is not there stays as it is.
    """
    sums = record.per_persona
    if sums is None or (record.unit and all(entry.summary is not None for entry in sums.metrics.values())):
        return record
    metrics = {name: _described(name, entry) for name, entry in sums.metrics.items()}
    unit = sums.metrics[record.metric].unit if record.metric in sums.metrics else ""
    return record.model_copy(update={"per_persona": sums.model_copy(update={"metrics": metrics}), "unit": unit})


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
