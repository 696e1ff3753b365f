"""The documentation says what is true: its code runs, its commands parse, its links lead somewhere, its site builds.

A comment above a block says what a test does with it: `<!-- file: NAME -->` writes it to a file, `<!-- run -->` runs
its commands. All blocks of a page share an empty folder. Other blocks are not run, since they need hours, a GPU or the
network, but each of their `harness` commands must parse.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from harness.benchmarks.jsonl import JsonlOptions

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
LONG = ("docs/tutorial.md", "docs/your_method.md")  # of PAGES: their blocks take long
READ = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
MARKED = re.compile(r"^<!-- (run|file: (\S+)) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^<!-- (?:run\b|file:)", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
ENTRY = re.compile(r"^(\w+) {2,}(\S.*)$")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands(text: str) -> Iterator[str]:
    """The lines of a page's blocks, fenced or indented, that call the harness."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.splitlines()] + re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    for line in lines:
        if line.startswith("harness "):
            yield line.partition(" #")[0].strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=named(page), marks=[pytest.mark.long] * (named(page) in LONG))
        for page in PAGES
        if MARK.search(page.read_text("utf-8"))
    ],
)
def test_the_marked_blocks_of_a_page_run(page, harness, tmp_path, monkeypatch):
    text = page.read_text("utf-8")
    blocks = MARKED.findall(text)
    assert len(blocks) == len(MARK.findall(text)), "a mark stands right above its block"
    monkeypatch.chdir(tmp_path)
    for kind, file, body in blocks:
        if file:
            (tmp_path / file).write_text(body, encoding="utf-8")
            continue
        assert kind == "run"
        for line in body.splitlines():
            words = shlex.split(line)
            assert words[0] == "harness"
            code, _, err = harness(*words[1:])
            assert code == 0, f"{named(page)}: {line}\n{err}"


@pytest.mark.slow
@pytest.mark.long
def test_the_notebook_runs_and_says_what_it_shows(tmp_path, monkeypatch):
    """Every cell, from an empty folder. What it ends with is of the kind that is stored, and verdicts are the same."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "notebook"}
    cells = json.loads((ROOT / "docs/python.ipynb").read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    for cell in code:
        *lines, last = ast.parse("".join(cell["source"])).body
        assert isinstance(last, ast.Expr), "a cell ends with what it shows"
        exec(compile(ast.Module(lines, []), "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        (output,) = cell["outputs"]
        if "image/png" in output["data"]:
            assert value._repr_png_().startswith(b"\x89PNG")
        elif "text/html" in output["data"]:
            assert value._repr_html_()
    kinds = {"persona_prefix (unified.train.epochs=1)": "better", "zero_shot": "inconclusive"}
    assert names["table"].verdicts == kinds


@pytest.mark.parametrize("page", READ, ids=named)
def test_every_command_of_a_page_parses(page):
    import typer

    from harness.commands import app

    group = typer.main.get_command(app)
    for line in commands(page.read_text("utf-8")):
        if "..." in line:
            continue
        words = [word for word in shlex.split(line)[1:] if word != "--debug"]
        command: Any = group
        context = None
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{named(page)}: {line}"
            command = command.commands[words.pop(0)]
        if "--help" in words or hasattr(command, "commands"):
            continue
        try:
            context = command.make_context("harness", words)
        except Exception as error:
            pytest.fail(f"{named(page)}: {line}\n{error}")
        assert context is not None


@pytest.mark.parametrize("page", READ, ids=named)
def test_links_lead_to_files_and_headings(page):
    """As a code host follows them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{named(page)}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", place.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{named(page)}: {target}"


def option_table() -> str:
    """The options of the user's own data, from their docstring and defaults."""
    about: dict[str, str] = {}
    for line in (JsonlOptions.__doc__ or "").splitlines():
        if found := ENTRY.match(line.strip()):
            about[found[1]] = found[2]
        elif about and line.strip():
            about[next(reversed(about))] += f" {line.strip()}"
    rows = ["| option | default | what it is |", "|---|---|---|"]
    for item in fields(JsonlOptions):
        default = "" if item.name == "fields" or item.default in ("", (), None) else f"`{item.default}`".lower()
        rows.append(f"| `{item.name}` | {default} | {about[item.name]} |")
    return "\n".join(rows)


def test_the_page_on_own_data_lists_every_option():
    text = (ROOT / "docs/your_data.md").read_text("utf-8")
    block = text.partition("<!-- begin: options -->\n")[2].partition("\n<!-- end: options -->")[0]
    assert block == option_table()


def test_every_page_is_in_the_navigation_of_the_site():
    config = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in PAGES:
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}\n" in config, f"{named(page)} is in no menu"


# ---- the site ----

needs_mkdocs = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="pip install -e '.[docs]' brings mkdocs",
)


def build(root: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Not with --quiet: then mkdocs does not count the warnings that strict is about."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(root / "mkdocs.yml"), "-d", str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)


@needs_mkdocs
@pytest.mark.slow
def test_the_site_builds_with_commands_hooks_and_board_and_asks_nobody_else(tmp_path):
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    assert "--estimand" in (site / "reference/commands.html").read_text("utf-8")
    hooks = (site / "reference/plugins.html").read_text("utf-8")
    assert "<code>options</code>: an instance of the card's options dataclass" in hooks, "arguments are a list"
    assert (site / "board/index.html").is_file()
    for page in [site / "index.html", site / "tutorial.html"]:
        asked = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?:[^\"> ]+)", page.read_text("utf-8"))
        assert not [address for address in asked if "squidfunk" not in address]


@needs_mkdocs
@pytest.mark.slow
@pytest.mark.parametrize("link", ["[x](nowhere.md)", "[x](../harness/nowhere.py)", "[x](store.md#nowhere)"])
def test_a_broken_link_ends_the_build(tmp_path, link):
    """In a small site with the same hooks and checks."""
    config = (ROOT / "mkdocs.yml").read_text("utf-8")
    head, _, _ = config.partition("nav:\n")
    head = head[: head.index("  - mkdocstrings:")] + head[head.index("markdown_extensions:") :]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# x\n\n{link}\n")
    (tmp_path / "docs/store.md").write_text("# y\n\n## z\n")
    hooks = (ROOT / "docs/site_hooks.py").as_posix()
    (tmp_path / "mkdocs.yml").write_text(head.replace("docs/site_hooks.py", hooks))
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stderr
