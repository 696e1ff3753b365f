"""Stored runs -> the leaderboard. `harness leaderboard` calls this; nothing here runs a model.

Beside this code lie what it made: README.md, and in records/ the per-persona sums behind it.
"""

from __future__ import annotations

from leaderboard.markdown import render
from leaderboard.records import publish_records, published, read_runs
from leaderboard.tables import rows_as_json

__all__ = ["publish_records", "published", "read_runs", "render", "rows_as_json"]
