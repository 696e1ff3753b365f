"""A line of each stored run, from an index where the run is as it was: ten thousand records need not be read again.

The index is `<runs>/.cache/lines.json`. To lose it loses nothing, and one that is damaged is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.runs.stored import FILE, StoredRun, listed, reading, run_names
from harness.store import is_signed, signed, signed_well, source_hash, write_atomically

INDEX = Path(".cache") / "lines.json"
WORTH_AN_INDEX = 200  # new lines; fewer are read again in less time than the file takes
NEVER: list[int] = []  # the stamp of no file
Line = dict[str, Any]


def lines_of(root: Path, line: Callable[[StoredRun], Line]) -> list[Line]:
    """`line(run)` of every run of a folder, by id; it must be JSON and follow from what run.json says.

    A line of the index is taken where run.json has the size, the time of change and the number of a file that it had.
    One that is not complete is looked at each time. The index is made again when a source that makes lines has changed.
    """
    known = _read(root / INDEX, line)
    kept: dict[str, list[Any]] = {}
    new = 0
    with reading():
        for name in run_names(root):
            stamp = _stamp(root / name / FILE)
            entry = known.get(name)
            if entry is None or entry[0] != stamp:
                run = listed(root / name)
                entry = [stamp if run.complete else NEVER, line(run)]
                new += run.complete
            kept[name] = entry
    if new >= WORTH_AN_INDEX or (known and len(known) > 2 * len(kept)):
        with contextlib.suppress(StoreError, OSError):  # a folder that cannot be written is listed as well
            _write(root / INDEX, line, kept)
    return [entry[1] for entry in kept.values()]


def _made_by(line: Callable[[StoredRun], Line]) -> str:
    """A hash of the sources that lines follow from: the function's module and all that it imports."""
    return source_hash(__name__, line.__module__)


def _stamp(path: Path) -> list[int]:
    try:
        found = os.stat(path)  # noqa: PTH116  ten thousand of them
    except OSError:
        return [0]
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _read(path: Path, line: Callable[[StoredRun], Line]) -> Mapping[str, list[Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if is_signed(text) and signed_well(text) else {}
    except (OSError, ValueError):
        return {}
    return value["lines"] if value and value.get("made_by") == _made_by(line) else {}


def _write(path: Path, line: Callable[[StoredRun], Line], lines: Mapping[str, list[Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, signed(f'{{\n"made_by": "{_made_by(line)}",\n"lines": {json.dumps(lines)}\n}}\n'))
