"""What the commands share: the app, the flags that recur, help examples, progress. JSON on stdout is `streams`'s."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from harness.commands.streams import print_json as print_json, print_whole as print_whole
from harness.config import default_values, help_examples, isolates, read_document

if TYPE_CHECKING:
    from harness.runs import StoredRun
    from harness.sweeps import Reader

GROUPS = {
    "Make runs": ("run", "sweep", "tune"),
    "Read results": ("leaderboard", "compare", "show", "diff", "list", "describe", "power", "chat"),
    "Write a method": ("new-method", "check"),
    "Data and files": ("runs", "export", "import", "data", "backbone"),
    "Measure the harness": ("bench",),
}


class Grouped(typer.core.TyperGroup):
    """The commands under headings, in the order of use."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        room = formatter.width - 6 - max(map(len, self.commands))
        named = {name for names in GROUPS.values() for name in names}
        groups = {**GROUPS, "Other": tuple(sorted(self.commands.keys() - named))}
        for title, names in groups.items():
            rows = [(name, self.commands[name].get_short_help_str(room)) for name in names if name in self.commands]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


app = typer.Typer(
    cls=Grouped,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_EXAMPLES = help_examples()
DEFAULTS = default_values()

RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of the stored runs.")]
Json = Annotated[bool, typer.Option("--json", help="JSON alone on stdout.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A plugin in a loose file; repeatable.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="key=value: an option of method, benchmark or protocol; NAME.key=value: an option of base NAME."
    ),
]
Texts = Annotated[
    bool | None,
    typer.Option(
        "--texts/--no-texts", help="Keep the texts of prompts and references with the replies. [default: texts]"
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
RUNS = Path(str(DEFAULTS.get("runs_dir", "runs")))


def _version(wanted: bool) -> None:
    if wanted:
        from harness import __version__

        typer.echo(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of any error; with every command, anywhere in the line.")
    ] = False,
) -> None:
    """Does this way of personalising a frozen language model beat the plain baseline? Measure it."""


def example(command: str) -> Callable[[Any], Any]:
    """Decorator: the command's docstring with its example line from configs/default.yaml."""

    def add(function: Any) -> Any:
        line = _EXAMPLES.get(command)
        if line:
            function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n\b\nExample:\n  {line}"
        return function

    return add


def resumes(option: str = "") -> Callable[[Any], Any]:
    """Decorator of a command that keeps what is done: after an interruption the same line goes on where it stopped.

    option   it does so only with this one
    """

    def add(function: Any) -> Any:
        function.resumes = option
        return function

    return add


def goes_on(words: Sequence[str]) -> bool:
    """Whether the command of a line goes on after an interruption."""
    level: typer.Typer = app
    for word in (word for word in words if not word.startswith("-")):
        for command in level.registered_commands:
            if command.name == word:
                option = getattr(command.callback, "resumes", None)
                return option is not None and (not option or any(w.partition("=")[0] == option for w in words))
        inner = [group.typer_instance for group in level.registered_groups if group.name == word]
        if not inner or inner[0] is None:
            break
        level = inner[0]
    return False


def shown(name: str) -> str:
    value = DEFAULTS.get(name)
    return f" [default: {value}]" if value is not None else ""


Isolate = Annotated[
    bool | None,
    typer.Option(
        "--isolate/--no-isolate",
        help=f"Run each method in a process without access to references.{shown('isolate')}",
    ),
]


def options_of(files: list[Path], isolate: bool = False) -> Any:
    """(kind, plugin name) -> its options dataclass, as `load_config` wants it.

    isolate  no method's code is imported here
    Raises PluginError for a loose file that cannot be loaded, where all are loaded here.
    """
    from harness.contract import load_extensions, load_plugin

    if not isolate:
        load_extensions(files)  # a file that cannot be loaded is said once, not for each plugin that is asked for
        return lambda kind, name: load_plugin(kind, name, files).card.options
    from harness.workers import read_card, trusted_files

    def options(kind: Any, name: str) -> Any:
        if kind == "method":
            return read_card(name, files).card.options
        return load_plugin(kind, name, trusted_files(files)).card.options

    return options


def open_methods(file: str, command: str, files: list[Path], isolate: bool | None) -> tuple[Reader, bool]:
    """A file of methods for `sweep` or `tune`, none of it checked, and whether methods get processes of their own.

    That is known before any code of a method is imported here. Raises ConfigError for a file of another command.
    """
    from harness.sweeps import open_reader

    document = read_document(file, command)
    separate = isolates(isolate, document)
    return open_reader(document, options_of(files, separate)), separate


def progress(quiet: bool) -> Any:
    from harness.progress import Progress

    return Progress("silent" if quiet else "auto")


def check_runs_dir(folder: Path) -> None:
    """Raises StoreError if there is no such folder: it is said to be missing, not empty."""
    from harness.errors import StoreError

    if not folder.is_dir():
        raise StoreError(f"there is no runs folder {folder}; give the --runs-dir of an earlier `harness run`")


def runs_in(folder: Path, names: Sequence[str] = ()) -> list[StoredRun]:
    """All runs of a folder; where all names are ids, only theirs. Raises StoreError if there is no such folder."""
    from harness.runs import all_runs, listed, run_names

    check_runs_dir(folder)
    ids = {part.strip() for name in names for part in name.split(",")}
    if ids and ids <= {*run_names(folder)}:
        return [listed(folder / run_id) for run_id in sorted(ids)]
    return all_runs(folder)
