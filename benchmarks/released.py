"""Original releases from their public sources: fetched once, checked by digest, kept beside the fetched backbones.

The data themselves are never part of this project.
"""

from __future__ import annotations

import hashlib
import io
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness import DataError
from harness.model import cache_folder
from harness.store import new_folder

LARGEST = 500_000_000  # bytes of one download, and of what is unpacked from it
SECONDS = 60


@dataclass(frozen=True, slots=True)
class Release:
    """Where a data set can be fetched. folder: the part of a zip file that is kept, below its first folder."""

    name: str
    url: str
    folder: str = ""


def located(data: str, release: Release, sha256: str) -> str:
    """The path of a data set: the one that is given, or that of the fetched release.

    sha256   of the file that is fetched; empty: the first download tells its own, and later ones must have the same
    Raises DataError where it cannot be fetched, or is not what it should be.
    """
    if data:
        return data
    folder = cache_folder().parent / "data" / release.name
    content = folder / "content"
    noted = folder / "sha256.txt"
    told = noted.read_text("utf-8").strip() if noted.is_file() else ""
    if content.is_dir() and told and (not sha256 or told == sha256):
        return str(content)
    raw = _fetched(release)
    digest = hashlib.sha256(raw).hexdigest()
    if (wanted := sha256 or told) and digest != wanted:
        trust = "" if sha256 else f"; if you trust the new file, give its digest: --set sha256={digest}"
        raise DataError(f"{release.url} has the SHA-256 {digest}, not {wanted}; nothing was kept{trust}")
    folder.mkdir(parents=True, exist_ok=True)
    noted.write_text(digest + "\n", encoding="utf-8")
    with new_folder(content) as part:  # whole, or not there
        _unpack(raw, release, part)
    return str(content)


def _fetched(release: Release) -> bytes:
    try:
        with urllib.request.urlopen(release.url, timeout=SECONDS) as answer:
            raw = answer.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{release.name} cannot be fetched from {release.url} ({error}); fetch it elsewhere and give its folder: "
            "--set data=DIR"
        ) from error
    if len(raw) > LARGEST:
        raise DataError(f"{release.url} is larger than {LARGEST // 1_000_000} MB; nothing was kept")
    return raw


def _unpack(raw: bytes, release: Release, content: Path) -> None:
    """Write the file, or of a zip file what lies in the release's folder; names stay inside `content`."""
    if not zipfile.is_zipfile(io.BytesIO(raw)):
        (content / PurePosixPath(release.url).name).write_bytes(raw)
        return
    try:
        _unpack_zip(raw, release, content)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{release.url} is a damaged zip file ({error}); nothing was kept") from error


def _unpack_zip(raw: bytes, release: Release, content: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
            raise DataError(f"{release.url} unpacks to more than {LARGEST // 1_000_000} MB; nothing was kept")
        for entry in archive.infolist():
            inner = PurePosixPath(entry.filename)
            wanted = not release.folder or release.folder in inner.parts
            if not entry.is_dir() and wanted and inner.name not in ("", ".", ".."):
                (content / inner.name).write_bytes(archive.read(entry))
