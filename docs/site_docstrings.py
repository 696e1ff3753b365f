"""For mkdocstrings: lists of arguments and fields in a docstring, which are aligned text, become lists of markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ENTRY = re.compile(r"^(?P<indent> *)(?P<names>[A-Za-z_]\w*(?:, [A-Za-z_]\w*)*) {2,}(?P<text>\S.*)$")
_LABEL = re.compile(r"^(Arguments|Returns|Raises)$")


class Fields(griffe.Extension):
    """Changes every docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """A docstring with each `name  what it is` as an item of a list."""
    made: list[str] = []
    entry = -1  # where the text of the entry begins; -1: none is open
    for line in text.splitlines():
        width = len(line) - len(line.lstrip())
        if found := _ENTRY.match(line):
            if entry < 0 and made and made[-1].strip():
                made.append("")
            made.append(f"- `{found['names']}`: {found['text']}")
            entry = len(found["indent"]) + 1
        elif entry > 0 and line.strip() and width > entry:
            made[-1] += f" {line.strip()}"
        else:
            if entry > 0 and line.strip():
                made.append("")
            entry = -1
            made.append(f"**{line.strip()}**\n" if _LABEL.match(line.strip()) else line.lstrip() if width else line)
    return "\n".join(made)
