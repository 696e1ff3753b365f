"""Where the leaderboard's runs come from: stored runs, and the small records that are published with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.errors import StoreError
from harness.runs import StoredRun, all_runs, published_run
from harness.store import write_atomically

LARGEST_RECORD_BYTES = 100_000


def read_runs(runs_dir: Path | None, records: Path, default_runs: Path) -> list[StoredRun]:
    """The runs of `runs_dir` alone if it is given, else the published records and the default folder's runs.

    A run that is in both is taken from its folder. Sorted by id. Of places on this machine they name none.
    Raises StoreError if a given folder is not there.
    """
    if runs_dir is not None:
        if not runs_dir.is_dir():
            raise StoreError(f"there is no runs folder {runs_dir}; give the --runs-dir of an earlier `harness run`")
        return all_runs(runs_dir, whole=True)
    found = {run.id: run for run in published(records)}
    found |= {run.id: run for run in all_runs(default_runs, whole=True)}
    return [found[run_id] for run_id in sorted(found)]


def published(records: Path) -> list[StoredRun]:
    """The records in a folder, by file name. One that cannot be read is listed as failed, with the reason."""
    return [published_run(path) for path in sorted(records.glob("*.json"))]


def publish_records(
    runs: Sequence[StoredRun], records: Path, note: Callable[[str], None] = lambda text: None
) -> list[Path]:
    """Write each complete run's record to one file of its own; returns the files, and notes why others are left out.

    A record is left out that would be larger than 100 kB, or whose file some disks could not tell from another's.
    """
    written: dict[str, Path] = {}
    for run in runs:
        if not run.complete:
            continue
        text = run.record.text()
        name = run.id.casefold()
        if name in written:
            note(f"{run.id} is not published: its id differs from {written[name].stem} only in case")
        elif (size := len(text.encode())) > LARGEST_RECORD_BYTES:
            note(f"{run.id} is not published: its record would take {size:,} bytes, and 100,000 are allowed")
        else:
            written[name] = records / f"{run.id}.json"
            write_atomically(written[name], text)
    return list(written.values())
