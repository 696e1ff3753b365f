"""Parse, call, print: the command line, and the only place that catches HarnessError.

Results go to stdout (with --json nothing but one JSON value), progress and complaints to stderr. Exit codes: 0 done,
1 a bug (with --debug its traceback), 2 something the user can mend, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import printing
from harness.config import default_values, help_examples, load_config
from harness.errors import HarnessError, did_you_mean

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Does this way of personalising a frozen language model beat the plain baseline? Measure it.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(no_args_is_help=True, help="Write a benchmark's data set out.", rich_markup_mode=None)
backbone_app = typer.Typer(no_args_is_help=True, help="Train or describe an embedded backbone.", rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(backbone_app, name="backbone")

_EXAMPLES = help_examples()
_DEFAULTS = default_values()

RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of the stored runs.")]
Json = Annotated[bool, typer.Option("--json", help="JSON alone on stdout.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A plugin in a loose file; repeatable.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="key=value: an option of method, benchmark or protocol.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
RUNS = Path(str(_DEFAULTS.get("runs_dir", "runs")))


def _example(command: str) -> Callable[[Any], Any]:
    """Decorator: the command's docstring with its example line from configs/default.yaml."""

    def add(function: Any) -> Any:
        line = _EXAMPLES.get(command)
        if line:
            function.__doc__ = f"{function.__doc__}\n\n\b\nExample:\n  {line}"
        return function

    return add


def _shown(name: str) -> str:
    value = _DEFAULTS.get(name)
    return f" [default: {value}]" if value is not None else ""


@app.command("run")
@_example("run")
def run_command(
    method: Annotated[str | None, typer.Option(help="Method to run (`harness list methods`).")] = None,
    benchmark: Annotated[str | None, typer.Option(help=f"Benchmark.{_shown('benchmark')}")] = None,
    backbone: Annotated[str | None, typer.Option(help=f"Embedded name, folder or Hub id.{_shown('backbone')}")] = None,
    baseline: Annotated[str | None, typer.Option(help=f"Method to compare with.{_shown('baseline')}")] = None,
    personas: Annotated[
        str | None, typer.Option(help=f"Size of the world, a number or `all`.{_shown('personas')}")
    ] = None,
    persona: Annotated[
        str | None, typer.Option(help="Fit and score only these ids (comma-separated) of the full world.")
    ] = None,
    cluster: Annotated[int | None, typer.Option(help="Fit and score only this cluster of the full world.")] = None,
    control: Annotated[
        str | None,
        typer.Option(help="global: one shared adapter in as many steps; swapped: another persona's."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help=f"Training seed.{_shown('seed')}")] = None,
    threads: Annotated[int | None, typer.Option(help=f"CPU threads, part of the result.{_shown('threads')}")] = None,
    dtype: Annotated[str | None, typer.Option(help=f"float32, bfloat16, float64.{_shown('dtype')}")] = None,
    device: Annotated[str | None, typer.Option(help=f"auto, cpu, cuda, ...{_shown('device')}")] = None,
    scorer: Annotated[str | None, typer.Option(help="Folder of all-MiniLM-L6-v2, if it is not installed.")] = None,
    config: Annotated[str | None, typer.Option(help="YAML file, or the name of a ready-made run.")] = None,
    sets: Sets = None,
    plugin: Plugins = None,
    runs_dir: Annotated[Path | None, typer.Option(help=f"Folder of the stored runs.{_shown('runs_dir')}")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit, predict, score, test against the baseline, store the run."""
    flags = {
        "method": method, "benchmark": benchmark, "backbone": backbone, "baseline": baseline, "personas": personas,
        "persona": persona, "cluster": cluster, "control": control, "seed": seed, "threads": threads, "dtype": dtype,
        "device": device, "scorer": scorer, "runs_dir": str(runs_dir) if runs_dir else None,
    }  # fmt: skip
    files = plugin or []
    settings = load_config(
        options_of=_options_of(files),
        file=config,
        flags=flags,
        sets=sets or [],
    )
    from harness.runner import execute

    outcome = execute(settings, files, _progress(quiet))
    if as_json:
        _print_json(printing.outcome_json(outcome))
    else:
        typer.echo(printing.outcome_text(outcome))


@app.command("leaderboard")
@_example("leaderboard")
def leaderboard_command(
    runs_dir: Annotated[
        Path | None, typer.Option(help="Only these stored runs. [default: runs, and the published records]")
    ] = None,
    output: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path("leaderboard/README.md"),
    publish: Annotated[
        bool, typer.Option("--publish", help="Also keep the runs' records beside the output, in records/.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Regenerate the leaderboard in markdown from the stored runs."""
    from leaderboard import publish_records, published, read_runs, render, rows_as_json

    runs = read_runs(runs_dir, output.parent / "records", RUNS)
    if publish:
        publish_records(runs, output.parent / "records")
        runs = published(output.parent / "records")  # what a fresh clone will have, so that it makes the same bytes
    text = render(runs)
    from harness.store import write_atomically

    write_atomically(output, text)
    if as_json:
        _print_json(rows_as_json(runs))
    else:
        complete = sum(run.complete for run in runs)
        typer.echo(
            f"{output}: {complete} complete runs" + (f", {len(runs) - complete} not" if len(runs) > complete else "")
        )


@app.command("list")
@_example("list")
def list_command(
    what: Annotated[str, typer.Argument(help="methods, benchmarks, backbones or runs.")] = "methods",
    plugin: Plugins = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """List methods, benchmarks, backbones or runs, with where each comes from."""
    rows = _listing(what, plugin or [], runs_dir)
    if as_json:
        _print_json(rows)
    else:
        typer.echo(printing.table(rows) if rows else f"no {what}")


def _listing(what: str, files: list[Path], runs_dir: Path) -> list[dict[str, Any]]:
    import dataclasses

    match what:
        case "methods" | "benchmarks":
            from harness.plugins import list_plugins

            return [dataclasses.asdict(x) for x in list_plugins("method" if what == "methods" else "benchmark", files)]
        case "backbones":
            from harness.backbone import EMBEDDED_FOLDER, embedded_names

            return [{"name": name, "folder": str(EMBEDDED_FOLDER / name)} for name in embedded_names()]
        case "runs":
            from harness.store import Store

            return [printing.run_line(run) for run in Store(runs_dir).runs()]
    raise HarnessError(f"cannot list '{what}'; {did_you_mean(what, ['methods', 'benchmarks', 'backbones', 'runs'])}")


@app.command("show")
@_example("show")
def show_command(
    run: Annotated[str, typer.Argument(help="Id of a stored run, or the beginning of one.")],
    runs_dir: RunsDir = RUNS,
    samples: Annotated[int, typer.Option(help="Replies to show.")] = 5,
    as_json: Json = False,
) -> None:
    """Show a stored run: its scores, cost, flags and sample replies."""
    from harness.store import Store

    stored = Store(runs_dir).find(run)
    if as_json:
        _print_json(dict(stored.record))
    else:
        typer.echo(printing.run_text(stored, samples))


@data_app.command("write")
@_example("data")
def data_write_command(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    benchmark: Annotated[str | None, typer.Option(help=f"Benchmark.{_shown('benchmark')}")] = None,
    personas: Annotated[str | None, typer.Option(help="Size of the world, a number or `all`.")] = "all",
    sets: Sets = None,
    plugin: Plugins = None,
) -> None:
    """Write a benchmark's data set as a folder of files."""
    from harness.plugins import load_benchmark

    files = plugin or []
    settings = load_config(
        options_of=_options_of(files),
        flags={"benchmark": benchmark, "personas": personas, "method": _DEFAULTS.get("baseline")},
        sets=sets or [],
    )
    dataset = load_benchmark(settings.benchmark, files).load(settings.benchmark_options)
    if dataset.write is None:
        raise HarnessError(f"benchmark '{settings.benchmark}' reads files and has none of its own to write")
    counts = dataset.write(folder)
    typer.echo(f"{folder}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))


@backbone_app.command("train")
@_example("backbone")
def backbone_train_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML.")],
    output: Annotated[Path, typer.Option(help="Folder to make, in the Hub's format.")],
    share: Annotated[float, typer.Option(help="Train on this share of the recipe's tokens, to try it out.")] = 1.0,
    plugin: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Train a small backbone from a seeded recipe."""
    from dataclasses import replace

    from harness.options import fill, option_types, read_value
    from harness.plugins import load_benchmark
    from harness.pretraining import pretrain, read_recipe

    parsed = read_recipe(recipe)
    if not 0 < share <= 1:
        raise HarnessError(f"--share must lie in (0, 1], not {share}")
    parsed = replace(parsed, stages=[_shortened(stage, share) for stage in parsed.stages])
    benchmark = load_benchmark(str(parsed.corpus["benchmark"]), plugin or [])
    kinds = option_types(benchmark.card.options)

    def load(_: str, options: Any) -> Any:
        unknown = [name for name in options if name not in kinds]
        if unknown:
            raise HarnessError(f"{recipe}: corpus option '{unknown[0]}'; {did_you_mean(unknown[0], kinds)}")
        values = {name: read_value(value, kinds[name]) for name, value in options.items()}
        return benchmark.load(fill(benchmark.card.options(), values))

    if output.exists() and any(output.iterdir()):
        raise HarnessError(f"{output} is not empty; choose a new folder")
    with _progress(quiet).task("train the backbone", 0, "tokens") as advance:
        cost = pretrain(parsed, load, output, advance.to)
    typer.echo(f"{output}: " + ", ".join(f"{key} {value}" for key, value in cost.items()))


@backbone_app.command("show")
def backbone_show_command(
    name: Annotated[str, typer.Argument(help="Name of an embedded backbone.")] = str(_DEFAULTS.get("backbone", "")),
) -> None:
    """Print the model card of an embedded backbone: recipe, cost, measured abilities."""
    from harness.backbone import EMBEDDED_FOLDER, embedded_names

    if name not in embedded_names():
        raise HarnessError(f"there is no embedded backbone '{name}'; {did_you_mean(name, embedded_names())}")
    typer.echo((EMBEDDED_FOLDER / name / "README.md").read_text(encoding="utf-8"))


def _shortened(stage: Any, share: float) -> dict[str, Any]:
    tokens = {name: max(1, round(stage[name] * share)) for name in ("tokens", "stop_after") if name in stage}
    return {**stage, **tokens}


def _options_of(files: list[Path]) -> Any:
    """(kind, plugin name) -> its options dataclass, as `load_config` wants it."""
    from harness.plugins import load_plugin

    return lambda kind, name: load_plugin(kind, name, files).card.options


def _progress(quiet: bool) -> Any:
    from harness.progress import Progress

    return Progress("silent" if quiet else "auto")


def _print_json(value: Any) -> None:
    from harness.store import clean_json

    typer.echo(json.dumps(clean_json(value), indent=2, ensure_ascii=False, allow_nan=False))


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `harness` command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        code = app(given, standalone_mode=False, prog_name="harness")
    except HarnessError as error:
        if debug:
            raise
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        if line := _usage_line(error):
            _fail(line)
        if debug:
            raise
        print(
            f"harness: {type(error).__name__}: {error} (run again with --debug for the traceback)",
            file=sys.stderr,
        )
        sys.exit(1)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _usage_line(error: Any) -> str:
    """One helpful line for a fault of the command line itself; empty for any other exception.

    Newer typer carries its own copy of click and older typer uses the package, so the classes are known by name.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if "UsageError" not in names:
        return ""
    context = error.ctx
    message = error.format_message().splitlines()[0].rstrip(".")
    if "NoSuchOption" in names:
        known = [name for p in context.command.params for name in p.opts if name.startswith("--")] if context else []
        return f"there is no option {error.option_name}; {did_you_mean(error.option_name, known)}"
    if message.startswith("No such command") and context:
        wrong = message.split("'")[1]
        return f"there is no command '{wrong}'; {did_you_mean(wrong, context.command.commands)}"
    return f"{message} (see `{context.command_path if context else 'harness'} --help`)"


def _fail(message: str) -> None:
    print(f"harness: {message}", file=sys.stderr)
    sys.exit(2)
