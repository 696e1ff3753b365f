"""How far long work has come: bars with an estimate on a terminal, now and then a line in a log, or nothing.

Everything goes to stderr: stdout belongs to results. What is counted is the callers' business.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bars,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness.text import one_line, terminal

LINE_EVERY_SECONDS = 10.0


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
        self._bars: Bars | None = None
        self._open = 0

    @contextmanager
    def task(self, title: str, total: int, unit: str = "") -> Iterator[Advance]:
        """A piece of work of `total` steps, called `unit`; yields what reports them.

        with progress.task("fit persona adapters", total=1234, unit="steps") as advance:
            advance(8)                       # eight more
            generate(..., progress=advance.to)   # or: so many of so many
        """
        if self._mode == "silent":
            yield Advance(total, lambda done, total, note: None)
        elif self._mode == "bars":
            with self._bar(title, total, unit) as advance:
                yield advance
        else:
            yield self._lines(title, total, unit)

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
            self._bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(file=self._stream, force_terminal=True),
            )
            self._bars.start()
        bars = self._bars
        self._open += 1
        number: TaskID = bars.add_task(one_line(title), total=total, unit=unit, note="")
        try:
            yield Advance(
                total, lambda done, total, note: bars.update(number, completed=done, total=total, note=one_line(note))
            )
        finally:
            self._open -= 1
            if self._open == 0:  # a bar left running would draw over what is printed next
                bars.stop()
                self._bars = None

    def _lines(self, title: str, total: int, unit: str) -> Advance:
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

        return Advance(total, show)


def duration(seconds: float) -> str:
    """Seconds as people say it: "8 s", "3 min 05 s", "2 h 04 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
