"""A small store of vectors on disk: one SQLite file, shared by processes, safe against kills and damage.

It is a cache: whatever goes wrong with the file costs time, never a result. No model and no text in here.
"""

from __future__ import annotations

import hashlib
import sqlite3
import warnings
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import filelock
import numpy as np
from numpy.typing import NDArray

_SELECT = 500  # keys a query; SQLite's oldest limit on parameters is 999
_WAIT_SECONDS = 30.0
_DIGEST_BYTES = 8


class VectorStore:
    """Unit vectors by key, each with a digest of both.

    A connection lives for one read or write, so forks and threads share nothing. A damaged file is put aside
    and started anew; a file that cannot be used at all (read-only, full disk) is left alone with one warning.

    Args:
        path: the SQLite file; its folder is made when needed.
        width: length of every vector.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path = path
        self.width = width
        self._usable = True

    def read(self, keys: Iterable[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that are there and sound; keys without one are left out."""
        wanted = list(keys)
        found: dict[bytes, NDArray[np.float32]] = {}
        if not self._usable or not self.path.exists():
            return found
        try:
            with closing(self._connect()) as connection:
                for start in range(0, len(wanted), _SELECT):
                    part = wanted[start : start + _SELECT]
                    marks = ",".join("?" * len(part))
                    for key, blob in connection.execute(
                        f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part
                    ):
                        vector = self._decode(key, blob)
                        if vector is not None:
                            found[bytes(key)] = vector
        except sqlite3.OperationalError as error:
            self._give_up(error)
        except sqlite3.DatabaseError:
            self._start_anew()
        return found

    def write(self, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Add vectors in one transaction; what a key held before is replaced."""
        if not vectors or not self._usable:
            return
        rows = [
            (key, _sealed(key, np.ascontiguousarray(vector, dtype="<f4").tobytes())) for key, vector in vectors.items()
        ]
        try:
            self._insert(rows)
        except sqlite3.OperationalError as error:
            self._give_up(error)
        except sqlite3.DatabaseError:
            self._start_anew()
            try:
                self._insert(rows)
            except sqlite3.DatabaseError as error:
                self._give_up(error)
        except OSError as error:
            self._give_up(error)

    def _insert(self, rows: list[tuple[bytes, bytes]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS)
        try:
            # No write-ahead log: it does not work on network file systems, where caches often live.
            connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
        except BaseException:
            connection.close()
            raise
        return connection

    def _decode(self, key: object, blob: object) -> NDArray[np.float32] | None:
        """The vector, or None where the bytes are not as they were written (a flipped bit, a foreign row)."""
        if not isinstance(key, bytes) or not isinstance(blob, bytes) or len(blob) <= 4 * self.width:
            return None
        vector = blob[: 4 * self.width]
        return np.frombuffer(vector, dtype="<f4").astype(np.float32) if blob == _sealed(key, vector) else None

    def _start_anew(self) -> None:
        """Put the damaged file aside, unless another process has done so in the meantime."""
        try:
            with filelock.FileLock(str(self.path) + ".lock", timeout=_WAIT_SECONDS):
                if self._sound():
                    return
                self.path.replace(str(self.path) + ".damaged")
                Path(str(self.path) + "-journal").unlink(missing_ok=True)
            warnings.warn(f"the cache {self.path} was damaged and is rebuilt", stacklevel=3)
        except (OSError, filelock.Timeout) as error:
            self._give_up(error)

    def _sound(self) -> bool:
        try:
            with closing(self._connect()) as connection:
                return connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
        except sqlite3.DatabaseError:
            return False

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        warnings.warn(f"the cache {self.path} is not used: {error}", stacklevel=3)


def vectors_damage(path: Path) -> str:
    """What is wrong with a store's file, in one line; empty if nothing is."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            sound = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
            rows = connection.execute("SELECT key, vector FROM vectors") if sound else []
            bad = sum(blob != _sealed(key, blob[:-_DIGEST_BYTES]) for key, blob in rows)
    except (sqlite3.Error, TypeError):
        return f"{path} is damaged"
    return "" if sound and not bad else f"{path} is damaged" + (f": {bad} of its vectors" if sound else "")


def _sealed(key: bytes, vector: bytes) -> bytes:
    return vector + hashlib.blake2b(key + vector, digest_size=_DIGEST_BYTES).digest()
