"""`check_method`: the checks in a process of their own, and what its driver says itself.

The driver imports no plugin. That a process ends, or does not, is its word, and so is whether two processes give the
same: one that has gone through all checks, and a fresh one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from harness.contract import CHECK_SECONDS, user_path
from harness.errors import HarnessError
from harness.testkit.report import FRESH, TOLERANCE, Report, Result
from harness.workers import channel, ended, start

HOOKS_OF_A_STEP = 4  # at most: a process that says nothing for so many time limits is ended
SECONDS_BESIDE = 30.0  # that a step may take without its hooks
SECONDS_TO_START = 300.0  # that a process has to import torch, on a machine that does much else
STUCK = "has not ended after"  # of `harness.contract.time_limit`
MOST_BYTES_KEPT = 4096  # of what a process has written to stderr last
Status = Literal["ok", "failed", "skipped"]


def check_method(name: str, files: Sequence[str | Path] = (), timeout: float = CHECK_SECONDS) -> Report:
    """Run every check on a method: an installed one, or one in a loose file.

    name, files  as for `harness run --method NAME --plugin FILE`
    timeout      seconds that one hook may take on the tiny world; the check ends with one that takes longer
    Raises PluginError if there is no plugin of that name. One that is there and cannot be loaded fails `hooks`.
    """
    started = time.perf_counter()
    paths = [str(user_path(file).absolute()) for file in files]
    source = next((path for path in paths if Path(path).stem == name), "an installed plugin")
    with tempfile.TemporaryDirectory(prefix="harness-check-", ignore_cleanup_errors=True) as folder:
        question = {"name": name, "files": paths, "timeout": timeout}
        with _Checked(question, Path(folder), source) as checked:
            checked.hear()
    return Report(name, checked.source, tuple(checked.results), time.perf_counter() - started)


class _Over(Exception):  # noqa: N818 (an outcome, not an error)
    """A process has ended, or was ended, before it said all; the text says how."""


class _Checked:
    """A method whose checks are under way."""

    def __init__(self, question: dict[str, Any], folder: Path, source: str) -> None:
        self.source, self.results = source, list[Result]()
        self._question, self._folder = question, folder
        self._wanted: list[tuple[str, str]] = []
        self._held = contextlib.ExitStack()
        self._first, self._second = self._process("check", 0), None

    def __enter__(self) -> _Checked:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def hear(self) -> None:
        """Everything, up to the end of both processes."""
        self._wanted = self._names()
        *checks, _ = self._wanted
        trial = None
        try:
            while (message := self._first.next()).kind != "end":
                match message.kind:
                    case "source":
                        self.source = str(message.fields["source"])
                    case "works":
                        self._second = self._process("fresh", 1)
                    case "result":
                        self.results.append(_result(message, *checks[len(self.results)]))
                    case _:
                        trial = message
            if len(self.results) < len(checks):
                raise _Over("its process sent no result")
        except _Over as over:
            self._cut(str(over))
            return
        except (IndexError, KeyError, TypeError, ValueError):
            self._cut("its process sent something that is no result of a check")
            return
        self.results.append(self._compared(trial))

    def _process(self, kind: str, number: int) -> _Process:
        """One of the two. Their sets of texts are ordered differently, as those of two runs are."""
        folder = self._folder / kind
        folder.mkdir()
        question = channel.Message(kind, {**self._question, "folder": str(folder)})
        return self._held.enter_context(contextlib.closing(_Process(question, folder, number)))

    def _names(self) -> list[tuple[str, str]]:
        """The checks to come, which the process tells before it imports a plugin."""
        try:
            message = self._first.next()
        except _Over as over:
            raise HarnessError(f"the checks could not begin: {over}") from None
        return [(str(name), str(proves)) for name, proves in message.fields["checks"]]

    def _cut(self, reason: str) -> None:
        """The check under way has failed, and the others are not made."""
        *checks, last = self._wanted
        place = len(self.results)
        if place < len(checks):
            self.results.append(Result(*checks[place], "failed", reason))
            skipped = [*checks[place + 1 :], last]
        else:
            self.results.append(Result(*last, "failed", reason))
            skipped = []
        why = f"the check has ended, see '{self.results[place].name}'"
        self.results += [Result(*one, "skipped", why) for one in skipped]

    def _compared(self, used: channel.Message | None) -> Result:
        """What the two processes have told of the same trial."""
        if self._second is None or used is None:
            return Result(*FRESH, "skipped", "it does not fit and reply, see the checks before")
        try:
            fresh = self._second.next()
        except _Over as over:
            return Result(*FRESH, "failed", f"in a process that begins with this: {over}")
        except HarnessError as error:
            return Result(*FRESH, "failed", f"in a process that begins with this: {error}")
        for told, where in ((used, "that has fitted and replied before"), (fresh, "that begins with this")):
            if told.kind == "failed":
                return Result(*FRESH, "failed", f"in a process {where}: {told.fields.get('reason')}")
        if difference := _difference(used, fresh):
            return Result(
                *FRESH,
                "failed",
                f"{difference} between a process that has fitted and replied before and a fresh one: keep nothing in "
                "modules from one call to the next (counters, caches without data, options and seed in their keys), "
                "and let nothing depend on the order of a set",
            )
        return Result(*FRESH, "ok")


class _Process:
    """One process and what it says."""

    def __init__(self, question: channel.Message, folder: Path, number: int) -> None:
        self._seconds = HOOKS_OF_A_STEP * question.fields["timeout"] + SECONDS_BESIDE
        self._timeout, self._shown, self._begun = question.fields["timeout"], number == 0, False
        self._said, self._messages = b"", queue.SimpleQueue[channel.Message | Exception]()
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._process = start("harness.testkit.process", folder=folder, hashes=number, **pipes)
        self._overhearing = threading.Thread(target=self._overhear, daemon=True)
        self._overhearing.start()
        threading.Thread(target=self._listen, daemon=True).start()
        with contextlib.suppress(channel.Closed):
            channel.write(self._process.stdin, question)

    def next(self) -> channel.Message:
        """The next message but for those on its steps. Raises _Over, and what the process raised."""
        while True:
            try:
                found = self._messages.get(timeout=self._seconds if self._begun else SECONDS_TO_START)
                self._begun = True
            except queue.Empty:
                raise _Over(f"a hook {STUCK} {self._timeout:g} s; see --timeout") from None
            if isinstance(found, channel.Closed):
                raise _Over(self._end())
            if isinstance(found, Exception):
                raise _Over("its process sent something that is no message")
            if found.kind == "error":
                raise self._raised(found)
            if found.kind != "step":
                return found

    @staticmethod
    def _raised(message: channel.Message) -> Exception:
        try:
            return channel.raised(message)
        except KeyError:
            return _Over("its process sent something that is no message")

    def close(self) -> None:
        """End it: there is nothing that it could lose."""
        self._process.kill()
        self._process.wait()
        self._overhearing.join(1.0)  # a process that a plugin has started may hold stderr open

    def _end(self) -> str:
        """How it ended by itself."""
        code = self._process.wait()
        self._overhearing.join(1.0)
        lines = self._said.decode("utf-8", "replace").splitlines()
        if lines and lines[-1].startswith("harness: ") and STUCK in lines[-1]:
            return lines[-1].removeprefix("harness: ")
        return f"{ended(code)}; a plugin returns or raises"

    def _listen(self) -> None:
        try:
            while True:
                self._messages.put(channel.read(self._process.stdout))
        except (channel.Closed, HarnessError) as error:
            self._messages.put(error)

    def _overhear(self) -> None:
        """What a plugin prints is shown as it comes; of two processes only the first one's."""
        while part := os.read(self._process.stderr.fileno(), 2**16):
            self._said = (self._said + part)[-MOST_BYTES_KEPT:]
            if self._shown:
                sys.stderr.write(part.decode("utf-8", "replace"))
                sys.stderr.flush()


def _result(message: channel.Message, name: str, proves: str) -> Result:
    """What a check found. Raises KeyError, TypeError or ValueError for anything else."""
    status, reason = message.fields["status"], message.fields["reason"]
    if message.fields["name"] != name or status not in get_args(Status) or not isinstance(reason, str):
        raise ValueError(message.fields)
    return Result(name, proves, status, reason)


def _difference(one: channel.Message, other: channel.Message) -> str:
    """The first thing in which two trials differ, in a few words; empty if nothing does."""
    if one.arrays.keys() != other.arrays.keys():
        return "the adapters have other parts"
    for name, values in one.arrays.items():
        if values.shape != other.arrays[name].shape:
            return f"{name} has another shape"
        gap = np.abs(values - other.arrays[name])
        if not (gap <= TOLERANCE * np.maximum(1.0, np.abs(values))).all():
            return f"{name} differs by up to {np.nanmax(gap):.1e}"
    replies = list(zip(one.fields["replies"], other.fields["replies"], strict=True))
    place = next((number for number, (a, b) in enumerate(replies, 1) if a != b), 0)
    return f"reply {place} differs" if place else ""
