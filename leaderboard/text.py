"""Text from data and plugins, made harmless: for all outputs, for markdown, for XML. HTML is the page's own script's.

A persona's id, a method's name, a reply, a verdict: all of it may be hostile.
"""

from __future__ import annotations

import re
import unicodedata

from harness.show import clean

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$])")


def line(text: object) -> str:
    """The text on one line."""
    return clean(" ".join(str(text).split()))


def short(text: object, most: int = 40) -> str:
    """The text on one line of at most so many columns; a wide character counts as two."""
    whole = line(text)
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


def md(text: object) -> str:
    """Inert markdown: one line, no markup, no HTML, no link, not even of a bare address."""
    escaped = _MARKUP.sub(r"\\\1", line(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;")


def xml(text: object) -> str:
    """One line of text between two tags, or in an attribute."""
    return line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
