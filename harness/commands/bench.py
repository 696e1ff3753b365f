"""`harness bench`: measurements of the harness itself. What is measured lives beside what it measures, not here."""

from __future__ import annotations

from typing import Annotated

import typer

from harness import show
from harness.commands.common import Json, Quiet, app, example, print_json, progress

bench_app = typer.Typer(
    no_args_is_help=True,
    help="Measure the harness itself: its statistics, and its speed beside other ways.",
    rich_markup_mode=None,
)
app.add_typer(bench_app, name="bench")


@bench_app.command("statistics")
@example("bench-statistics")
def bench_statistics_command(
    experiments: Annotated[int, typer.Option(min=100, help="Simulated experiments of each kind.")] = 2_000,
    flips: Annotated[int, typer.Option(min=199, help="Sign flips of each test.")] = 9_999,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as it stands in docs/statistics.md.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check the statistics by simulation: error rates and coverage against their targets, a minute or two.

    Exit code 2: a target is missed.
    """
    from harness.statistics import run_calibration

    with progress(quiet).task("simulate experiments", total=1, unit="tests") as advance:
        rows = run_calibration(experiments, advance.to, flips=flips)
    if as_json:
        print_json(rows)
    else:
        typer.echo(show.table(rows, "github" if markdown else "simple"))
    if missed := [row["what"] for row in rows if not row["ok"]]:
        typer.echo(f"missed: {'; '.join(missed)}", err=True)
        raise typer.Exit(2)
