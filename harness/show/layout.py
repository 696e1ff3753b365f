"""Tables that fit where they are read: whole in a file or a pipe, no wider than the terminal on one."""

from __future__ import annotations

import functools
import html
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from tabulate import MIN_PADDING, tabulate

from harness.text import as_lines, one_line

NARROW = 24  # columns of the terminal that a cell of words keeps at least
TALL = 500  # rows
GAP = 2  # between two columns of a table
Cells = Sequence[Sequence[str | None]]
Block = str | Sequence[Mapping[str, Any]]  # a line, or the rows of a table


def table(rows: Sequence[Mapping[str, Any]], form: str = "simple", indent: int = 0) -> str:
    """Rows with the same keys as a table (`form` is tabulate's); columns that are empty everywhere are left out.

    A row is one line, whatever stands in its cells. Only on a terminal that is too narrow words go on below each other,
    and columns that do not fit stand in further tables under the first, with the first column again.

    indent  columns of the terminal that the caller puts before every line
    """
    keys = [key for key in rows[0] if any(row.get(key) not in (None, "") for row in rows)]
    cells = [[None if row.get(key) is None else _one_line(str(row[key])) for key in keys] for row in rows]
    head, room = [one_line(key) for key in keys], terminal_columns() if form == "simple" else None
    if room is None:
        tall = form == "simple" and len(cells) >= TALL and all((cell or "").isascii() for row in cells for cell in row)
        return _tall(head, cells) if tall else _drawn(head, cells, form)
    return "\n\n".join(_drawn(*part, form) for part in _parts(head, cells, max(room - indent, 1)))


@functools.lru_cache(maxsize=4096)
def _one_line(text: str) -> str:
    """Most cells of a long table stand in many of its rows."""
    return one_line(text)


def table_lines(rows: Sequence[Mapping[str, Any]], indent: int = 0) -> list[str]:
    """The lines of a table, each behind so many spaces."""
    return [" " * indent + line for line in table(rows, indent=indent).split("\n")]


def as_text(blocks: Sequence[Block]) -> str:
    """For a terminal or a file: an empty line follows each table."""
    lines: list[str] = []
    for block in blocks:
        lines += [block] if isinstance(block, str) else [*table_lines(block), ""]
    return as_lines(lines)


def as_html(blocks: Sequence[Block]) -> str:
    """For a notebook: tables and paragraphs, with all text escaped."""
    parts = [
        f"<p>{html.escape(one_line(block))}</p>" if isinstance(block, str) else table(block, "html")
        for block in blocks
        if block
    ]
    return "\n".join(["<div>", *parts, "</div>"])


def terminal_columns() -> int | None:
    """How wide the terminal is that stdout goes to; None where it goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _drawn(head: Sequence[str], cells: Cells, form: str) -> str:
    return tabulate(cells, headers=head, tablefmt=form, disable_numparse=True)


def _tall(head: Sequence[str], cells: Cells) -> str:
    """The same simple table of many rows of ASCII in a tenth of the time: tabulate lays out one of the widest cells."""
    widest = [max((cell or "" for cell in column), key=len) for column in zip(*cells, strict=True)]
    names, rules, _ = _drawn(head, [widest], "simple").split("\n")
    widths = [len(rule) for rule in rules.split()]
    rows = (
        (" " * GAP).join((cell or "").ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "\n".join([names, rules, *rows])


def _parts(head: list[str], cells: Cells, room: int) -> list[tuple[list[str], Cells]]:
    """The table in parts that have room, each of the first column and as many of the others as fit beside it."""
    columns = [[name, *(row[place] or "" for row in cells)] for place, name in enumerate(head)]
    widest = [
        max(map(cell_len, (name + " " * MIN_PADDING, *column))) for name, column in zip(head, columns, strict=True)
    ]
    least = [min(most, max(NARROW, _longest_word(column))) for most, column in zip(widest, columns, strict=True)]
    parts, used = [[0]], least[0]
    for place in range(1, len(head)):
        if used + GAP + least[place] > room and len(parts[-1]) > 1:
            parts.append([0])
            used = least[0]
        parts[-1].append(place)
        used += GAP + least[place]
    found = []
    for part in parts:
        spare = room - sum(least[place] + GAP for place in part) + GAP
        wide = {}
        for place in part:
            wide[place] = least[place] + min(max(spare, 0), widest[place] - least[place])
            spare -= wide[place] - least[place]
        rows = [[_wrapped(row[place], wide[place]) for place in part] for row in cells]
        found.append(([_wrapped(head[place], wide[place]) or "" for place in part], rows))
    return found


def _longest_word(column: Sequence[str]) -> int:
    return max((cell_len(word) for cell in column for word in cell.split()), default=0)


def _wrapped(cell: str | None, wide: int) -> str | None:
    if cell is None or cell_len(cell) <= wide:
        return cell
    return "\n".join(textwrap.wrap(cell, wide, break_long_words=False, break_on_hyphens=False))
