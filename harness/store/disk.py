"""Folders and JSON on disk: atomic, resumable, content-addressed. What a run's folder holds is `harness.runs`.

    <root>/<name>/       one folder, e.g. a run
    <root>/.cache/       fitted banks, embeddings, half-done fits

A folder is written under a temporary name and renamed, so a reader sees all of it or nothing. No torch here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.contract import read_file, read_json_text
from harness.errors import StoreError


def canonical_hash(value: Any) -> str:
    """SHA-256 (hex) of a JSON value; equal values have equal hashes whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def clean_json(value: Any) -> Any:
    """The value with NaN and infinities as null: strict JSON, readable by every tool."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): clean_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(v) for v in value]
    return value


def dump_json(value: Any, path: Path) -> None:
    """Write strict JSON with sorted keys and a final newline, atomically."""
    text = json.dumps(clean_json(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that it holds the old text or the new one, never a part. Raises StoreError."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
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
    """A folder of folders with a cache beside them. Creating a Store touches nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root / ".cache"

    def write_folder(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Make the folder `<root>/<name>` with `fill(temporary folder)` and put it in place of whatever was there."""
        return self._write(self.root / name, fill)

    def cached(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder `.cache/<kind>/<key>`, made once; a second process waits for the first."""
        folder = self.cache / kind / key
        if folder.is_dir():
            return folder
        with self.lock(f"{kind}-{key}"):
            if not folder.is_dir():
                self._write(folder, make)
        return folder

    def partial(self, key: str) -> Path:
        """Where an unfinished fit keeps its checkpoint."""
        return self.cache / "partial" / key

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock between processes. Raises StoreError where the folder cannot be written."""
        folder = self.cache / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{name}.lock")
            lock.acquire()
        except OSError as error:
            raise StoreError(
                f"cannot write to {folder}: {error.strerror or error}; choose another --runs-dir"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _write(self, folder: Path, fill: Callable[[Path], None]) -> Path:
        part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            part.mkdir(parents=True)
            fill(part)
            old = None
            if folder.exists():
                old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
                folder.replace(old)
            part.replace(folder)
            if old:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise StoreError(
                f"cannot write {folder}: {error.strerror or error}; free some space or choose another --runs-dir"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return folder


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder by hard links where the file system has them: a run's adapters cost no second copy."""

    def link(src: str, dst: str) -> None:
        try:
            os.link(src, dst)
        except OSError:
            shutil.copy2(src, dst)

    shutil.copytree(source, target, copy_function=link)
