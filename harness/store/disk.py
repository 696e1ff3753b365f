"""Runs and fitted adapters on disk: atomic, resumable, content-addressed.

    <runs>/<id>/run.json scores.jsonl personas.json adapters/     one run (see `harness.runner` for the fields)
    <runs>/.cache/                                                  fitted banks, embeddings, half-done fits

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.errors import StoreError, did_you_mean

SCHEMA_VERSION = 1


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
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}") from error


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies on disk. `record` is run.json; `path` its folder, or the file of a published record."""

    path: Path
    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.record.get("id", self.path.name))

    @property
    def complete(self) -> bool:
        return self.record.get("status") == "ok"

    def per_persona(self) -> Mapping[str, Any]:
        """Per-persona sums: {"personas": [...], "metrics": {name: {...}}}; see `harness.scoring.sums`."""
        if "per_persona" in self.record:
            return self.record["per_persona"]
        return read_json(self.path / "personas.json")

    def scores(self) -> Iterator[dict[str, Any]]:
        """The lines of scores.jsonl, one per example."""
        path = self.path / "scores.jsonl"
        try:
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        raise StoreError(f"{path}:{number}: not JSON: {error}") from error
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


class Store:
    """The runs folder. Creating a Store touches nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root / ".cache"

    def run(self, run_id: str) -> StoredRun | None:
        """The stored run, complete or not; None if there is none."""
        path = self.root / run_id
        return StoredRun(path, read_json(path / "run.json")) if (path / "run.json").is_file() else None

    def find(self, name: str) -> StoredRun:
        """A run by id or unique beginning of one; raises StoreError with the nearest ids."""
        known = [run.id for run in self.runs()]
        hits = [run_id for run_id in known if run_id == name] or [r for r in known if name and r.startswith(name)]
        if len(hits) != 1:
            why = f"{len(hits)} runs begin with '{name}'" if hits else f"no run '{name}' in {self.root}"
            raise StoreError(f"{why}; {did_you_mean(name, hits or known)}")
        found = self.run(hits[0])
        assert found is not None
        return found

    def runs(self) -> list[StoredRun]:
        """All runs, by id. A folder whose run.json cannot be read is listed as failed with the reason."""
        found = []
        for path in sorted(self.root.glob("*/run.json")):
            try:
                record = read_json(path)
                if not isinstance(record, dict):
                    raise StoreError(f"{path} holds no JSON object")
            except StoreError as error:
                record = {"id": path.parent.name, "status": "failed", "error": str(error)}
            found.append(StoredRun(path.parent, record))
        return found

    def write_run(self, run_id: str, fill: Callable[[Path], None]) -> Path:
        """Make the run's folder with `fill(temporary folder)` and put it in place of whatever was there."""
        return self._write_folder(self.root / run_id, fill)

    def cached(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder `.cache/<kind>/<key>`, made once; a second process waits for the first."""
        folder = self.cache / kind / key
        if folder.is_dir():
            return folder
        with self.lock(f"{kind}-{key}"):
            if not folder.is_dir():
                self._write_folder(folder, make)
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

    def _write_folder(self, folder: Path, fill: Callable[[Path], None]) -> Path:
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
