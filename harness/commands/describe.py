"""`harness describe`: what a method, a benchmark or a metric says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.commands import completion
from harness.commands.common import Json, Plugins, app, example, print_json
from harness.errors import HarnessError, did_you_mean


@app.command("describe")
@example("describe")
def describe_command(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of a method, a benchmark or a metric (`harness list`).", autocompletion=completion.described
        ),
    ],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Describe a method, benchmark or metric: options with types and defaults, what it shares, its base."""
    from harness.show import described_text

    found = _found(name, plugin or [])
    if as_json:
        print_json(found)
    else:
        typer.echo("\n\n".join(map(described_text, found)))


def _found(name: str, files: list[Path]) -> list[dict[str, Any]]:
    """All that has this name. Raises HarnessError if nothing has."""
    from harness.contract import load_extensions, load_plugin, points_of, read_loose
    from harness.scoring import list_metrics, metric_named
    from harness.show import described, described_metric

    load_extensions(files)
    known = [path.stem for path in files]
    found: list[dict[str, Any]] = []
    for kind in ("method", "benchmark"):
        names = [point.name for point in points_of(kind)]
        known += names
        if name in names:
            found.append(described(load_plugin(kind, name, files)))
    metrics = [line.name for line in list_metrics() if not line.error]
    if name in metrics:
        found.append(described_metric(metric_named(name)))
    for path in files:
        plugin, _ = read_loose(path)
        if plugin is not None and plugin.name == name:
            found.append(described(plugin))
    if not found:
        raise HarnessError(f"nothing is called '{name}'; {did_you_mean(name, [*known, *metrics])}")
    return found
