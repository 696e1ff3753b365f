"""Folders and JSON on disk: atomic, resumable, content-addressed. What a run's folder holds is `harness.runs`.

    <root>/<name>/       one folder, e.g. a run
    <root>/.cache/       fitted banks, embeddings, half-done fits; tmp/: what is being written

A folder is written where no reader looks and renamed, so a reader sees all of it or nothing. No torch here.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.contract import read_file, read_json_text
from harness.errors import StoreError
from harness.store.seal import SEAL, damage, seal
from harness.store.temporary import abandoned, new_file, new_folder
from harness.text import clean_json

SECONDS_BEFORE_WORD = 2.0  # that a command waits for another in silence
_NOT_SEALED = ("embeddings", "locks", "partial", "tmp")  # they are growing, or hold nothing


def canonical_hash(value: Any) -> str:
    """SHA-256 (hex) of a JSON value; equal values have equal hashes whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def dump_json(value: Any, path: Path) -> None:
    """Write strict JSON with sorted keys and a final newline, atomically."""
    text = json.dumps(clean_json(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that it holds the old text or the new one, never a part. Raises StoreError."""
    try:
        with new_file(path) as part:
            part.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from error


def read_json(path: Path) -> Any:
    """Read a JSON file; raises StoreError naming it."""
    try:
        return read_json_text(read_file(path).decode())
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}") from error


class Store:
    """A folder of folders with a cache beside them. Creating a Store touches nothing.

    note   takes a line for the user, where something stored is damaged
    """

    def __init__(self, root: Path, note: Callable[[str], None] | None = None) -> None:
        self.root = root
        self.cache = root / ".cache"
        self._note = note or functools.partial(print, file=sys.stderr)
        self._noted: set[str] = set()

    def write_folder(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Make the folder `<root>/<name>` with `fill(temporary folder)` and put it in place of whatever was there."""
        return self._write(self.root / name, fill)

    def cached(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder `.cache/<kind>/<key>`, made once, sealed, and made again where it is damaged.

        A second process waits for the first.
        """
        if found := self.find(kind, key):
            return found
        folder = self.cache / kind / key
        with self.lock(f"{kind}-{key}"):
            if not folder.is_dir() or damage(folder):

                def fill(part: Path) -> None:
                    make(part)
                    seal(part)

                self._write(folder, fill)
        return folder

    def find(self, kind: str, key: str) -> Path | None:
        """The folder that `cached` made under this key, or None where there is none, or a damaged one."""
        folder = self.cache / kind / key
        if not self._sound(folder):
            return None
        with contextlib.suppress(OSError):  # `harness runs gc` asks when it was used
            os.utime(folder / SEAL)
        return folder

    def cached_folders(self) -> list[Path]:
        """All folders that `cached` made, whole or damaged."""
        kinds = (kind for kind in self.cache.glob("*") if kind.name not in _NOT_SEALED and kind.is_dir())
        return sorted(folder for kind in kinds for folder in kind.iterdir() if folder.is_dir())

    def _sound(self, folder: Path) -> bool:
        """Whether a cached folder is there as it was made; damage is said."""
        if not folder.is_dir():
            return False
        if fault := damage(folder):
            self.note(f"{fault}; it is made again")
        return not fault

    def note(self, line: str) -> None:
        """Say a line to the user, once."""
        if line not in self._noted:
            self._noted.add(line)
            self._note(line)

    def partial(self, key: str) -> Path:
        """Where an unfinished fit keeps its checkpoint."""
        return self.cache / "partial" / key

    def clear_abandoned(self) -> None:
        """Remove what killed writers left half written: for commands that may find all stored, and write nothing."""
        abandoned(self.cache / "tmp", remove=True)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock between processes; the user is told of a wait. Raises StoreError where the folder cannot be
        written."""
        folder = self.cache / "locks"
        with contextlib.ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(holding(folder / f"{name}.lock", self.note))
            except OSError as error:
                raise StoreError(
                    f"cannot write to {folder}: {error.strerror or error}; choose another --runs-dir"
                ) from error
            yield

    def _write(self, folder: Path, fill: Callable[[Path], None]) -> Path:
        try:
            with new_folder(folder, self.cache / "tmp") as part:
                fill(part)
        except OSError as error:
            raise StoreError(
                f"cannot write {folder}: {error.strerror or error}; free some space or choose another --runs-dir"
            ) from error
        return folder


@contextlib.contextmanager
def holding(path: Path, note: Callable[[str], None]) -> Iterator[None]:
    """A lock between processes; `note` gets a line where another process holds it for more than a moment."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=SECONDS_BEFORE_WORD)
    except Timeout:
        note(f"waiting for another command, which holds {path}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def copy_sealed(source: Path, target: Path) -> str:
    """Copy a folder, so that an edit of the copy reaches nothing else, and seal it; returns the seal's digest."""
    shutil.copytree(source, target)
    return seal(target)


def size_bytes(folder: Path) -> int:
    """Of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
