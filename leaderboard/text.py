"""Text from data and plugins, made harmless: for all outputs, for markdown, for XML. HTML is the page's own script's.

A persona's id, a method's name, a reply, a verdict: all of it may be hostile.
"""

from __future__ import annotations

import re
import unicodedata

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$])")
# Controls but tab and newline, half surrogates and two that XML refuses; and what turns the direction of text, which
# makes it read as something else and is no part of any name.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: object) -> str:
    """The text with nothing that XML or a terminal cannot hold: controls but tab and newline, half surrogates."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", str(text))


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
