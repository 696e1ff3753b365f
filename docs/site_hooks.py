"""For mkdocs: pages made of the code (commands, configuration) and of files beside docs/, and links that leave docs/.

A link to a file of the repository that is no page becomes the file's name; one to no file at all ends the build.
"""

from __future__ import annotations

import inspect
import json
import logging
import posixpath
import re
import types
from importlib.resources import files as resources
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = {  # of the repository -> of the site
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docs/python.ipynb": "python.md",
}
BOARD = ("leaderboard/README.md", "leaderboard/index.html")  # both are the page that is copied to
BOARD_PAGE = "board/index.html"
_LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
_WORDS: dict[Any, str] = {bool: "switch", int: "whole number", float: "number", Path: "path"}
_log = logging.getLogger("mkdocs.plugins.site_hooks")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in docs/."""
    made = {"reference/commands.md": commands(), "reference/configuration.md": configuration()}
    made |= {page: _text(name) for name, page in PAGES.items()}
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    files.append(File.generated(config, BOARD_PAGE, content=(ROOT / BOARD[1]).read_text("utf-8")))
    for plot in sorted((ROOT / "leaderboard/plots").glob("*.svg")):
        files.append(File.generated(config, f"board/plots/{plot.name}", content=plot.read_text("utf-8")))
    return files


def _text(name: str) -> str:
    """A file of the repository as a page: markdown, or a notebook's cells with what they gave."""
    text = (ROOT / name).read_text("utf-8")
    if not name.endswith(".ipynb"):
        return text
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [_shown(output["data"]) for output in cell.get("outputs", ()) if "data" in output]
    return "\n\n".join(parts) + "\n"


def _shown(data: dict[str, Any]) -> str:
    """The richest form of a cell's output."""
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        return "".join(line for line in "".join(data["text/html"]).splitlines(True) if line.strip())
    return f"```text\n{''.join(data['text/plain'])}\n```"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links out of docs/, as the site has them."""
    source = page.file.src_uri
    here = posixpath.dirname(next((name for name, made in PAGES.items() if made == source), f"docs/{source}"))

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith(("mailto:", "#")):
            return found.group()
        place = posixpath.normpath(posixpath.join(here, path))
        there = PAGES.get(place, place.removeprefix("docs/") if place.startswith("docs/") else None)
        if place in BOARD:
            there = BOARD_PAGE
        if there is not None:
            relative = posixpath.relpath(there, posixpath.dirname(source) or ".")
            return f"[{text}]({relative}{'#' if anchor else ''}{anchor})"
        if not (ROOT / place).exists():
            _log.warning("%s: the link to %s leads nowhere", source, target)
        return f"`{place}`" if text.strip("`") == place else f"{text} (`{place}`)"

    parts = _CODE.split(markdown)
    return "".join(part if part.startswith("`") else _LINK.sub(link, part) for part in parts)


# ---- pages made of the code ----


def commands() -> str:
    """Every command with its arguments and options, from typer."""
    import typer

    from harness.commands import app

    lines = ["# Commands", "", "Made of the program itself: `harness COMMAND --help` says the same.", ""]
    for name, command in _leaves("harness", typer.main.get_command(app)):
        text, _, example = (command.help or "").partition("\b\nExample:")
        lines += [f"## `{name}`", "", text.strip(), ""]
        if example.strip():
            lines += ["```sh", example.strip(), "```", ""]
        hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
        rows = [(_named(one), _kind(hints[one.name]), _about(one)) for one in command.params if one.name in hints]
        if rows:
            lines += ["| | | |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(lines)


def _leaves(name: str, command: Any) -> list[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        return [(name, command)]
    return [leaf for word in sorted(inner) for leaf in _leaves(f"{name} {word}", inner[word])]


def _named(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{word}`" for word in [*parameter.opts, *parameter.secondary_opts])


def _kind(hint: Any) -> str:
    """A type in words."""
    inner = [one for one in get_args(hint) if one is not type(None)]
    if get_origin(hint) is Annotated or (get_origin(hint) in (Union, types.UnionType) and len(inner) == 1):
        return _kind(inner[0])
    if get_origin(hint) is list:
        return f"{_kind(inner[0])}, repeatable"
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    return _WORDS.get(hint, "text")


def _about(parameter: Any) -> str:
    default = parameter.default
    shown = "" if default is None or callable(default) or isinstance(default, bool) else f" [default: {default}]"
    text = f"{parameter.help or ''}{'' if '[default' in (parameter.help or '') else shown}"
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def configuration() -> str:
    """What a configuration file may hold, from the shipped files."""
    folder = resources("harness.configs")
    lines = [
        "# Configuration",
        "",
        "A run starts from `configs/default.yaml`. A file given with `--config`, flags and `--set` override it, in",
        "this order. `--config NAME` takes a file of yours or a ready-made one by its name. Options of plugins stand",
        "under `set`.",
        "",
    ]
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".yaml"))
    for name in ["default.yaml", *(name for name in names if name != "default.yaml")]:
        lines += [f"## `{name}`", "", "```yaml", folder.joinpath(name).read_text("utf-8").rstrip(), "```", ""]
    return "\n".join(lines)
