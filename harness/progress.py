"""How far long work has come: bars with an estimate on a terminal, now and then a line in a log, or nothing.

Everything goes to stderr: stdout belongs to results. What is counted is the callers' business.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress as RichProgress, Task, TaskID
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from harness.text import one_line, terminal

LINE_EVERY_SECONDS = 10.0
WIDEST_BAR, NARROWEST_BAR = 40, 8  # columns of the terminal


class Advance:
    """Reports steps of one task: call it with how many more are done, or tell it the standing with `to`.

    `to` has the shape of the progress callbacks of generation and likelihood (done, total) and of training
    (done, total, note).
    """

    def __init__(self, total: int, show: Callable[[int, int, str], None]) -> None:
        self.done = 0
        self.total = total
        self._show = show

    def __call__(self, steps: int = 1) -> None:
        self.to(self.done + steps, self.total)

    def to(self, done: int, total: int, note: str = "") -> None:
        """So many of so many are done, and a few words on how it goes; the total may change on the way."""
        self.done, self.total = done, total
        self._show(done, total, note)


class Progress:
    """Shows tasks, also several at a time, in the way that fits where stderr goes.

    mode     "auto": bars if `stream` is a terminal, else lines; "bars", "lines" and "silent" insist
    stream   where to write; stderr by default
    seconds  the clock, for tests
    """

    def __init__(
        self,
        mode: Literal["auto", "bars", "lines", "silent"] = "auto",
        stream: TextIO | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        if mode == "auto":
            mode = "bars" if self._stream.isatty() else "lines"
        self._mode = mode
        self._seconds = seconds
        self._last_line = seconds()
        self._bars: _Bars | None = None
        self._open: dict[tuple[str, str], Advance] = {}  # by title and unit

    @contextmanager
    def task(self, title: str, total: int, unit: str = "") -> Iterator[Advance]:
        """A piece of work of `total` steps, called `unit`; yields what reports them.

        A task inside another one of the same title and unit counts towards that one and is not shown by itself.

        with progress.task("fit persona adapters", total=1234, unit="steps") as advance:
            advance(8)                       # eight more
            generate(..., progress=advance.to)   # or: so many of so many
        """
        if outer := self._open.get((title, unit)):
            yield _part_of(outer, total)
        elif self._mode == "silent":
            yield Advance(total, lambda done, total, note: None)
        else:
            shown = self._bar if self._mode == "bars" else self._lines
            with shown(title, total, unit) as advance:
                self._open[title, unit] = advance
                try:
                    yield advance
                finally:
                    del self._open[title, unit]

    def note(self, text: str) -> None:
        """One line of news between the bars or lines; nothing if silent."""
        if self._mode != "silent":
            self.warn(text)

    def warn(self, text: str) -> None:
        """One line that is said even if silent: something is wrong, and the work goes on."""
        text = terminal(text)
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    @contextmanager
    def _bar(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        if self._bars is None:
            self._bars = _Bars(console=Console(file=self._stream, force_terminal=True))
            self._bars.start()
        bars = self._bars
        number: TaskID = bars.add_task(one_line(title), total=total, unit=unit, note="")
        try:
            yield Advance(
                total, lambda done, total, note: bars.update(number, completed=done, total=total, note=one_line(note))
            )
        finally:
            bars.stop_task(number)
            if all(task.stop_time is not None for task in bars.tasks):
                bars.stop()  # a bar left running would draw over what is printed next
                self._bars = None

    @contextmanager
    def _lines(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        started = self._seconds()

        def show(done: int, total: int, note: str) -> None:
            now = self._seconds()
            # All tasks share one clock, so that nested ones do not add up to a flood.
            if now - self._last_line < LINE_EVERY_SECONDS or total <= 0:
                return
            self._last_line = now
            left = ""
            if 0 < done < total:
                left = f", about {duration((now - started) * (total - done) / done)} left"
            count = f"{done:,}/{total:,} {unit}".strip()
            share = f"{100 * done / total:.0f} % ({count})"
            news = f"; {one_line(note)}" if note else ""
            self.note(f"{one_line(title)}: {share}, {duration(now - started)} so far{left}{news}")

        yield Advance(total, show)


def _part_of(outer: Advance, total: int) -> Advance:
    """Reports steps of a task as further steps of another, whose total grows where it has too few."""
    before = outer.done

    def show(done: int, _: int, note: str) -> None:
        outer.to(before + done, max(outer.total, before + done), note)

    return Advance(total, show)


class _Bars(RichProgress):
    """A line for each task that fits the terminal: what matters least is left out, so that nothing is cut off."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        lines = [_BarLine(task) for task in tasks if task.visible]
        if not lines:  # rich asks before it has a console
            return Table.grid()
        room = self.console.width
        chosen = {"title", "count"}
        used = _widest(lines, "title") + 1 + _widest(lines, "count")
        for part in ("left", "note", "bar", "elapsed"):
            if part == "note" and used + 1 + _widest(lines, "note") > room:
                for line in lines:
                    line.shorten_note(room - used - 1)
            wide = NARROWEST_BAR if part == "bar" else _widest(lines, part)
            if 0 < wide <= room - used - 1:
                chosen.add(part)
                used += 1 + wide
        names = [name for name in ("title", "bar", "count", "elapsed", "left", "note") if name in chosen]
        bar = min(WIDEST_BAR, NARROWEST_BAR + room - used) if "bar" in chosen else None
        table = Table.grid(
            *(Column(no_wrap=True, overflow="ellipsis", width=bar if name == "bar" else None) for name in names),
            padding=(0, 1),
        )
        for line in lines:
            table.add_row(*(line.bar(bar) if name == "bar" else Text(line.parts[name]) for name in names))
        return table


class _BarLine:
    """What there is to show of a task. parts: the text of each part by its name."""

    def __init__(self, task: Task) -> None:
        self._task = task
        total = "?" if task.total is None else f"{int(task.total)}"
        left = task.time_remaining
        self.parts = {
            "title": task.description,
            "count": f"{int(task.completed):>{len(total)}}/{total} {task.fields['unit']}".rstrip(),
            "elapsed": _clock(task.finished_time if task.finished else task.elapsed),
            "left": "" if task.finished or task.stop_time is not None else f"{_clock(left)} left",
            "note": task.fields["note"],
        }

    def shorten_note(self, room: int) -> None:
        """Keep of the note the last of its parts, between commas, that have room."""
        parts = self.parts["note"].split(", ")
        while parts and cell_len(", ".join(parts)) > room:
            parts.pop(0)
        self.parts["note"] = ", ".join(parts)

    def bar(self, width: int | None) -> ProgressBar:
        task = self._task
        total = None if task.total is None else max(0, task.total)
        waits = not task.started or not total
        return ProgressBar(total, max(0, task.completed), width, pulse=waits, animation_time=task.get_time())


def _widest(lines: Iterable[_BarLine], part: str) -> int:
    return max((cell_len(line.parts[part]) for line in lines), default=0)


def _clock(seconds: float | None) -> str:
    """Seconds as 0:01:05; of a time that is not known, dashes of the same width."""
    if seconds is None:
        return "-:--:--"
    minutes, whole = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{whole:02d}"


def duration(seconds: float) -> str:
    """Seconds as people say it: "8 s", "3 min 05 s", "2 h 04 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
