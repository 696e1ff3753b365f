"""Where a command's output goes: shown text and nothing else to a terminal, or one JSON value alone to stdout.

What is written is the commands' business, and what is harmless in a terminal `harness.text`'s.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from rich.cells import cell_len

from harness.text import json_text, terminal

_STDOUT, _STDERR = 1, 2
_results: list[Callable[[str], object]] = []  # writes to the real stdout of the command under way


class _Shown:
    """A text stream that shows what could steer the terminal; everything else is the stream's own.

    A line that is wider than the terminal is broken between words.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # as every text stream; click asks by trying
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        shown = terminal(text)
        self._stream.write(_folded(shown, shutil.get_terminal_size().columns) if self._stream.isatty() else shown)
        return len(text)

    def write_whole(self, text: str) -> None:
        """The same with no line broken, for what other programs read."""
        self._stream.write(terminal(text))

    def writelines(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def streams(arguments: Sequence[str], last: bool) -> Iterator[None]:
    """Inside, stdout is for a command with these arguments.

    With --json, all that is written to stdout goes to stderr, by a plugin, a library or another process that they
    start, too; only `print_json` reaches the real one. Without, escape sequences are shown in place of being obeyed.
    last   the process ends with the command, and what its end writes goes where the rest went
    """
    out = sys.stdout
    if "--json" not in arguments or {"--help", "-h"} & set(arguments):
        sys.stdout = _Shown(out)  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield
        finally:
            sys.stdout = out
        return
    kept = _kept_stdout()
    _results.append(_writer(out, kept))
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        _results.pop()
        if not last:
            sys.stdout.flush()
            sys.stdout = out
            if kept is not None:
                os.dup2(kept, _STDOUT)
        if kept is not None:
            os.close(kept)


def _folded(text: str, columns: int) -> str:
    """Text whose lines are no wider; a broken line goes on two columns to the right of where it began."""
    return "\n".join(map(functools.partial(_broken, columns=columns), text.split("\n")))


def _broken(line: str, columns: int) -> str:
    if cell_len(line) <= columns:
        return line
    indent = line[: len(line) - len(line.lstrip())] + "  "
    words = textwrap.TextWrapper(
        columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )
    return words.fill(line)


def print_json(value: Any, indent: int | None = 2) -> None:
    """Write a value as strict JSON to the real stdout. indent: None writes it as one line."""
    text = json_text(value, indent) + "\n"
    if _results:
        _results[-1](text)
    else:
        print_whole(text)


def print_whole(text: str) -> None:
    """Write a file's text to stdout: its lines stay whole on a narrow terminal, too."""
    getattr(sys.stdout, "write_whole", sys.stdout.write)(text)


def _kept_stdout() -> int | None:
    """The real stdout under another number, while stderr takes its own; None where there is none."""
    try:
        sys.stdout.flush()
        kept = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
    except (OSError, AttributeError):
        return None
    return kept


def _writer(out: TextIO, kept: int | None) -> Callable[[str], object]:
    """What writes to `out`: by the kept number where it is stdout itself, else (a test that captures) as it is."""
    try:
        is_real = out.fileno() == _STDOUT
    except (AttributeError, OSError, io.UnsupportedOperation):
        is_real = False
    if not is_real or kept is None:
        return out.write

    def write(text: str) -> None:
        rest = text.encode(out.encoding or "utf-8", "backslashreplace")
        with contextlib.suppress(BrokenPipeError):  # who read it has gone away
            while rest:
                rest = rest[os.write(kept, rest) :]

    return write
