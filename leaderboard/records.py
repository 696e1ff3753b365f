"""Where the leaderboard's runs come from: stored runs, and the small records that are published with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import StoreError
from harness.runs import StoredRun, all_runs, read_record
from harness.store import write_atomically

LARGEST_RECORD_BYTES = 100_000


def read_runs(runs_dir: Path | None, records: Path, default_runs: Path) -> list[StoredRun]:
    """The runs of `runs_dir` alone if it is given, else the published records and the default folder's runs.

    A run that is in both is taken from its folder. Sorted by id. Raises StoreError if a given folder is not there.
    """
    if runs_dir is not None:
        if not runs_dir.is_dir():
            raise StoreError(f"there is no runs folder {runs_dir}; give the --runs-dir of an earlier `harness run`")
        return all_runs(runs_dir, whole=True)
    found = {run.id: run for run in published(records)}
    found |= {run.id: run for run in all_runs(default_runs, whole=True)}
    return [found[run_id] for run_id in sorted(found)]


def published(records: Path) -> list[StoredRun]:
    """The records in a folder, by file name. Raises StoreError for one that cannot be read."""
    return [StoredRun(path, read_record(path)) for path in sorted(records.glob("*.json"))]


def publish_records(runs: Sequence[StoredRun], records: Path) -> list[Path]:
    """Write each complete run's record to one file; returns the files.

    Raises StoreError if a record would be larger than 100 kB.
    """
    written = []
    for run in runs:
        if not run.complete:
            continue
        text = run.record.text()
        if len(text.encode()) > LARGEST_RECORD_BYTES:
            raise StoreError(
                f"the record of {run.id} would take {len(text.encode()):,} bytes; at most 100,000 are published"
            )
        path = records / f"{run.id}.json"
        write_atomically(path, text)
        written.append(path)
    return written
