"""The leaderboard as Python gets it: sections, rows as a data frame, a notebook's view, a forest plot of a section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.compare import Joint
from harness.errors import HarnessError
from harness.show import as_html, frame, interval, joint_figure, number, p_value

from .figures import compared_lines
from .markdown import render
from .rows import Board, Line
from .tables import COLUMNS, flat, rows_as_json
from .titles import titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Leaderboard:
    """Sections of comparable runs, each ranked by the metric that decides."""

    def __init__(self, board: Board) -> None:
        self.board = board

    @property
    def sections(self) -> tuple[str, ...]:
        """Their titles, in the order of the page."""
        return tuple(titles(self.board.groups))

    def to_pandas(self) -> DataFrame:
        """One row for each row of every table, under the columns of the CSV; `group` counts sections from 1."""
        return frame([{name: row.get(name) for name in COLUMNS} for row in flat(self.board)])

    def as_dicts(self) -> list[dict[str, Any]]:
        """What --json prints."""
        return rows_as_json(self.board)

    def plot(self, section: int = 1) -> Figure:
        """The forest plot of a section, counted from 1. Raises HarnessError where there is nothing to draw."""
        if not 1 <= section <= len(self.board.groups):
            raise HarnessError(f"there is no section {section}; the leaderboard has {len(self.board.groups)}")
        group = self.board.groups[section - 1]
        base = next((line for line in group.lines if line.is_baseline), None)
        compared = compared_lines(group)
        if base is None or not compared:
            raise HarnessError(f"section {section} has no method that is compared with a baseline")
        rows = tuple(line.comparison for line in compared if line.comparison)
        families = tuple(line.family for line in compared)
        return joint_figure(Joint(group.metric, rows[0].estimand, base.family, base.row, families, rows, (), {}))

    def __str__(self) -> str:
        return render(self.board)

    def __repr__(self) -> str:
        return f"<Leaderboard: {self.board.n_runs} runs, {len(self.board.groups)} sections>"

    def _repr_html_(self) -> str:
        parts = zip(self.sections, self.board.groups, strict=True)
        return as_html([block for title, group in parts for block in (title, [_cells(line) for line in group.lines])])


def _cells(line: Line) -> dict[str, str]:
    c = line.comparison
    return {
        "method": line.name,
        line.family.first.record.metric: number(line.row.score_micro_pts),
        "delta": number(c.delta_pts, sign=True) if c else "",
        "simultaneous CI": interval(c.sim_ci_pts) if c else "",
        "p adj.": p_value(c.p_adj) if c else "",
        "verdict": line.words,
    }
