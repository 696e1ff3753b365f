"""A whole store examined, mended and cleared: `harness runs check`, `rm`, `gc`. Reading single runs is `stored`.

What is cached is removed where it is damaged: the command that needs it makes it again. So it does with a damaged run.
Of a file of vectors the damaged ones are removed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StoreError
from harness.runs.stored import all_runs, find_run
from harness.scoring import WIDTH, VectorStore, vectors_damage
from harness.store import SEAL, Store, abandoned, damage, growing_damage, remove_growing
from harness.training import checkpoint_damage

DAY_SECONDS = 86_400
_AGAIN = "the command that needs it makes it again"


@dataclass(frozen=True)
class Fault:
    """Something in a store that is not as it should be.

    what    one line with the path;  mending: what a user does about it, or what --repair does
    repair  does it; None: nothing can be done here
    """

    what: str
    mending: str
    repair: Callable[[], None] | None = None


def faults(store: Store) -> Iterator[Fault]:
    """All that is damaged or left over in a store, found one after the other."""
    for run in all_runs(store.root, whole=True):
        if not run.record.created:  # its record cannot be read
            yield Fault(str(run.record.error), f"{_AGAIN}; or remove it with `harness runs rm {run.id}`")
        elif fault := run.damage():
            yield Fault(fault, run.mend)
    for path, fault in _cached_faults(store):
        if fault:
            yield Fault(fault, f"remove it; {_AGAIN}", lambda at=path: _remove(at))
    for path in sorted((store.cache / "embeddings").glob("*.vectors")):
        if fault := vectors_damage(path, WIDTH):
            yield Fault(fault, f"remove these; {_AGAIN}", lambda at=path: _remove_vectors(at))
    for path in sorted((store.root / "tuning").glob("*.journal")):
        if fault := growing_damage(path):
            yield Fault(fault, f"remove it; {_AGAIN}", lambda at=path: remove_growing(at))
    for path in leftovers(store):
        yield Fault(f"{path} was left by a process that is gone", "remove it", lambda at=path: _remove(at))


def _cached_faults(store: Store) -> Iterator[tuple[Path, str]]:
    """(what to remove, what is wrong) for each thing in the cache; nothing is wrong with most."""
    for folder in store.cached_folders():
        yield folder, damage(folder)
    for path in sorted((store.cache / "partial").rglob("state")):
        yield path, checkpoint_damage(path)


def leftovers(store: Store) -> list[Path]:
    """Folders that no living process is writing; also those of earlier harnesses, which wrote beside the runs."""
    old = [path for path in store.root.glob(".*") if path.suffix in (".part", ".old") and path.is_dir()]
    return [*sorted(old), *abandoned(store.cache / "tmp")]


def remove_runs(store: Store, names: Sequence[str]) -> list[Path]:
    """Remove runs, by id or unique beginnings; returns their folders.

    Raises StoreError, and removes nothing, where one of them is none.
    """
    folders = [find_run(store.root, name).path for name in dict.fromkeys(names)]
    for folder in folders:
        _remove(folder)
    return folders


def unused(store: Store, days: float) -> list[Path]:
    """What can go so that space is free: what is cached and was not used for so many days, and leftovers."""
    before = time.time() - days * DAY_SECONDS
    used = {folder: folder / SEAL if (folder / SEAL).is_file() else folder for folder in store.cached_folders()}
    sealed = [folder for folder, seen in used.items() if seen.stat().st_mtime < before]
    partial = [path for path in sorted((store.cache / "partial").glob("*")) if path.stat().st_mtime < before]
    return [*sealed, *partial, *leftovers(store)]


def remove_all(folders: Sequence[Path]) -> None:
    """Remove folders. Raises StoreError."""
    for folder in folders:
        _remove(folder)


def _remove_vectors(path: Path) -> None:
    """Those that are not as they were written; the whole file where it cannot be written again, as on a full disk."""
    try:
        VectorStore(path, WIDTH).mend()
    except OSError:
        _remove(path)


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # of what was being written
    except OSError as error:
        raise StoreError(f"cannot remove {path}: {error.strerror or error}") from error
