"""`harness compare`, `harness diff`: stored runs against each other; `harness power`: how many personas that takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.commands import completion, python
from harness.commands.common import RUNS, Json, RunsDir, app, check_runs_dir, example, print_json, print_whole, runs_in
from harness.errors import HarnessError

Form = Annotated[
    Literal["text", "markdown", "csv", "latex", "json"],
    typer.Option("--format", help="A table for a page, a spreadsheet or a paper; csv has full figures."),
]
Plot = Annotated[Path | None, typer.Option(help="Also draw it: a file that ends in .svg, .png or .pdf.")]


@app.command("compare")
@example("compare")
def compare_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Stored methods, or ids of runs (their beginnings; several with commas).",
            autocompletion=completion.stored,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="The one to compare with. [default: the first name]", autocompletion=completion.stored),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Metric to compare by. [default: the deciding metric]")] = None,
    estimand: Annotated[
        Literal["micro", "macro"], typer.Option(help="Mean over replies (micro) or over personas (macro).")
    ] = "micro",
    margin: Annotated[
        float | None,
        typer.Option(help="Equivalence margin in points, or in the metric's own unit; fixed before scores were seen."),
    ] = None,
    clusters: Annotated[bool, typer.Option("--clusters", help="Also test whether clusters differ.")] = False,
    form: Form = "text",
    plot: Plot = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Compare stored methods with a stored baseline, jointly: differences in points, persona-clustered errors,
    simultaneous intervals, adjusted p-values, verdicts. All seeds of a method are taken together. Runs with
    different prompts or scoring are refused."""
    from harness.show import check_picture, draw_joint, joint_table

    check_picture(plot)
    found = python.compare(
        *(names or []), baseline=baseline, metric=metric, estimand=estimand, margin=margin, clusters=clusters,
        runs_dir=runs_dir,
    )  # fmt: skip
    if plot is not None:
        draw_joint(found.joint, plot)
    if as_json or form == "json":
        print_json(found.as_dict())
    elif form == "text":
        typer.echo(str(found))
    else:
        print_whole(joint_table(found.joint, form))


@app.command("diff")
@example("diff")
def diff_command(
    first: Annotated[
        str, typer.Argument(help="Id of a stored run, or the beginning of one.", autocompletion=completion.run_ids)
    ],
    second: Annotated[str, typer.Argument(help="Another run on the same examples.", autocompletion=completion.run_ids)],
    metric: Annotated[str | None, typer.Option(help="Metric per reply. [default: the deciding metric]")] = None,
    top: Annotated[int, typer.Option(min=0, help="Examples to show, largest difference first.")] = 10,
    form: Form = "text",
    plot: Plot = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Show where two stored runs differ most, example by example."""
    import dataclasses

    from harness.compare import diff
    from harness.runs import find_run
    from harness.show import check_picture, diff_table, diff_text, draw_diff

    check_picture(plot)
    check_runs_dir(runs_dir)
    found = diff(find_run(runs_dir, first), find_run(runs_dir, second), metric)
    if plot is not None:
        draw_diff(found, plot)
    if as_json or form == "json":
        print_json({**dataclasses.asdict(found), "examples": [dataclasses.asdict(x) for x in found.examples[:top]]})
    elif form == "text":
        typer.echo(diff_text(found, top))
    else:
        print_whole(diff_table(found, top, form))


@app.command("power")
@example("power")
def power_command(
    method: Annotated[str | None, typer.Option(help="Stored method whose spread to plan by.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Stored method that it is compared with.")] = None,
    metric: Annotated[str | None, typer.Option(help="Metric. [default: the deciding metric]")] = None,
    estimand: Annotated[
        Literal["micro", "macro"], typer.Option(help="Mean over replies (micro) or over personas (macro).")
    ] = "micro",
    sd: Annotated[
        float | None,
        typer.Option(
            help="In place of runs: sd of the persona differences in points (with --reply-sd: of the true ones)."
        ),
    ] = None,
    reply_sd: Annotated[float | None, typer.Option(help="Sd of one reply's paired difference, in points.")] = None,
    personas: Annotated[int | None, typer.Option(help="Planned personas. [default: as many as the runs had]")] = None,
    replies: Annotated[
        int | None, typer.Option(min=1, help="Planned replies a persona. [default: as in the runs]")
    ] = None,
    difference: Annotated[float | None, typer.Option(help="True difference to detect, in points.")] = None,
    power: Annotated[float, typer.Option(help="Power: the probability of detecting it.")] = 0.8,
    family: Annotated[int, typer.Option(help="Methods that will be compared with the baseline at once.")] = 1,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Plan a comparison: the smallest detectable difference, or the number of personas that a difference needs."""
    import dataclasses

    from harness.compare import Spread, plan, spread_of
    from harness.show import plan_text

    if sd is not None:
        if method or baseline:
            raise HarnessError("give --sd, or --method and --baseline of stored runs, not both")
        if reply_sd is not None and not reply_sd > 0:
            raise HarnessError(f"--reply-sd must be a positive number, not {reply_sd:g}")
        if reply_sd is not None and replies is None:
            raise HarnessError("--reply-sd needs --replies: the noise of a mean depends on the number of replies")
        # Without the noise of a reply, --sd is taken to hold for the replies that are planned.
        spread, unit = Spread(sd, None if reply_sd is None else sd, reply_sd, replies), "pt"
        spread = spread.with_replies(replies) if replies and reply_sd is not None else spread
    elif reply_sd is not None:
        raise HarnessError("--reply-sd goes with --sd; for stored runs the noise of a reply is measured")
    elif method and baseline:
        spread, unit = spread_of(runs_in(runs_dir), method, baseline, metric, estimand)
        spread = spread.with_replies(replies) if replies is not None else spread
        personas = spread.personas if personas is None else personas
    else:
        raise HarnessError("give --method and --baseline of stored runs, or --sd, e.g. --sd 3 --personas 50")
    if personas is None and difference is None:
        raise HarnessError("nothing to plan: give --personas, --difference, or both")
    found = plan(spread, unit, personas=personas, difference=difference, power=power, family_size=family)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        typer.echo(plan_text(found))
