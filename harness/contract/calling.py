"""The one door to a plugin's code: every hook and every function that a plugin gives is called inside `calling`.

What it raises becomes one line with file and line, what it prints goes to stderr, and what it leaves changed in the
process (`process_state`) is put back and kept for the record.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from harness.contract.process_state import Before, put_for_a_while
from harness.errors import HarnessError, Passing, PluginError

F = TypeVar("F", bound=Callable[..., Any])

CHECK_SECONDS = 120.0  # of one hook in `harness check`, where worlds are tiny
FAILED = 2  # exit code
MOST_LETTERS = 500  # of a foreign exception's text


class Change(NamedTuple):
    """Something that a hook left changed. file: of the plugin; hook: as in messages; what: the name of a setting."""

    file: str
    hook: str
    what: str


_changes: list[Change] = []
_under_way: list[Before] = []
_models: Sequence[Any] = ()
_limit: float | None = None


@contextlib.contextmanager
def calling(
    here: str,
    hook: str,
    file: str | None,
    *,
    passing: tuple[type[Exception], ...] = (),
    importing: bool = False,
) -> Iterator[None]:
    """Call a plugin's code inside.

    here       what a message begins with: the plugin, and what it was asked for
    hook       as it is shown beside what was changed;  file: of the plugin
    passing    exceptions that mean something to the caller
    importing  the code is imported: it may set what imports set
    Raises PluginError in place of anything else that is no HarnessError and no interruption: an exit, too.
    """
    with _within_the_limit(here, file):
        before = Before.of(() if _under_way else _models, importing=importing)
        _under_way.append(before)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except (KeyboardInterrupt, HarnessError, Passing, *passing):
            raise
        except BaseException as error:
            raise PluginError(f"{here}: {_where(error, file, whole=importing)}{_said(error)}") from error
        finally:
            _under_way.pop()
            _changes.extend(Change(file or "", hook, what) for what in before.put_back())


def guarded(function: F, here: str, hook: str, file: str) -> F:
    """The function, called through the door."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with calling(here, hook, file):
            return function(*args, **kwargs)

    return call  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def keeping(models: Sequence[Any]) -> Iterator[None]:
    """Inside, a hook must leave the hooks, mode and gradients of these torch models as they are, too."""
    global _models
    before, _models = _models, models
    try:
        yield
    finally:
        _models = before


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """For what a hook asks of the harness: inside, the process is as it was before the hook.

    What is fitted does not depend on what the plugin has set before, so that others may find it in the store.
    """
    if not _under_way:
        yield
        return
    before, loaded = _under_way[0], set(sys.modules)
    try:
        with put_for_a_while(before.settings):
            yield
    finally:
        before.modules.update(sys.modules.keys() - loaded)  # no import of the plugin's


def keep_too(model: Any) -> None:
    """A torch model that is made inside a hook, for others too: the hook must leave it as it was made."""
    if _under_way:
        _under_way[0].add(model)


def changes(since: int = 0, among: Collection[str] | None = None) -> list[Change]:
    """What hooks have left changed in this process, each once, in order.

    since  how many changes there were before (`count_changes`);  among: only those by plugins with these files
    """
    found = _changes[since:]
    return list(dict.fromkeys(change for change in found if among is None or change.file in among))


def count_changes() -> int:
    """How many changes there were up to now."""
    return len(_changes)


def in_words(found: Iterable[Change]) -> tuple[str, ...]:
    """Changes as "fit: default dtype", each once."""
    return tuple(dict.fromkeys(f"{change.hook}: {change.what}" for change in found))


# ---- errors ----


def _own(filename: str, file: str) -> bool:
    """Whether code belongs to a plugin: its file, one beside it, or anywhere in its package."""
    home = Path(file)
    inside = Path(filename)
    return home.parent in inside.parents if home.name == "__init__.py" else home.parent == inside.parent


def _where(error: BaseException, file: str | None, *, whole: bool) -> str:
    """ "file.py:12: " of the deepest frame that is the plugin's own, empty if there is none; whole: with its folder.

    Messages of hooks go into records, which name no folder.
    """
    if isinstance(error, SyntaxError):
        return f"{error.filename if whole else Path(error.filename or '').name}:{error.lineno}: "
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [place for place in frames if file is not None and _own(place[0], file)]
    return f"{own[-1][0] if whole else Path(own[-1][0]).name}:{own[-1][1]}: " if own else ""


def _said(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())[:MOST_LETTERS].encode("utf-8", "replace").decode()
    except BaseException:  # it is the plugin's own class
        text = ""
    ends = "; a plugin returns or raises, it does not end the process" if not isinstance(error, Exception) else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{ends}"


# ---- time ----


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Inside, a call that takes longer ends the process: one line on stderr, exit code 2. There is no other way out
    of a plugin's endless loop.
    """
    global _limit
    before, _limit = _limit, seconds
    try:
        yield
    finally:
        _limit = before


@contextlib.contextmanager
def _within_the_limit(here: str, file: str | None) -> Iterator[None]:
    if _limit is None or _under_way:
        yield
        return
    seconds, caller, told = _limit, threading.current_thread(), threading.Lock()

    def end(*_: Any) -> None:
        if not told.acquire(blocking=False):  # thread and signal both come here: the other one is writing the line
            time.sleep(1)
            os._exit(FAILED)
        frame = sys._current_frames().get(caller.ident or 0)
        line = f"harness: {here}: {_standing(frame, file)}has not ended after {seconds:g} s; see --timeout\n"
        os.write(2, line.encode("utf-8", "replace"))  # a stuck thread may hold the locks of sys.stderr
        os._exit(FAILED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    # Code that holds the interpreter's lock, as a regular expression does, lets no thread run, but it looks at signals.
    alarm = caller is threading.main_thread() and hasattr(signal, "SIGALRM")
    handler = signal.signal(signal.SIGALRM, end) if alarm else None
    if alarm:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        timer.cancel()
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)


def _standing(frame: FrameType | None, file: str | None) -> str:
    """ "file.py:12: " where the plugin's own code stands now; empty if it is not under way."""
    while frame is not None:
        if file is not None and _own(frame.f_code.co_filename, file):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}: "
        frame = frame.f_back
    return ""
