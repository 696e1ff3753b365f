"""`harness export`: a run's adapters and scores in the formats of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.commands import completion
from harness.commands.common import RUNS, Plugins, Quiet, RunsDir, app, check_runs_dir, example, progress
from harness.errors import HarnessError


@app.command("export")
@example("export")
def export_command(
    run: Annotated[
        str, typer.Argument(help="Id of a stored run, or the beginning of one.", autocompletion=completion.run_ids)
    ],
    to: Annotated[
        Literal["peft", "merged", "eee", "hf-eval-results"],
        typer.Option(
            help="peft: adapters for PeftModel.from_pretrained; merged: a model with their base merged into it, "
            "in Hugging Face's format; eee: scores as Every Eval Ever JSON; hf-eval-results: as YAML for the Hub."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    persona: Annotated[list[str] | None, typer.Option(help="Whose; repeatable. [default: all]")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Where the run's backbone is now. [default: as in the run]")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="hf-eval-results: Hub id of the data set that has the leaderboard.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    plugin: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Export a run's adapters or scores to a folder for other programs; its README.md shows how to load them.

    Base adapters are exported as well (peft) or merged into the model (merged). vLLM serves LoRAs and no soft prompts.
    """
    from harness.contract import load_extensions
    from harness.runs import export_adapters, export_eval_results, export_every_eval_ever, find_run

    if dataset is not None and to != "hf-eval-results":
        raise HarnessError(f"--dataset goes with --to hf-eval-results; --to {to} names no data set of the Hub")
    if backbone is not None and to in ("eee", "hf-eval-results"):
        raise HarnessError(f"--backbone goes with adapters (--to peft, merged); --to {to} reads no model")
    check_runs_dir(runs_dir)
    load_extensions(plugin or [])
    stored, personas = find_run(runs_dir, run), list(dict.fromkeys(persona or []))
    if to == "eee":
        typer.echo(f"{export_every_eval_ever(stored, personas, output)}; {output}/README.md says how to read it")
    elif to == "hf-eval-results":
        if dataset is None:
            raise HarnessError("hf-eval-results needs --dataset OWNER/NAME: the data set that has the leaderboard")
        place = export_eval_results(stored, personas, output, dataset)
        typer.echo(f"{place}; {output}/README.md says how to use it")
    else:
        made = export_adapters(stored, personas, output, to, progress(quiet).note, backbone)
        words = f"adapters {made.adapters}, personas {made.personas}, base adapters {made.below}"
        typer.echo(f"{output}: {words}; {output}/README.md says how to use it")
