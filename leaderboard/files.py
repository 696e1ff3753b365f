"""Writes the leaderboard: markdown, plots, page, each atomically; removes plots of groups that are gone."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.store import write_atomically

from . import markdown, page
from .figures import FILE_NAME, figures
from .picking import EXAMPLES
from .rows import Board


@dataclass(frozen=True)
class Places:
    """Where everything lies for a markdown file: README.md has plots/ and index.html, x.md has x_plots/ and x.html."""

    markdown: Path

    @property
    def plots(self) -> Path:
        return self.markdown.with_name("plots" if self._is_readme else f"{self.markdown.stem}_plots")

    @property
    def page(self) -> Path:
        return self.markdown.with_name("index.html" if self._is_readme else f"{self.markdown.stem}.html")

    @property
    def _is_readme(self) -> bool:
        return self.markdown.name == "README.md"


def write_board(
    board: Board, output: Path, most_examples: int = EXAMPLES, note: Callable[[str], None] = warnings.warn
) -> Places:
    """Make everything, then write it; the markdown last, so that it never links to a plot that is not there.

    note   takes a line for the user where a run's replies cannot be read, and so are not on the page
    Raises HarnessError for a name that is the page's, StoreError where a file cannot be written.
    """
    from .plots import draw  # matplotlib

    places = Places(output)
    if places.page == output:
        raise HarnessError(f"{output} would be the page's name; give the markdown's, e.g. {output.with_suffix('.md')}")
    drawn = draw(figure for group in board.groups for figure in figures(group))
    html = page.render(board, drawn, most_examples, output.name, note)
    text = markdown.render(board, places.plots.name, places.page.name)
    for name, svg in drawn.items():
        _write(places.plots / name, svg)
    _write(places.page, html)
    _write(output, text)
    _remove_stale(places.plots, set(drawn))
    return places


def _write(path: Path, text: str) -> None:
    """Leaves a file that says the same already: waiting for a busy disk can take longer than all the rest."""
    try:
        same = path.read_bytes() == text.encode()
    except OSError:
        same = False
    if not same:
        write_atomically(path, text)


def _remove_stale(folder: Path, kept: set[str]) -> None:
    """Remove plots that an earlier leaderboard made here, known by name and first line; a reader's own files stay."""
    from .svg import MARK

    for path in sorted(folder.glob("*.svg")):
        if path.name in kept or not FILE_NAME.fullmatch(path.name) or path.is_symlink():
            continue
        with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
            if file.readline().rstrip() == MARK:
                path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()  # only if nothing is left in it
