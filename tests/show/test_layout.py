"""Tables and sentences on a terminal: nothing is cut, no row breaks; in a file or a pipe nothing changes."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest
from rich.cells import cell_len

from harness.show import layout
from harness.show.layout import table, table_lines

HEAD = (
    "",
    "similarity (pt)",
    "delta",
    "95 % CI",
    "simultaneous CI",
    "p",
    "parameters",
    "fit s",
    "base fit s",
    "reply s",
)
CELLS = ("87.54", "+6.02", "[+3.23, +8.81]", "[+2.84, +9.02]", "0.008", "10,240", "9", None, "6")
SCORES: list[dict[str, Any]] = [
    dict(zip(HEAD, (name, *CELLS), strict=True)) for name in ("persona_prefix", "oracle: persona")
]
SUMMARY = "a soft prompt per persona on the frozen unified LoRA, and more words than fit"
WORDS = [
    {"name": "prefix", "summary": SUMMARY, "from": "this harness"},
    {"name": "日本語の名前", "summary": "short", "from": "/a/folder/without/spaces/plugin.py"},
]


@pytest.fixture
def columns(monkeypatch):
    """columns(n): stdout goes to a terminal of so many."""

    def narrow(count: int) -> None:
        monkeypatch.setenv("COLUMNS", str(count))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    return narrow


@pytest.mark.parametrize("room", [60, 80, 100, 120])
@pytest.mark.parametrize("rows", [SCORES, WORDS], ids=["scores", "words"])
def test_a_table_fits_its_terminal_and_loses_nothing(capsys, columns, room, rows):
    whole = table(rows)
    columns(room)
    shown = table(rows)
    assert max(map(cell_len, shown.split("\n"))) <= room
    assert {*re.findall(r"\S+", whole)} - {*re.findall(r"-+", whole)} <= {*re.findall(r"\S+", shown)}


def test_columns_that_do_not_fit_stand_below_with_the_first_one_again(capsys, columns):
    columns(60)
    parts = table(SCORES).split("\n\n")
    assert len(parts) > 1
    for part in parts:
        assert [line.split("  ")[0] for line in part.split("\n")[2:]] == ["persona_prefix", "oracle: persona"]
    heads = [word for part in parts for word in re.split(r"\s{2,}", part.split("\n")[0].strip())]
    assert heads == [key for key in SCORES[0] if key and key != "base fit s"]


def test_an_indented_table_leaves_room_for_it(capsys, columns):
    columns(60)
    lines = table_lines(WORDS, indent=6)
    assert all(line.startswith(" " * 6) for line in lines)
    assert max(map(cell_len, lines)) <= 60


def test_a_pipe_gets_every_row_on_one_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert layout.terminal_columns() is None
    assert len(table(WORDS).split("\n")) == 2 + len(WORDS)


@pytest.mark.parametrize("room", [60, 80, 120])
@pytest.mark.parametrize("command", ["list methods", "list runs", "compare base good", "show good", "diff base good"])
def test_what_a_command_prints_fits_the_terminal(harness, put, tmp_path, columns, room, command):
    base, good = put("base", [0.5 + i / 100 for i in range(12)]), put("good", [0.6 + i / 90 for i in range(12)])
    first, *rest = command.split()
    words = {"show": [good.id], "diff": [base.id, good.id]}.get(first, rest)
    where = ["--runs-dir", tmp_path / "runs"]
    _, whole, _ = harness(first, *words, *where)
    columns(room)
    code, shown, err = harness(first, *words, *where)
    assert code == 0, err
    assert max(map(cell_len, shown.split("\n"))) <= room
    assert not {*re.findall(r"[\w.+]+", whole)} - {*re.findall(r"[\w.+]+", shown)}


def test_lists_say_where_plugins_come_from_and_fit_120_columns_in_a_pipe(harness, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("from harness import *\nx = 1 / 0\n")
    code, out, _ = harness("list", "methods")
    assert code == 0
    assert out.split("\n")[0].split() == ["name", "summary", "from"]
    assert {line.rsplit("  ", 1)[1] for line in out.strip().split("\n")[2:]} == {"this harness"}
    assert max(map(len, out.split("\n"))) <= 140
    (row,) = [row for row in json.loads(harness("list", "methods", "--json", "--plugin", plugin)[1]) if row["error"]]
    assert row["file"] == str(plugin)
    assert f"{plugin}:2: ZeroDivisionError" in row["error"]


@pytest.mark.parametrize("odd", ["0x1f", "\u4e16\u754c"])
def test_a_tall_table_is_drawn_as_a_short_one_is(monkeypatch, odd):
    """Where all is ASCII its rows are not laid out one by one."""
    values = [None, "", "a", "longer than its head", odd, " a  b ", "-1.50", "x" * 40, "true"]
    rows = [{"n": f"n{i}", "b": values[i % 9], "long head": values[i // 9 % 9], "": values[i % 7]} for i in range(99)]
    short, laid_out = layout.table(rows), []
    monkeypatch.setattr(layout, "TALL", 1)
    drawn = layout._drawn
    monkeypatch.setattr(layout, "_drawn", lambda head, cells, form: laid_out.append(cells) or drawn(head, cells, form))
    assert layout.table(rows) == short
    assert len(laid_out[0]) == (1 if odd.isascii() else len(rows))
