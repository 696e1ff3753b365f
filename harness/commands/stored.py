"""`harness leaderboard`, `list` and `show`: what the stored runs say."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness import show
from harness.commands import completion, python
from harness.commands.common import (
    RUNS,
    Json,
    Plugins,
    RunsDir,
    app,
    example,
    print_json,
    print_whole,
    progress,
)
from harness.errors import HarnessError, did_you_mean

SUFFIXES = {".md": "md", ".csv": "csv", ".json": "json", ".tex": "latex"}
DISTRIBUTION = "peft-personalisation-harness"  # the harness itself
LISTED = ("methods", "benchmarks", "metrics", "adapters", "backbones", "runs")
BOARD = Path("leaderboard/README.md")


@app.command("leaderboard")
@example("leaderboard")
def leaderboard_command(
    runs_dir: Annotated[
        Path | None, typer.Option(help="Only these stored runs. [default: runs, and the published records]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write, - for stdout; its ending (.md .csv .json .tex) chooses the format if none is given. "
            "Beside README.md: plots/, index.html; beside x.md: x_plots/, x.html. "
            f"[default: {BOARD}; stdout for csv, json, latex]"
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="md (with plots and page), csv, json or latex, which are that table alone."),
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(min=0, help="Replies side by side on the page: maximum of examples per section. [default: 20]"),
    ] = None,
    publish: Annotated[
        bool,
        typer.Option(
            "--publish", help="Also keep the runs' records, with a sample of replies, in records/ beside the markdown."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Regenerate the leaderboard from the stored runs: markdown, plots and page; or one table as CSV, JSON or LaTeX."""
    import harness.leaderboard as leaderboard

    form = _format(form, output)
    to_stdout = output == Path("-") or (output is None and form != "md")
    # Records lie beside the markdown; a table written elsewhere is of the same leaderboard.
    records = (output if output and form == "md" and not to_stdout else BOARD).parent / "records"
    runs = python.runs_to_rank(runs_dir, records)
    with _kept():
        if publish:
            leaderboard.publish_records(runs, records, _note)
            leaderboard.publish_samples(runs, records, _note)
            runs = leaderboard.published(records)  # what a fresh clone will have, so that it makes the same bytes
        board = leaderboard.board_of(runs)
        if form == "md" and not to_stdout:
            target = output or BOARD
            most = leaderboard.EXAMPLES if examples is None else examples
            places = leaderboard.write_board(board, target, most, progress(quiet=False).warn)
            if not as_json:
                complete = sum(run.complete for run in runs)
                words = f"{complete} complete runs" + (f", {len(runs) - complete} not" if len(runs) > complete else "")
                typer.echo(f"{target}, {places.plots.name}/, {places.page.name}: {words}")
        else:
            _write_table(_table_text(board, form), None if to_stdout else output, as_json, len(board.groups))
        if as_json:
            print_json(leaderboard.rows_as_json(board))


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """While open nobody looks for garbage among what is there now: runs stay to the end, and looking takes seconds."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


def _write_table(text: str, output: Path | None, as_json: bool, sections: int) -> None:
    """One table to its file, or to stdout, which belongs to the JSON where that is asked for."""
    if output is not None:
        from harness.store import write_atomically

        write_atomically(output, text)
        text = f"{output}: {sections} sections\n"
    if not as_json:
        print_whole(text)


def _format(form: str | None, output: Path | None) -> str:
    """md, csv, json or latex: as given, else by the file's ending, else md. Raises HarnessError for another."""
    known = list(SUFFIXES.values())
    if form is None:
        form = SUFFIXES.get(output.suffix.lower(), "md") if output else "md"
    if form not in known:
        raise HarnessError(f"cannot write the leaderboard as '{form}'; {did_you_mean(form, known)}")
    return form


def _table_text(board: Any, form: str) -> str:
    import harness.leaderboard as leaderboard

    match form:
        case "csv":
            return leaderboard.as_csv(board)
        case "latex":
            return leaderboard.as_latex(board)
        case "json":
            return leaderboard.as_json(board)
    return leaderboard.render(board)


@app.command("list")
@example("list")
def list_command(
    what: Annotated[str, typer.Argument(help=f"{', '.join(LISTED[:-1])} or {LISTED[-1]}.")] = "methods",
    method: Annotated[
        str | None, typer.Option(help="Only runs of this method.", autocompletion=completion.methods)
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Only runs on this benchmark.", autocompletion=completion.benchmarks)
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Only runs on this backbone.", autocompletion=completion.backbones)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Only runs with this training seed.")] = None,
    status: Annotated[
        Literal["ok", "failed", "incomplete"] | None, typer.Option(help="Only runs that are complete, or are not.")
    ] = None,
    plugin: Plugins = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """List what is installed or stored, with where it comes from."""
    wanted = {"method": method, "benchmark": benchmark, "backbone": backbone, "seed": seed, "status": status}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    if wanted and what != "runs":
        raise HarnessError(f"--{next(iter(wanted))} selects runs: use it with `harness list runs`")
    rows = _chosen(_listing(what, plugin or [], runs_dir), wanted)
    if as_json:
        print_json(rows)
    elif rows:
        typer.echo(show.table([show.run_cells(row) if what == "runs" else _cells(row) for row in rows]))
    else:
        typer.echo(f"no {what}")


def _chosen(rows: list[dict[str, Any]], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows with these values; of a method also those with a control or changed bases, whose names go on.

    Raises HarnessError for a value that no row has.
    """
    for name, value in wanted.items():
        known = {str(row[name]) for row in rows}
        rows = [row for row in rows if row[name] == value or (name == "method" and row[name].startswith(f"{value} ("))]
        if not rows and name != "status":
            raise HarnessError(f"--{name} {value}: no such run; {did_you_mean(str(value), known)}")
    return rows


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a list as it is shown: of a plugin one column says where it comes from."""
    if "distribution" not in row:
        return dict(row)
    origin = f"{row['distribution']} {row['version']}" if row["distribution"] else row["file"]
    if row["distribution"] == DISTRIBUTION:
        origin = "this harness"
    return {"name": row["name"], "summary": row["summary"], "from": origin, "error": row["error"]}


def _listing(what: str, files: list[Path], runs_dir: Path) -> list[dict[str, Any]]:
    import dataclasses

    match what:
        case "methods" | "benchmarks":
            from harness.contract import list_plugins

            return [dataclasses.asdict(x) for x in list_plugins("method" if what == "methods" else "benchmark", files)]
        case "metrics":
            from harness.contract import load_extensions
            from harness.scoring import list_metrics

            load_extensions(files)
            return [dataclasses.asdict(x) for x in list_metrics()]
        case "adapters":
            from harness.adapters import list_adapters
            from harness.contract import load_extensions

            load_extensions(files)
            return [dataclasses.asdict(x) for x in list_adapters()]
        case "backbones":
            from harness.model import EMBEDDED_FOLDER, catalogue, embedded_names

            rows = [(name, str(EMBEDDED_FOLDER / name), "", "") for name in embedded_names()]
            rows += [
                (known.name, known.package or "the Hub", known.hub, known.licence) for known in catalogue().values()
            ]
            return [dict(zip(("name", "from", "hub", "licence"), row, strict=True)) for row in rows]
        case "runs":
            from harness.runs import lines_of

            return lines_of(runs_dir, show.run_line)
    raise HarnessError(f"cannot list '{what}'; {did_you_mean(what, LISTED)}")


@app.command("show")
@example("show")
def show_command(
    run: Annotated[
        str, typer.Argument(help="Id of a stored run, or the beginning of one.", autocompletion=completion.run_ids)
    ],
    runs_dir: RunsDir = RUNS,
    metric: Annotated[str | None, typer.Option(help="Metric per reply. [default: the deciding metric]")] = None,
    top: Annotated[int, typer.Option(min=0, help="Personas to show at each end.")] = 3,
    samples: Annotated[int, typer.Option(min=0, help="Replies to show.")] = 5,
    as_json: Json = False,
) -> None:
    """Show a stored run: scores, cost, flags, clusters, best and worst personas, sample replies."""
    import dataclasses

    from harness.compare import samples as sampled, view_if_any
    from harness.show import run_text

    stored = python.load_run(run, runs_dir).stored
    seen = view_if_any(stored, metric)
    replies = sampled(stored, samples, seen.metric if seen else stored.record.metric) if stored.complete else []
    if as_json:
        record = stored.record.model_dump(mode="json", exclude={"per_persona"})
        print_json(
            {
                **record,
                "view": dataclasses.asdict(seen) if seen else None,
                "samples": list(map(dataclasses.asdict, replies)),
            }
        )
    else:
        typer.echo(run_text(stored, seen, replies, top))
