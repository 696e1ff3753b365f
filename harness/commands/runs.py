"""`harness runs`: a whole folder of stored runs examined, mended and cleared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands import completion
from harness.commands.common import RUNS, Json, Quiet, RunsDir, app, check_runs_dir, example, print_json, progress
from harness.commands.tracking import Logbook, LogDir
from harness.errors import StoreError

runs_app = typer.Typer(
    no_args_is_help=True, help="Examine, mend and clear a folder of stored runs.", rich_markup_mode=None
)
app.add_typer(runs_app, name="runs")


@runs_app.command("check")
@example("runs-check")
def runs_check_command(
    runs_dir: RunsDir = RUNS,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False,
    as_json: Json = False,
) -> None:
    """Check every stored file against its digest, and list damaged and left-over files.

    --repair removes damaged caches and the files of killed processes. To repair a damaged run, give the command that
    made it. Exit code 2 if faults remain.
    """
    from harness.runs import faults
    from harness.store import Store

    check_runs_dir(runs_dir)
    found, left = [], 0
    for fault in faults(Store(runs_dir)):
        mended = repair and fault.repair is not None
        if mended and fault.repair:
            fault.repair()
        left += not mended
        words = f"{fault.mending} (mended)" if mended else fault.mending
        found.append({"what": fault.what, "mending": fault.mending, "mended": mended})
        if not as_json:
            typer.echo(f"{fault.what}; {words}")
    if as_json:
        print_json(found)
    elif not found:
        typer.echo(f"{runs_dir}: every file is as it was written")
    if left:
        hint = "" if repair else " (--repair removes what can be made again)"
        raise StoreError(f"{left} of {len(found)} faults are left{hint}")


@runs_app.command("rm")
@example("runs-rm")
def runs_rm_command(
    names: Annotated[
        list[str], typer.Argument(help="Ids of stored runs, or their beginnings.", autocompletion=completion.run_ids)
    ],
    runs_dir: RunsDir = RUNS,
) -> None:
    """Remove stored runs; what was fitted for them stays in the cache until `harness runs gc`."""
    from harness.runs import remove_runs
    from harness.store import Store

    check_runs_dir(runs_dir)
    for folder in remove_runs(Store(runs_dir), names):
        typer.echo(f"{folder} is removed")


@runs_app.command("gc")
@example("runs-gc")
def runs_gc_command(
    runs_dir: RunsDir = RUNS,
    days: Annotated[float, typer.Option(min=0, help="Keep what was used in so many days.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much would be freed.")] = False,
) -> None:
    """Free space: remove fits that no command has used for a while, and what killed processes left.

    Runs, their replies and adapters stay. A fit that is needed again is made again.
    """
    from harness.runs import remove_all, unused
    from harness.store import Store, size_bytes

    check_runs_dir(runs_dir)
    folders: list[Path] = unused(Store(runs_dir), days)
    size = sum(map(size_bytes, folders))
    if not dry_run:
        remove_all(folders)
    typer.echo(f"{len(folders)} folders, {size / 1e6:,.1f} MB {'can be' if dry_run else 'are'} freed")


@runs_app.command("log")
@example("runs-log")
def runs_log_command(
    names: Annotated[
        list[str], typer.Argument(help="Ids of stored runs, or their beginnings.", autocompletion=completion.run_ids)
    ],
    to: Annotated[
        list[str],
        typer.Option(
            help="tensorboard, wandb, trackio, mlflow; repeatable, or with commas.", autocompletion=completion.trackers
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(help="Id of a stored run; each run is also compared with it.", autocompletion=completion.run_ids),
    ] = None,
    runs_dir: RunsDir = RUNS,
    log_dir: LogDir = None,
    quiet: Quiet = False,
) -> None:
    """Send stored runs to an experiment tracker, as `run --log` does. Exit code 2 where a tracker fails."""
    from harness.compare import Family, comparison_rows
    from harness.runs import find_run

    book = Logbook.of(to, log_dir)
    check_runs_dir(runs_dir)
    runs, base = [find_run(runs_dir, name) for name in names], baseline and find_run(runs_dir, baseline)
    compared = []
    for run in runs:
        if not run.record.created:  # a record that cannot be read would take the place of what was sent before
            raise StoreError(f"{run.record.error}; nothing is sent")
        row = None
        if base and run.complete and run.id != base.id:
            own = Family(run.head.row_name, (run,))
            ((row,),) = comparison_rows(Family(base.head.row_name, (base,)), [own])[1:]
        compared.append((run, row))
    if not book.send(compared, runs_dir, progress(quiet)):
        raise typer.Exit(2)
