"""`harness new-method` and `harness check`: for people who write a method of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands import completion
from harness.commands.common import Json, Plugins, app, example, print_json
from harness.contract import CHECK_SECONDS
from harness.text import shell_word


@app.command("check")
@example("check")
def check_command(
    name: Annotated[
        str,
        typer.Argument(
            help="Method to check: an installed one, or the one in --plugin FILE.", autocompletion=completion.methods
        ),
    ],
    plugin: Plugins = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that one hook may take on the tiny world; then the check ends.")
    ] = CHECK_SECONDS,
    as_json: Json = False,
) -> None:
    """Check that a method keeps the contract, on a tiny world. Exit code 0: nothing failed; 2: something did."""
    from harness.testkit import check_method

    report = check_method(name, plugin or [], timeout)
    if as_json:
        print_json(report.as_json())
    else:
        typer.echo(report.text())
    if not report.ok:
        raise typer.Exit(2)


@app.command("new-method")
@example("new-method")
def new_method_command(
    name: Annotated[str, typer.Argument(help="Name of the method: letters, digits and underscores.")],
    output: Annotated[Path, typer.Option(help="Folder to write into; made if it is not there.")] = Path(),
) -> None:
    """Write a new method as a loose file that works, with its configuration and its test."""
    from harness.testkit import new_method

    plugin, config, test = new_method(name, output)
    words = {path: shell_word(path) for path in (plugin, config, test)}
    typer.echo(
        f"{plugin}: the method\n{config}: a run of it\n{test}: its test\n\nnext:\n"
        f"  pytest {words[test]}\n"
        f"  harness check {name} --plugin {words[plugin]}\n"
        f"  harness run --config {words[config]} --plugin {words[plugin]}\n\n"
        f'to ship it, declare it in the pyproject.toml of your package:\n  [project.entry-points."harness.methods"]\n'
        f'  {name} = "your_package.{name}"'
    )
