"""Stored runs -> the leaderboard. `harness leaderboard` calls this; nothing here runs a model. START HERE: `rows`.

rows (groups of comparable runs) -> markdown, tables (CSV, JSON, LaTeX), figures -> plots (SVG), page (HTML); `files`
writes them. Beside this code lies what it made: README.md, index.html, plots/, and in records/ the per-persona sums
behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.store import StoredRun
from leaderboard import markdown, tables
from leaderboard.records import publish_records, published, read_runs
from leaderboard.rows import board_of

__all__ = ["board_of", "publish_records", "published", "read_runs", "render", "rows_as_json"]


def render(runs: Sequence[StoredRun]) -> str:
    """The leaderboard of these runs in markdown."""
    return markdown.render(board_of(runs))


def rows_as_json(runs: Sequence[StoredRun]) -> list[dict[str, Any]]:
    """The leaderboard's rows as plain data."""
    return tables.rows_as_json(board_of(runs))
