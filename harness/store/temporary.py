"""Files and folders while they are being written: held by a lock of the operating system, which ends with its process.

So nobody needs to guess whether a leftover is still in use. No content and no final names here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, every name is new, and leftovers stay
    fcntl = None

_LOCK = ".lock"


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A path beside the target to write to; it takes the target's name when the block ends well, and goes otherwise.

    Writers of one file wait for each other. What a killed one left has the same name, and is written over.
    Raises OSError.
    """
    part = target.with_name(f".{target.name}.part" if fcntl else f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    with _held(part):
        try:
            yield part
            _sync(part)
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    _sync(target.parent)


@contextlib.contextmanager
def new_folder(target: Path, place: Path | None = None) -> Iterator[Path]:
    """A folder to fill; it takes the target's place when the block ends well, and goes otherwise.

    place   where it lies meanwhile, on the target's file system; no reader looks there. What no living process holds
            there is removed. None: a hidden folder beside the target
    Raises OSError.
    """
    with passing_folder(place or target.with_name(f".{target.name}.part")) as work:
        part = work / "new"
        part.mkdir()
        yield part
        for path in [*part.rglob("*"), part]:
            _sync(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.replace(work / "old")
        part.replace(target)
        _sync(target.parent)


@contextlib.contextmanager
def passing_folder(place: Path) -> Iterator[Path]:
    """A new folder at a place, which goes when the block ends, or its process. What no living process holds there is
    removed. Raises OSError.
    """
    abandoned(place, remove=True)
    work = place / uuid.uuid4().hex[:12]
    lock = work.with_name(work.name + _LOCK)
    with _held(lock):
        try:
            work.mkdir(parents=True)
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            lock.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others are at work there
                place.rmdir()


def abandoned(place: Path, remove: bool = False) -> list[Path]:
    """What no living process holds among the folders that are being written at a place; `remove`: it goes."""
    found = []
    for lock in sorted(place.glob(f"*{_LOCK}")):
        with contextlib.suppress(OSError), lock.open("r+b") as file:
            if lock_file(file, wait=False):
                found.append(lock.with_name(lock.name.removesuffix(_LOCK)))
                if remove:
                    shutil.rmtree(found[-1], ignore_errors=True)
                    lock.unlink(missing_ok=True)
    return found


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Make an empty file, and hold it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("ab")
        except FileNotFoundError:  # another writer has just removed the empty folder
            continue
        with file:
            lock_file(file)
            if _is(file, path):  # whoever held it before may have renamed or removed it
                yield
                return


def _is(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def lock_file(file: IO[bytes], wait: bool = True) -> bool:
    """Lock an open file until it is closed; False where another process holds it and nobody waits."""
    if fcntl is None:
        return wait
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _sync(path: Path) -> None:
    """Have a file's or a folder's content on the disk before something else is done."""
    if fcntl is None and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
