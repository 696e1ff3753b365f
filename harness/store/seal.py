"""The seal of a folder: files.json, which lists its files with their digests, and itself is known by its own digest.

A folder that is written once is sealed; whoever reads it again checks the seal. What damage leads to, the reader says.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from harness.store.temporary import new_file

SEAL = "files.json"
_FIELD, _END = "digest", "\n}\n"
_SIGNATURE = f',\n"{_FIELD}": "'


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> str:
    """Write the digests of all files below a folder into its files.json; returns that file's own digest."""
    files = {name: file_digest(folder / name) for name in _names(folder)}
    (folder / SEAL).write_text(_text(files), encoding="utf-8")
    return file_digest(folder / SEAL)


def damage(folder: Path, digest: str | None = None) -> str:
    """What is wrong with a sealed folder, in one line with the path of a file; empty if nothing is.

    digest   of its files.json, where another place knows it
    """
    path = folder / SEAL
    try:
        raw = path.read_bytes()
        files = json.loads(raw)["files"]
        if raw != _text(files).encode() or digest not in (None, hashlib.sha256(raw).hexdigest()):
            return f"{path} is damaged"
    except FileNotFoundError:
        return f"{path} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{path} is damaged"
    return next(filter(None, (file_damage(folder / name, wanted) for name, wanted in files.items())), "")


def file_damage(path: Path, digest: str) -> str:
    """What is wrong with a file of a known digest, in one line; empty if nothing is."""
    if not path.is_file():  # a pipe is not waited for
        return f"{path} is missing"
    try:
        return "" if file_digest(path) == digest else f"{path} is damaged: its digest is not the recorded one"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror or error})"


def seal_growing(path: Path) -> None:
    """Keep the digest of a file that lines are added to, as far as it goes now. Raises OSError."""
    raw = path.read_bytes()
    with new_file(_growth(path)) as part:
        part.write_text(f"{hashlib.sha256(raw).hexdigest()} {len(raw)}\n")


def growing_damage(path: Path) -> str:
    """What is wrong with such a file, in one line; empty if nothing is. Nothing is known of lines after the digest."""
    if not _growth(path).exists():
        return ""
    try:
        digest, size = _growth(path).read_text().split()
        raw = path.read_bytes()[: int(size)]
    except (OSError, ValueError):
        return f"{path} or {_growth(path).name} cannot be read"
    return "" if hashlib.sha256(raw).hexdigest() == digest and len(raw) == int(size) else f"{path} is damaged"


def remove_growing(path: Path) -> None:
    """Remove such a file and its digest. Raises OSError."""
    path.unlink(missing_ok=True)
    _growth(path).unlink(missing_ok=True)


def _growth(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def signed(lines: str) -> str:
    """A JSON object of one line a field, with the digest of these lines as its last field."""
    return f'{lines.removesuffix(_END)},\n"{_FIELD}": "{_sha256(lines)}"{_END}'


def is_signed(text: str) -> bool:
    """Whether a text carries a digest."""
    return _SIGNATURE in text[-len(_SIGNATURE) - 80 :]


def signed_well(text: str) -> bool:
    """Whether a text that `signed` made is as it was; also True for one that was never signed."""
    head, found, rest = text.rpartition(_SIGNATURE)
    return not found or rest == f'{_sha256(head + _END)}"{_END}'


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _names(folder: Path) -> list[str]:
    """All files below a folder but its own seal, as relative names with slashes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(name for path in files if (name := path.relative_to(folder).as_posix()) != SEAL)


def _text(files: dict[str, str]) -> str:
    return json.dumps({"files": files}, indent=1, sort_keys=True) + "\n"
