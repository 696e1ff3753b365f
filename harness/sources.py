"""Hashes of the harness's own files: a cached result is only good for the code that made it."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

_HERE = Path(__file__).parent
FIT_SOURCES = (
    *("adapters/*.py", "fits/*.py"),
    *("backbone.py", "fitting.py", "parallel.py", "prompts.py", "repeatable.py", "templates.py"),
)
RUN_SOURCES = (
    *FIT_SOURCES,
    *("metrics/*.py", "replies/*.py"),
    *("clusters.py", "evaluation.py", "fitted.py", "scoring.py", "study.py"),
)


@functools.cache
def source_hash(patterns: tuple[str, ...]) -> str:
    """SHA-256 (hex) over the names and bytes of the files in the package that match."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in _HERE.glob(pattern)}):
        digest.update(path.relative_to(_HERE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
