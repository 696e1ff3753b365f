"""`harness leaderboard`, `list` and `show`: what the stored runs say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.commands.common import RUNS, Json, Plugins, RunsDir, app, example, print_json, runs_in
from harness.errors import HarnessError, did_you_mean
from harness.reports import printing


@app.command("leaderboard")
@example("leaderboard")
def leaderboard_command(
    runs_dir: Annotated[
        Path | None, typer.Option(help="Only these stored runs. [default: runs, and the published records]")
    ] = None,
    output: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path("leaderboard/README.md"),
    publish: Annotated[
        bool, typer.Option("--publish", help="Also keep the runs' records beside the output, in records/.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Regenerate the leaderboard in markdown from the stored runs."""
    from leaderboard import publish_records, published, read_runs, render, rows_as_json

    runs = read_runs(runs_dir, output.parent / "records", RUNS)
    if publish:
        publish_records(runs, output.parent / "records")
        runs = published(output.parent / "records")  # what a fresh clone will have, so that it makes the same bytes
    text = render(runs)
    from harness.store import write_atomically

    write_atomically(output, text)
    if as_json:
        print_json(rows_as_json(runs))
    else:
        complete = sum(run.complete for run in runs)
        typer.echo(
            f"{output}: {complete} complete runs" + (f", {len(runs) - complete} not" if len(runs) > complete else "")
        )


@app.command("list")
@example("list")
def list_command(
    what: Annotated[str, typer.Argument(help="methods, benchmarks, backbones or runs.")] = "methods",
    plugin: Plugins = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """List methods, benchmarks, backbones or runs, with where each comes from."""
    rows = _listing(what, plugin or [], runs_dir)
    if as_json:
        print_json(rows)
    else:
        typer.echo(printing.table(rows) if rows else f"no {what}")


def _listing(what: str, files: list[Path], runs_dir: Path) -> list[dict[str, Any]]:
    import dataclasses

    match what:
        case "methods" | "benchmarks":
            from harness.plugins import list_plugins

            return [dataclasses.asdict(x) for x in list_plugins("method" if what == "methods" else "benchmark", files)]
        case "backbones":
            from harness.backbone import EMBEDDED_FOLDER, embedded_names

            return [{"name": name, "folder": str(EMBEDDED_FOLDER / name)} for name in embedded_names()]
        case "runs":
            from harness.store import Store

            return [printing.run_line(run) for run in Store(runs_dir).runs()]
    raise HarnessError(f"cannot list '{what}'; {did_you_mean(what, ['methods', 'benchmarks', 'backbones', 'runs'])}")


@app.command("show")
@example("show")
def show_command(
    run: Annotated[str, typer.Argument(help="Id of a stored run, or the beginning of one.")],
    runs_dir: RunsDir = RUNS,
    metric: Annotated[str | None, typer.Option(help="Metric per reply. [default: the one that decides]")] = None,
    top: Annotated[int, typer.Option(min=0, help="Personas to show at each end.")] = 3,
    samples: Annotated[int, typer.Option(min=0, help="Replies to show.")] = 5,
    as_json: Json = False,
) -> None:
    """Show a stored run: scores, cost, flags, clusters, best and worst personas, sample replies."""
    import dataclasses

    from harness.reports.persona_view import samples as sampled
    from harness.reports.persona_view import view
    from harness.reports.stored_text import run_text
    from harness.store import Store

    runs_in(runs_dir)  # a missing folder is said to be missing, not empty
    stored = Store(runs_dir).find(run)
    seen = view(stored, metric) if stored.complete else None
    replies = sampled(stored, samples, seen.metric) if seen else []
    if as_json:
        print_json({**stored.record, "view": dataclasses.asdict(seen) if seen else None, "samples": replies})
    else:
        typer.echo(run_text(stored, seen, replies, top))
