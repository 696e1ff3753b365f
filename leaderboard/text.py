"""Names in little room: how wide they are, and cut to fit. Text is made harmless by `harness.text`."""

from __future__ import annotations

import unicodedata

from harness.text import one_line


def short(text: object, most: int = 40) -> str:
    """The text on one line of at most so many columns; a wide character counts as two."""
    whole = one_line(text)
    if columns(whole) <= most:
        return whole
    kept = ""
    for c in whole:
        if columns(kept + c) > most - 1:
            break
        kept += c
    return kept.rstrip() + "…"


def columns(text: str) -> int:
    """Its width in columns of a terminal."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
