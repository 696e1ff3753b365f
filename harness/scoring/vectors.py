"""A small store of vectors on disk: one file, shared by processes, safe against kills and damage.

It is a cache: whatever goes wrong with the file costs time, never a result. No model and no text in here. The file is
a row for each vector, one after the other: 16 bytes that name it, the numbers, a digest of both. Rows are only added.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from harness.store import lock_file, new_file

_NAME, _DIGEST = 16, 8  # bytes


class VectorStore:
    """Vectors by key.

    The file is open for one read or write, so forks and threads share nothing. Rows that are not as they were written
    are taken out and said once; a file that cannot be used at all (read-only, full disk) is said once and left alone.

    Args:
        path: the file; its folder is made when needed.
        width: length of every vector.
        note: takes a line for the user; by default it is a warning.
    """

    def __init__(self, path: Path, width: int, note: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._note = note or warnings.warn
        self.row_bytes = _NAME + 4 * width + _DIGEST
        self._usable = True
        self._places: dict[bytes, int] = {}  # name -> where its newest row begins
        self._known = 0  # bytes of the file whose rows are in _places

    def read(self, keys: Iterable[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that are there and sound; keys without one are left out."""
        wanted = {_name(key): key for key in keys}
        found: dict[bytes, NDArray[np.float32]] = {}
        if not self._usable or not self.path.is_file():
            return found
        try:
            self._learn()
            with self.path.open("rb") as file:
                for name, key in wanted.items():
                    if (place := self._places.get(name)) is None:
                        continue
                    file.seek(place)
                    row = file.read(self.row_bytes)
                    if _is_whole(row) and row.startswith(name):
                        found[key] = np.frombuffer(row[_NAME:-_DIGEST], dtype="<f4").astype(np.float32)
        except OSError as error:
            self._give_up(error)
        return found

    def write(self, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Add vectors; what a key held before is replaced."""
        if not vectors or not self._usable:
            return
        rows = b"".join(
            _sealed(_name(key) + np.ascontiguousarray(vector, dtype="<f4").tobytes()) for key, vector in vectors.items()
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                self._lock_whole(file)
                file.write(rows)
        except OSError as error:
            self._give_up(error)

    def mend(self) -> None:
        """Take out the rows, and the part of a row, that are not as they were written. Raises OSError."""
        with self.path.open("ab") as file:
            self._lock_whole(file)
        self._leave_out_damage()

    def _lock_whole(self, file: BinaryIO) -> None:
        """Wait until no other process writes, and cut off what a killed one began."""
        lock_file(file)
        size = os.fstat(file.fileno()).st_size
        file.truncate(size - size % self.row_bytes)

    def _learn(self) -> None:
        """Look up what has been added to the file since it was last looked at."""
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size // self.row_bytes * self.row_bytes
            if size < self._known:  # it was begun anew
                self._places, self._known = {}, 0
            file.seek(self._known)
            added, bad = file.read(size - self._known), 0
        for start in range(0, len(added), self.row_bytes):
            row = added[start : start + self.row_bytes]
            if _is_whole(row):
                self._places[row[:_NAME]] = self._known + start
            else:
                bad += 1
        self._known = size
        if bad:
            self._note(f"the cache {self.path} is damaged; {bad} of its vectors are made again")
            self._leave_out_damage()
            self._learn()

    def _leave_out_damage(self) -> None:
        """Write the file again without the rows that are not as they were written, so that they are said once."""
        raw = self.path.read_bytes()
        rows = (raw[start : start + self.row_bytes] for start in range(0, len(raw), self.row_bytes))
        with new_file(self.path) as part:
            part.write_bytes(b"".join(filter(_is_whole, rows)))
        self._places, self._known = {}, 0

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        self._note(f"the cache {self.path} is not used: {error}")


def vectors_damage(path: Path, width: int) -> str:
    """What is wrong with a store's file, in one line; empty if nothing is."""
    row_bytes = _NAME + 4 * width + _DIGEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        return f"{path} cannot be read ({error.strerror or error})"
    bad = sum(not _is_whole(raw[start : start + row_bytes]) for start in range(0, len(raw), row_bytes))
    return f"{path} is damaged: {bad} of its vectors are not as they were written" if bad else ""


def _name(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=_NAME).digest()


def _sealed(row: bytes) -> bytes:
    return row + hashlib.blake2b(row, digest_size=_DIGEST).digest()


def _is_whole(row: bytes) -> bool:
    return _sealed(row[:-_DIGEST]) == row
