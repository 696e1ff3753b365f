"""`harness run`, and `harness sweep`: a file of methods, or a plan of phases with gates."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from harness.commands import completion, python
from harness.commands.common import (
    Isolate,
    Json,
    Plugins,
    Quiet,
    Sets,
    Texts,
    app,
    example,
    open_methods,
    print_json,
    print_whole,
    progress,
    resumes,
    shown,
)
from harness.commands.tracking import Log, Logbook, LogDir
from harness.config import RunConfig, config_yaml

if TYPE_CHECKING:
    from harness.commands.tracking import Compared
    from harness.sweeps import Reader


Executor = Annotated[str | None, typer.Option(help=f"Where shards are computed: local, ray, slurm.{shown('executor')}")]
Persona = Annotated[str | None, typer.Option(help="Fit and score only these ids (comma-separated) of the full world.")]
Cluster = Annotated[int | None, typer.Option(help="Fit and score only this cluster of the full world.")]
Backbone = Annotated[
    str | None,
    typer.Option(
        help=f"Name (`harness list backbones`), folder, GGUF file, Hub id.{shown('backbone')}",
        autocompletion=completion.backbones,
    ),
]
Method = Annotated[
    str | None, typer.Option(help="Method to run (`harness list methods`).", autocompletion=completion.methods)
]
Benchmark = Annotated[
    str | None, typer.Option(help=f"Benchmark.{shown('benchmark')}", autocompletion=completion.benchmarks)
]
Baseline = Annotated[
    str | None, typer.Option(help=f"Method to compare with.{shown('baseline')}", autocompletion=completion.methods)
]
Attention = Annotated[
    str | None,
    typer.Option(help=f"eager, sdpa, flash_attention_2, flex_attention.{shown('attn_implementation')}"),
]
Template = Annotated[str | None, typer.Option(help="File with a Jinja template in place of the tokenizer's own.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="The whole configuration; parameters, tokens, memory and time on this device; fit nothing."
    ),
]

Personas = Annotated[str | None, typer.Option(help=f"Size of the world, a number or `all`.{shown('personas')}")]
Control = Annotated[
    str | None,
    typer.Option(help="global: one shared adapter in as many steps; swapped: another persona's."),
]
ShardPeople = Annotated[
    int | None, typer.Option(help=f"Number of adapters that are computed together.{shown('shard_people')}")
]
Margin = Annotated[
    float | None,
    typer.Option(help="Equivalence margin in points, or in the metric's own unit; stated before the scores are seen."),
]


@app.command("run")
@example("run")
@resumes()
def run_command(
    method: Method = None,
    benchmark: Benchmark = None,
    backbone: Backbone = None,
    baseline: Baseline = None,
    personas: Personas = None,
    persona: Persona = None,
    cluster: Cluster = None,
    control: Control = None,
    seed: Annotated[int | None, typer.Option(help=f"Training seed.{shown('seed')}")] = None,
    threads: Annotated[int | None, typer.Option(help=f"CPU threads, part of the result.{shown('threads')}")] = None,
    dtype: Annotated[str | None, typer.Option(help=f"float32, bfloat16, float16, float64.{shown('dtype')}")] = None,
    device: Annotated[str | None, typer.Option(help=f"auto, cpu, cuda, ...{shown('device')}")] = None,
    attn_implementation: Attention = None,
    load_in: Annotated[str | None, typer.Option(help="4bit or 8bit weights, with bitsandbytes.")] = None,
    chat_template: Template = None,
    engine: Annotated[str | None, typer.Option(help=f"auto, transformers, llama_cpu.{shown('engine')}")] = None,
    scorer: Annotated[str | None, typer.Option(help="Folder of all-MiniLM-L6-v2, if it is not installed.")] = None,
    config: Annotated[str | None, typer.Option(help="YAML file, or the name of a ready-made run.")] = None,
    shard_people: ShardPeople = None,
    executor: Executor = None,
    address: Annotated[str | None, typer.Option(help="Address of a Ray cluster; by default one is started.")] = None,
    slurm: Annotated[str | None, typer.Option(help="For sbatch: partition=gpu,time=120 (minutes).")] = None,
    isolate: Isolate = None,
    texts: Texts = None,
    margin: Margin = None,
    sets: Sets = None,
    plugin: Plugins = None,
    runs_dir: Annotated[Path | None, typer.Option(help=f"Folder of the stored runs.{shown('runs_dir')}")] = None,
    log: Log = None,
    log_dir: LogDir = None,
    only_cost: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit, predict, score, test against the baseline, store the run."""
    flags = {
        "method": method, "benchmark": benchmark, "backbone": backbone, "baseline": baseline, "personas": personas,
        "persona": persona, "cluster": cluster, "control": control, "seed": seed, "threads": threads, "dtype": dtype,
        "device": device, "attn_implementation": attn_implementation, "load_in": load_in,
        "chat_template": chat_template, "engine": engine, "scorer": scorer, "isolate": isolate,
        "shard_people": shard_people, "executor": executor, "address": address, "slurm": slurm,
        "texts": texts, "margin": margin, "runs_dir": str(runs_dir) if runs_dir else None,
    }  # fmt: skip
    book = Logbook.of(log, log_dir)
    if only_cost:
        files = plugin or []
        settings = python.settings_of(flags, config, sets or [], files, only_cost)
        _dry_run(settings, files, progress(quiet), as_json)
        return
    result = python.run(**flags, config=config, set=sets or [], plugin=plugin, quiet=quiet)
    print_json(result.as_dict()) if as_json else typer.echo(str(result))
    book.send(result.outcome.compared, result.run.path.parent, progress(quiet))


def _dry_run(settings: RunConfig, files: list[Path], shown_in: Any, as_json: bool) -> None:
    """Print the whole configuration and what the run would cost."""
    from harness.bench import dry_run

    found = dry_run(settings, files, shown_in)
    if as_json:
        print_json({**found.as_dict(), "config": settings.as_dict()})
    else:
        print_whole(f"{config_yaml(settings)}\n")
        typer.echo(found.text())


@app.command("sweep")
@example("sweep")
@resumes()
def sweep_command(
    file: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped one.")],
    personas: Annotated[str | None, typer.Option(help="Size of the world in place of the file's.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds in place of the file's, e.g. 0,1,2.")] = None,
    runs_dir: Annotated[Path | None, typer.Option(help=f"Folder of the stored runs.{shown('runs_dir')}")] = None,
    engine: Annotated[str | None, typer.Option(help=f"auto, transformers, llama_cpu.{shown('engine')}")] = None,
    isolate: Isolate = None,
    texts: Texts = None,
    plugin: Plugins = None,
    log: Log = None,
    log_dir: LogDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and what is stored; make nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run several methods, seeds and options in one go, and test them jointly against the baseline.

    A file with `methods:` ends with one table; one with `phases:` is a plan whose gates decide what is tried next.
    Complete runs come from the store and an interrupted fit goes on where it stopped: give the same command again.
    A method that fails gets a row that says so, and the others go on.

    Exit code: 0 if every run is there (a gate not passed is a result), 2 if a run failed or the file has faults.
    """
    files, book = plugin or [], Logbook.of(log, log_dir)
    reader, separate = open_methods(file, "sweep", files, isolate)
    shown_in = python.told(quiet, separate or dry_run)
    folder = str(runs_dir) if runs_dir else None
    flags = {
        "personas": personas,
        "seeds": seeds,
        "engine": engine,
        "runs_dir": folder,
        "texts": texts,
        "isolate": isolate,
    }
    show = _plan if "phases" in reader.document.values else _sweep
    done = show(reader, flags, files, shown_in, dry_run)
    if as_json:
        print_json(done.value)
    else:
        typer.echo(done.text)
    book.send(done.runs, done.runs_dir, shown_in)
    raise typer.Exit(2 if done.failed else 0)


class _Done(NamedTuple):
    """What a sweep or plan, or its dry run, has come to. runs: with their comparisons, for trackers."""

    value: Any
    text: str
    failed: bool
    runs_dir: Path
    runs: Compared = ()


def _sweep(reader: Reader, flags: Mapping[str, Any], files: list[Path], shown_in: Any, dry_run: bool) -> _Done:
    from harness.sweeps import Workshop, load_sweep, orders, run_sweep, sweep_text

    sweep = load_sweep(reader, flags)
    entries, folder = (sweep.baseline, *sweep.entries), sweep.shared.runs_dir
    with contextlib.closing(Workshop(sweep.shared, files, shown_in, entries)) as workshop:
        if dry_run:
            rows = sweep_text.preview([("", order) for order in orders(sweep)], workshop)
            return _Done(rows, sweep_text.preview_text(rows), False, folder)
        outcome = run_sweep(sweep, workshop)
    value, text = sweep_text.sweep_json(outcome), sweep_text.sweep_text(outcome)
    return _Done(value, text, outcome.failed, folder, outcome.compared)


def _plan(reader: Reader, flags: Mapping[str, Any], files: list[Path], shown_in: Any, dry_run: bool) -> _Done:
    from harness.sweeps import Workshop, load_plan, plan_orders, plan_text, run_plan, sweep_text

    plan = load_plan(reader, flags)
    folder = plan.shared.runs_dir
    with contextlib.closing(Workshop(plan.shared, files, shown_in, plan.entries)) as workshop:
        if dry_run:
            rows = sweep_text.preview(plan_orders(plan), workshop)
            return _Done(rows, sweep_text.preview_text(rows), False, folder)
        outcome = run_plan(plan, workshop)
    value, text = plan_text.plan_json(outcome), plan_text.plan_text(outcome)
    return _Done(value, text, outcome.failed, folder, outcome.compared)
