"""Stored runs -> the leaderboard. `harness leaderboard` calls this; nothing here runs a model. START HERE: `rows`.

rows (groups of comparable runs) -> markdown, tables (CSV, JSON, LaTeX), figures -> plots (SVG), page (HTML); `files`
writes them. Beside this code lies what it made: README.md, index.html, plots/, and in records/ the per-persona sums
behind it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
