"""Where the leaderboard's runs come from: stored runs, and the small records that are published with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from harness.errors import StoreError
from harness.store import Store, StoredRun, clean_json, read_json, write_atomically

LARGEST_RECORD_BYTES = 100_000


def read_runs(runs_dir: Path | None, records: Path, default_runs: Path) -> list[StoredRun]:
    """The runs of `runs_dir` alone if it is given, else the published records and the default folder's runs.

    A run that is in both is taken from its folder. Sorted by id. Raises StoreError if a given folder is not there.
    """
    if runs_dir is not None:
        if not runs_dir.is_dir():
            raise StoreError(f"there is no runs folder {runs_dir}; give the --runs-dir of an earlier `harness run`")
        return Store(runs_dir).runs()
    found = {run.id: run for run in published(records)}
    found |= {run.id: run for run in Store(default_runs).runs()}
    return [found[run_id] for run_id in sorted(found)]


def published(records: Path) -> list[StoredRun]:
    """The records in a folder, by file name. Raises StoreError for one that cannot be read."""
    return [StoredRun(path, read_json(path)) for path in sorted(records.glob("*.json"))]


def publish_records(runs: Sequence[StoredRun], records: Path) -> list[Path]:
    """Write each complete run's record with its per-persona sums to one file; returns the files.

    Raises StoreError if a record would be larger than 100 kB.
    """
    written = []
    for run in runs:
        if not run.complete:
            continue
        record = {k: v for k, v in run.record.items() if k != "per_persona"}
        value = clean_json({**record, "per_persona": run.per_persona()})
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        if len(text.encode()) > LARGEST_RECORD_BYTES:
            raise StoreError(
                f"the record of {run.id} would take {len(text.encode()):,} bytes; at most 100,000 are published"
            )
        path = records / f"{run.id}.json"
        write_atomically(path, text)
        written.append(path)
    return written
