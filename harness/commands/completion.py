"""Values that a shell completes: names of installed plugins, ids of stored runs. No plugin's code is run, and no torch.

Names come from entry points, ids from the names of folders. Whatever goes wrong gives no completions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Complete = Callable[[Any, list[str], str], list[str]]


def _quietly(function: Callable[[Any], Iterable[str]]) -> Complete:
    """A callback of typer's that gives what `function(context)` finds and that begins as the word does."""

    def complete(ctx: Any, args: list[str], incomplete: str) -> list[str]:
        try:
            return sorted({name for name in function(ctx) if name and name.startswith(incomplete)})
        except Exception:  # a shell that waits for completions shows no errors
            return []

    return complete


def _points(kind: Any, ctx: Any) -> list[str]:
    """Installed plugins of a kind, and the loose files that the line names."""
    from harness.contract import points_of

    loose = [Path(file).stem for file in ctx.params.get("plugin") or []]
    return [*(point.name for point in points_of(kind)), *loose]


def _run_ids(ctx: Any) -> list[str]:
    from harness.commands.common import RUNS
    from harness.runs import run_names

    return run_names(Path(ctx.params.get("runs_dir") or RUNS))


@_quietly
def methods(ctx: Any) -> list[str]:
    return _points("method", ctx)


@_quietly
def benchmarks(ctx: Any) -> list[str]:
    return _points("benchmark", ctx)


@_quietly
def backbones(ctx: Any) -> list[str]:
    from harness.model import catalogue, embedded_names

    return [*embedded_names(), *catalogue()]


@_quietly
def described(ctx: Any) -> list[str]:
    from harness.contract import CORE_METRICS

    return [*_points("method", ctx), *_points("benchmark", ctx), *CORE_METRICS]


@_quietly
def run_ids(ctx: Any) -> list[str]:
    return _run_ids(ctx)


@_quietly
def stored(ctx: Any) -> list[str]:
    """Ids of runs, and the beginnings of ids that name methods."""
    ids = _run_ids(ctx)
    return [*ids, *(name.rpartition("-")[0] for name in ids)]


@_quietly
def trackers(ctx: Any) -> list[str]:
    from harness.runs import TRACKERS

    return list(TRACKERS)
