"""`harness tune`: equally many trials for every method, then the best of each tested."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from harness.commands import completion, python
from harness.commands.common import (
    Isolate,
    Json,
    Plugins,
    Quiet,
    app,
    example,
    open_methods,
    print_json,
    resumes,
    shown,
)
from harness.commands.tracking import Log, Logbook, LogDir

SECONDS_BETWEEN_SIGNALS = 5.0


@app.command("tune")
@example("tune")
@resumes()
def tune_command(
    file: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped one.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of each method in place of the file's.")] = None,
    personas: Annotated[str | None, typer.Option(help="Size of the world in place of the file's.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds in place of the file's, e.g. 0,1,2.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Backbone in place of the file's.", autocompletion=completion.backbones)
    ] = None,
    hours: Annotated[
        float | None, typer.Option(min=0.001, help="Stop after so many hours; the same command goes on.")
    ] = None,
    runs_dir: Annotated[Path | None, typer.Option(help=f"Folder of the stored runs.{shown('runs_dir')}")] = None,
    isolate: Isolate = None,
    plugin: Plugins = None,
    log: Log = None,
    log_dir: LogDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune every method of a file with the same number of trials, then test the best of each jointly.

    Trials see validation loss alone, on personas that are kept apart from those that are reported. They are stored:
    after an interruption the same command goes on, and a larger --trials adds to those that are there. A file with
    `parts:` is a study of several benchmarks, one tuning each.

    Exit code: 0 if every run is there, 2 if a run failed or the file has faults, 3 if the hours were used up before.
    """
    from harness.sweeps import load_tuning, parts_of, run_tuning, tuning_text

    files, book = plugin or [], Logbook.of(log, log_dir)
    reader, separate = open_methods(file, "tune", files, isolate)
    shown_in = python.told(quiet, separate)
    flags = {
        "personas": personas, "seeds": seeds, "backbone": backbone, "trials": trials, "isolate": isolate,
        "runs_dir": str(runs_dir) if runs_dir else None,
    }  # fmt: skip
    # Every part is read before the first begins.
    parts = [load_tuning(part, flags) for part in parts_of(reader)]
    outcomes = []
    with _within(hours):
        for part in parts:
            outcomes.append(run_tuning(part, files, shown_in))
            if not as_json:
                head = f"{part.shared.benchmark}\n\n" if len(parts) > 1 else ""
                typer.echo(head + tuning_text.tuning_text(outcomes[-1]) + ("\n" if len(parts) > 1 else ""))
    if as_json:
        found = [tuning_text.tuning_json(outcome) for outcome in outcomes]
        print_json(found if len(parts) > 1 else found[0])
    for outcome in outcomes:
        book.send(outcome.sweep.compared, outcome.tuning.shared.runs_dir, shown_in)
    raise typer.Exit(2 if any(outcome.sweep.failed for outcome in outcomes) else 0)


@contextlib.contextmanager
def _within(hours: float | None) -> Iterator[None]:
    """Interrupt what is inside as Ctrl-C does once the hours are used; ends with exit code 3 then."""
    if hours is None:
        yield
        return
    used, done = threading.Event(), threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        if done.wait(hours * 3600):
            return
        used.set()
        while not done.is_set():
            signal.pthread_kill(main, signal.SIGINT)  # as Ctrl-C: it wakes what sleeps; an import may swallow it
            done.wait(SECONDS_BETWEEN_SIGNALS)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        done.set()
        if not used.is_set():
            raise
        words = f"{hours:g} hours are used up; finished work is stored, and the same command continues from here"
        typer.echo(words, err=True)
        raise typer.Exit(3) from None
    finally:
        done.set()
