"""`harness tune`: equally many trials for every method, then the best of each tested."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.common import Json, Plugins, Quiet, app, example, options_of, print_json, progress, shown


@app.command("tune")
@example("tune")
def tune_command(
    file: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped one.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of each method in place of the file's.")] = None,
    personas: Annotated[str | None, typer.Option(help="Size of the world in place of the file's.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds in place of the file's, e.g. 0,1,2.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Backbone in place of the file's.")] = None,
    runs_dir: Annotated[Path | None, typer.Option(help=f"Folder of the stored runs.{shown('runs_dir')}")] = None,
    plugin: Plugins = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune every method of a file with the same number of trials, then test the best of each jointly.

    Trials see validation loss alone, on personas that are kept apart from those that are reported. They are stored:
    after an interruption the same command goes on, and a larger --trials adds to those that are there.

    Exit code: 0 if every run is there, 2 if a run failed or the file has faults.
    """
    from harness.sweeps import load_tuning, open_reader, run_tuning, tuning_text

    files = plugin or []
    flags = {
        "personas": personas, "seeds": seeds, "backbone": backbone, "trials": trials,
        "runs_dir": str(runs_dir) if runs_dir else None,
    }  # fmt: skip
    outcome = run_tuning(load_tuning(open_reader(file, options_of(files)), flags), files, progress(quiet))
    if as_json:
        print_json(tuning_text.tuning_json(outcome))
    else:
        typer.echo(tuning_text.tuning_text(outcome))
    raise typer.Exit(2 if outcome.sweep.failed else 0)
