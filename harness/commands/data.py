"""`harness data`: a benchmark's data set as files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from harness.commands.common import DEFAULTS, Plugins, Sets, app, example, options_of, shown
from harness.config import load_config
from harness.errors import HarnessError, StoreError

data_app = typer.Typer(no_args_is_help=True, help="Write a benchmark's data set out.", rich_markup_mode=None)
app.add_typer(data_app, name="data")


@data_app.command("write")
@example("data")
def data_write_command(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    benchmark: Annotated[str | None, typer.Option(help=f"Benchmark.{shown('benchmark')}")] = None,
    personas: Annotated[str | None, typer.Option(help="Size of the world, a number or `all`.")] = "all",
    sets: Sets = None,
    plugin: Plugins = None,
) -> None:
    """Write a benchmark's data set as a folder of files."""
    from harness.contract import load_benchmark

    files = plugin or []
    settings = load_config(
        options_of=options_of(files),
        flags={"benchmark": benchmark, "personas": personas, "method": DEFAULTS.get("baseline")},
        sets=sets or [],
    )
    dataset = load_benchmark(settings.benchmark, files).load(settings.benchmark_options)
    if dataset.write is None:
        raise HarnessError(f"benchmark '{settings.benchmark}' reads files and has none of its own to write")
    _check_writable(folder)
    counts = dataset.write(folder)
    typer.echo(f"{folder}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))


def _check_writable(folder: Path) -> None:
    """Raises StoreError where the folder cannot be made: a benchmark that fails at it would be blamed itself."""
    place = next(parent for parent in folder.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryDirectory(dir=place):
            pass
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from error
