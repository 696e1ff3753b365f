"""Texts beside each other where the terminal has room for them, else one under the other."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.show.layout import terminal_columns
from harness.text import one_line, terminal

ROOM = 80  # columns of the terminal that two texts beside each other take at least
GAP = 3  # between two columns


def side_by_side(names: Sequence[str], texts: Sequence[str]) -> str:
    """Named texts, of any number of lines, with nothing in them that a terminal obeys. A single one has no name.

    On a terminal that is wide enough they are columns. Elsewhere a line begins with the name, and further lines are
    indented.
    """
    names, texts = [one_line(name) for name in names], [terminal(text) for text in texts]
    if len(texts) == 1:
        return texts[0]
    room = terminal_columns()
    if room is None or room < ROOM:
        lines = [f"{name}: {text}".replace("\n", "\n  ") for name, text in zip(names, texts, strict=True)]
        return "\n".join(lines)
    return _columns(names, texts, room)


def _columns(names: Sequence[str], texts: Sequence[str], room: int) -> str:
    width = (room - GAP * (len(texts) - 1)) // len(texts)
    grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    for _ in texts:
        grid.add_column(width=width, overflow="fold")
    grid.add_row(*map(Text, names))
    grid.add_row(*(Text("-" * width) for _ in texts))
    grid.add_row(*map(Text, texts))
    drawn = io.StringIO()
    Console(file=drawn, width=room, color_system=None, legacy_windows=False, force_terminal=False).print(grid)
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())
