"""`harness import`: scores made elsewhere, as a stored run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.commands.common import DEFAULTS, RUNS, Json, RunsDir, app, example, print_json, shown
from harness.text import terminal


@app.command("import")
@example("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="CSV or JSON lines: persona,example,score or persona,n,score.")],
    method: Annotated[str, typer.Option(help="What the run's method is called.")],
    benchmark: Annotated[str, typer.Option(help="Name of the benchmark: one word.")],
    metric: Annotated[str, typer.Option(help="Metric of the scores, known or not: a mean over replies.")],
    example_set: Annotated[str, typer.Option(help="Label of the replies that were scored.")],
    unit: Annotated[
        Literal["share", "pt", "raw"] | None,
        typer.Option(help="share: 0-1; pt: 0-100; raw: not in points. [default of a known metric: share, or raw]"),
    ] = None,
    higher_is_better: Annotated[
        bool | None,
        typer.Option("--higher-is-better/--lower-is-better", help="Direction. [default: a known metric's own]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Training seed of the scores.")] = 0,
    baseline: Annotated[
        str | None, typer.Option(help=f"Method that the leaderboard compares with.{shown('baseline')}")
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Store scores that were made elsewhere as a run; it is compared with imports of the same label only.

    A line is one reply (persona, example, score) or one persona (persona, n, score: the mean of n replies).
    """
    from harness.runs import Source, import_scores, notes_on
    from harness.store import Store

    baseline = baseline or DEFAULTS.get("baseline")
    source = Source(file, method, benchmark, metric, example_set, unit, seed, baseline, higher_is_better)
    run, new = import_scores(source, Store(runs_dir))
    for note in notes_on(run):
        typer.echo(f"note: {terminal(note)}", err=True)
    if as_json:
        print_json(run.record.model_dump(mode="json"))
        return
    from harness.show import number, shown as points

    score = number(points(run.record, metric, run.record.scores[metric]))
    typer.echo(
        f"{run.id}: {run.record.n_personas} personas, {run.record.n_replies} replies, {metric} {score}"
        + ("" if new else " (was stored already)")
    )
