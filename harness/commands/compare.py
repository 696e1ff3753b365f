"""`harness compare` and `harness diff`: stored runs against each other."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from harness.commands.common import RUNS, Json, RunsDir, app, example, print_json, runs_in
from harness.errors import HarnessError


@app.command("compare")
@example("compare")
def compare_command(
    names: Annotated[
        list[str] | None, typer.Argument(help="Stored methods, or ids of runs (their beginnings; several with commas).")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="The one to compare with. [default: the first name]")] = None,
    metric: Annotated[str | None, typer.Option(help="Metric to compare by. [default: the one that decides]")] = None,
    estimand: Annotated[
        Literal["micro", "macro"], typer.Option(help="Mean over replies (micro) or over personas (macro).")
    ] = "micro",
    margin: Annotated[
        float | None, typer.Option(help="Equivalence margin in points, fixed before the scores were seen.")
    ] = None,
    clusters: Annotated[bool, typer.Option("--clusters", help="Also test whether clusters differ.")] = False,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Compare stored methods with a stored baseline, jointly: differences in points, persona-clustered errors,
    simultaneous intervals, adjusted p-values, verdicts. All seeds of a method are taken together; runs that were not
    asked and scored alike are refused."""
    from harness.compare import as_json as joint_json, joint
    from harness.show import joint_text

    base, *others = [name for name in (baseline, *(names or [])) if name is not None] or [""]
    runs = runs_in(runs_dir)
    if not base:
        raise HarnessError("nothing to compare: name a baseline and stored methods, as `harness list runs` has them")
    found = joint(runs, base, others, metric=metric, estimand=estimand, margin_pts=margin, by_cluster=clusters)
    if as_json:
        print_json(joint_json(found))
    else:
        typer.echo(joint_text(found))


@app.command("diff")
@example("diff")
def diff_command(
    first: Annotated[str, typer.Argument(help="Id of a stored run, or the beginning of one.")],
    second: Annotated[str, typer.Argument(help="Another run on the same examples.")],
    metric: Annotated[str | None, typer.Option(help="Metric per reply. [default: the one that decides]")] = None,
    top: Annotated[int, typer.Option(min=0, help="Examples to show, largest difference first.")] = 10,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Show where two stored runs differ most, example by example."""
    import dataclasses

    from harness.compare import diff
    from harness.runs import find_run
    from harness.show import diff_text

    runs_in(runs_dir)
    found = diff(find_run(runs_dir, first), find_run(runs_dir, second), metric)
    if as_json:
        print_json({**dataclasses.asdict(found), "examples": [dataclasses.asdict(x) for x in found.examples[:top]]})
    else:
        typer.echo(diff_text(found, top))
