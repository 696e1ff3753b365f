"""harness.progress: bars on a terminal, few lines in a log, nothing if silent, and never a word on stdout."""

from __future__ import annotations

import io
import re

import pytest

from harness.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(terminal: Terminal) -> list[str]:
    """The lines of the last picture: rich erases a picture line by line before it draws the next."""
    last = terminal.getvalue().rpartition("\x1b[2K")[2]
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last).splitlines() if line.strip()]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_with_percentage_and_estimate_at_most_every_ten_seconds():
    log, clock = io.StringIO(), Clock()
    progress = Progress(stream=log, seconds=clock)
    with progress.task("fit adapters", total=2000, unit="steps") as advance:
        for _ in range(60):  # a minute, 20 steps a second
            clock.now += 1
            advance(20)
    lines = log.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[0] == "fit adapters: 10 % (200/2,000 steps), 10 s so far, about 1 min 30 s left"
    assert lines[-1] == "fit adapters: 60 % (1,200/2,000 steps), 1 min 00 s so far, about 40 s left"


def test_nested_tasks_share_the_ten_seconds():
    log, clock = io.StringIO(), Clock()
    progress = Progress(stream=log, seconds=clock)
    with progress.task("outer", total=40) as outer:
        for _ in range(40):
            with progress.task("inner", total=1) as inner:
                clock.now += 1
                inner()
            outer()
    assert len(log.getvalue().splitlines()) == 4


def test_a_callback_may_tell_done_and_total():
    log, clock = io.StringIO(), Clock()
    with Progress(stream=log, seconds=clock).task("decode", total=0, unit="replies") as advance:
        clock.now += 20
        advance.to(5, 20)
        clock.now += 20
        advance.to(10, 20, "validation loss 1.20")
    assert log.getvalue().splitlines() == [
        "decode: 25 % (5/20 replies), 20 s so far, about 1 min 00 s left",
        "decode: 50 % (10/20 replies), 40 s so far, about 40 s left; validation loss 1.20",
    ]


def test_a_terminal_gets_bars_with_count_and_estimate_that_stop_with_the_last_task():
    terminal = Terminal()
    progress = Progress(stream=terminal)
    with progress.task("fit [adapters]", total=8, unit="steps") as advance, progress.task("inner", total=3):
        advance(2)
        progress.note("half-way [news]")
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "fit [adapters]" in drawn
    assert "2/8 steps" in drawn
    assert "left" in drawn
    assert "inner" in drawn
    assert "half-way [news]" in drawn
    before = terminal.getvalue()
    progress.note("afterwards")
    assert terminal.getvalue() == before + "afterwards\n"


def test_a_task_inside_one_of_its_title_counts_towards_it_and_is_not_shown_by_itself():
    terminal = Terminal()
    progress = Progress(stream=terminal)
    with progress.task("reply", total=10, unit="replies") as outer:
        for some in (4, 5):
            with progress.task("reply", total=some, unit="replies") as inner:
                inner.to(1, some)
                inner()
                inner.to(some, some)
        assert outer.done == 9
        with progress.task("reply", total=3, unit="replies") as inner:  # asked more often than was announced
            inner.to(3, 3)
        assert (outer.done, outer.total) == (12, 12)
        outer.to(10, 10)
    assert drawn(terminal) == [f"reply {'━' * 40} 10/10 replies 0:00:00"]


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120])
def test_no_bar_is_wider_than_the_terminal_and_counts_are_never_cut(monkeypatch, columns: int):
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    progress = Progress(stream=terminal)
    with (
        progress.task("runs", total=3, unit="runs"),
        progress.task("fit 8 x SoftPrompt", total=1024, unit="dialogues") as advance,
    ):
        advance.to(512, 1024, "3 of 8 adapters training, loss 0.186")
        progress.note("a line that is longer than a narrow terminal, and stays whole for whoever copies it")
    lines = drawn(terminal)
    assert len(lines) == 2, "each has one line"
    assert max(map(len, lines)) <= columns
    fit = lines[1]
    assert ("512/1024 dialogues" in fit) == (columns >= 40)
    assert ("loss 0.186" in fit) == (columns >= 60)
    assert ("3 of 8 adapters training, loss 0.186" in fit) == (columns >= 80)
    assert "━" in fit or columns < 120


def test_an_error_inside_a_task_gets_out_and_leaves_the_terminal_usable():
    terminal = Terminal()
    progress = Progress(stream=terminal)
    with pytest.raises(KeyError), progress.task("fit", total=8):
        raise KeyError("x")
    with progress.task("fit again", total=8) as advance:
        advance(8)
    assert "fit again" in terminal.getvalue()
    hidden, shown = "\x1b[?25l", "\x1b[?25h"  # the cursor
    assert terminal.getvalue().count(hidden) == terminal.getvalue().count(shown)


def test_silence(capsys: pytest.CaptureFixture[str]):
    progress = Progress("silent")
    with progress.task("fit", total=8) as advance:
        advance(3)
        advance.to(8, 8)
    progress.note("news")
    assert capsys.readouterr() == ("", "")


def test_nothing_goes_to_stdout(capsys: pytest.CaptureFixture[str]):
    progress = Progress("bars")
    with progress.task("fit", total=8) as advance:
        advance(3)
    progress.note("news")
    out, err = capsys.readouterr()
    assert out == ""
    assert "fit" in err
    assert "news" in err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7445, "2 h 04 min")]
)
def test_durations_read_as_people_say_them(seconds: float, text: str):
    assert duration(seconds) == text
