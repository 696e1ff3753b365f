"""Two replies beside each other: columns where there is room, and nothing that a terminal obeys."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from harness.show import columns
from harness.show.columns import side_by_side


@pytest.fixture
def terminal(monkeypatch):
    """terminal(columns): stdout goes to a terminal so wide; None: elsewhere."""
    return lambda room: monkeypatch.setattr(columns, "terminal_columns", lambda: room)


def test_a_single_text_stands_alone(terminal):
    for room in (None, 40, 100):
        terminal(room)
        assert side_by_side(["mine"], ["one\ntwo"]) == "one\ntwo"


@pytest.mark.parametrize("room", [None, 79])
def test_texts_stand_under_each_other_where_there_is_no_room(terminal, room):
    terminal(room)
    assert side_by_side(["mine", "base"], ["one\ntwo", "three"]) == "mine: one\n  two\nbase: three"


@pytest.mark.parametrize("room", [80, 101])
@pytest.mark.parametrize("word", ["lamp ", "灯", "x" * 300])
def test_columns_are_no_wider_than_the_terminal_and_keep_every_character(terminal, room, word):
    terminal(room)
    lines = side_by_side(["mine", "base"], [word * 60, "[bold]no"]).split("\n")
    assert max(map(cell_len, lines)) <= room
    assert lines[0].split() == ["mine", "base"]
    assert "[bold]no" in lines[2], "markup is text"
    left = "".join("".join(lines[2:]).replace("[bold]no", "").split())
    assert left == (word * 60).replace(" ", "")


@pytest.mark.parametrize("room", [None, 80])
def test_escape_sequences_are_shown(terminal, room):
    terminal(room)
    shown = side_by_side(["mi\x1b[31mne", "base"], ["\x1b[2Jgone", "\r\u202eback"])
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert "\\x1b[2Jgone" in shown
    assert "\\x1b[31mne" in shown
