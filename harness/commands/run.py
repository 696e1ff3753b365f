"""`harness run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness import show
from harness.commands.common import (
    Json,
    Plugins,
    Quiet,
    Sets,
    Texts,
    app,
    example,
    options_of,
    print_json,
    progress,
    shown,
)
from harness.config import load_config


@app.command("run")
@example("run")
def run_command(
    method: Annotated[str | None, typer.Option(help="Method to run (`harness list methods`).")] = None,
    benchmark: Annotated[str | None, typer.Option(help=f"Benchmark.{shown('benchmark')}")] = None,
    backbone: Annotated[str | None, typer.Option(help=f"Embedded name, folder or Hub id.{shown('backbone')}")] = None,
    baseline: Annotated[str | None, typer.Option(help=f"Method to compare with.{shown('baseline')}")] = None,
    personas: Annotated[
        str | None, typer.Option(help=f"Size of the world, a number or `all`.{shown('personas')}")
    ] = None,
    persona: Annotated[
        str | None, typer.Option(help="Fit and score only these ids (comma-separated) of the full world.")
    ] = None,
    cluster: Annotated[int | None, typer.Option(help="Fit and score only this cluster of the full world.")] = None,
    control: Annotated[
        str | None,
        typer.Option(help="global: one shared adapter in as many steps; swapped: another persona's."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help=f"Training seed.{shown('seed')}")] = None,
    threads: Annotated[int | None, typer.Option(help=f"CPU threads, part of the result.{shown('threads')}")] = None,
    dtype: Annotated[str | None, typer.Option(help=f"float32, bfloat16, float64.{shown('dtype')}")] = None,
    device: Annotated[str | None, typer.Option(help=f"auto, cpu, cuda, ...{shown('device')}")] = None,
    engine: Annotated[str | None, typer.Option(help=f"auto, transformers, llama_cpu.{shown('engine')}")] = None,
    scorer: Annotated[str | None, typer.Option(help="Folder of all-MiniLM-L6-v2, if it is not installed.")] = None,
    config: Annotated[str | None, typer.Option(help="YAML file, or the name of a ready-made run.")] = None,
    texts: Texts = None,
    margin: Annotated[
        float | None, typer.Option(help="Equivalence margin in points, stated before the scores are seen.")
    ] = None,
    sets: Sets = None,
    plugin: Plugins = None,
    runs_dir: Annotated[Path | None, typer.Option(help=f"Folder of the stored runs.{shown('runs_dir')}")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit, predict, score, test against the baseline, store the run."""
    flags = {
        "method": method, "benchmark": benchmark, "backbone": backbone, "baseline": baseline, "personas": personas,
        "persona": persona, "cluster": cluster, "control": control, "seed": seed, "threads": threads, "dtype": dtype,
        "device": device, "engine": engine, "scorer": scorer, "texts": texts, "margin": margin,
        "runs_dir": str(runs_dir) if runs_dir else None,
    }  # fmt: skip
    files = plugin or []
    settings = load_config(options_of=options_of(files), file=config, flags=flags, sets=sets or [])
    from harness.runner import execute

    outcome = execute(settings, files, progress(quiet))
    if as_json:
        print_json(show.outcome_json(outcome))
    else:
        typer.echo(show.outcome_text(outcome))
