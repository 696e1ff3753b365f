"""Does a method plugin keep the contract? `check_method` runs small named checks on it and reports each.

For `harness check` and for the tests of plugin authors. The checks are in `checks`, what they try a method on in
`lab` and `harness.testkit.tiny_world`, how options and objects are watched in `watching`.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.contract import count_changes, list_plugins, load_with_required
from harness.errors import HarnessError
from harness.testkit.checks import CHECKS
from harness.testkit.lab import CheckFailed, CheckSkipped, Lab, Trial, message

__all__ = ["Report", "Result", "Trial", "check_method", "check_names", "tiny_trial"]

LOADS = ("hooks", "its hooks, card and options keep the contract, and what it requires is there")


@dataclass(frozen=True)
class Result:
    """One check of one method.

    name, proves  the check, and what it shows when it is ok
    status        ok, failed or skipped
    reason        why it failed and how to mend that, or why it was skipped; empty if ok
    """

    name: str
    proves: str
    status: Literal["ok", "failed", "skipped"]
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of one method. `source` says where its code lies, `seconds` how long it took."""

    method: str
    source: str
    results: tuple[Result, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(r.name for r in self.results if r.status == "failed")

    def text(self) -> str:
        """For a terminal, or for the message of a failing test."""
        width = max(len(r.name) for r in self.results)
        lines = [f"{r.name:<{width}}  {r.status:<7}  {r.reason or r.proves}" for r in self.results]
        count = {status: sum(r.status == status for r in self.results) for status in ("ok", "failed", "skipped")}
        summary = ", ".join(f"{number} {status}" for status, number in count.items() if number)
        return "\n".join([*lines, "", f"{self.method} ({self.source}): {summary}, {self.seconds:.1f} s"])

    def as_json(self) -> dict[str, Any]:
        """Plain data for --json."""
        checks = [{"name": r.name, "proves": r.proves, "status": r.status, "reason": r.reason} for r in self.results]
        return {
            "method": self.method,
            "source": self.source,
            "ok": self.ok,
            "failed": list(self.failed),
            "seconds": round(self.seconds, 2),
            "checks": checks,
        }


def check_names() -> list[str]:
    """The checks in the order in which they run."""
    return [LOADS[0], *(check.name for check in CHECKS)]


def check_method(name: str, files: Sequence[str | Path] = ()) -> Report:
    """Run every check on a method: an installed one, or one in a loose file.

    name, files  as for `harness run --method NAME --plugin FILE`
    Raises PluginError if there is no plugin of that name. One that is there and cannot be loaded fails `hooks`.
    """
    started, before = time.perf_counter(), count_changes()
    source = _source(name, files)
    try:
        methods = load_with_required(name, files)
    except HarnessError as error:
        if source is None:
            raise
        skipped = [Result(c.name, c.proves, "skipped", "the plugin cannot be loaded, see 'hooks'") for c in CHECKS]
        return Report(name, source, (Result(*LOADS, "failed", str(error)), *skipped), time.perf_counter() - started)
    results = [Result(*LOADS, "ok")]
    # A plugin that prints must not write between the lines of a report or into JSON.
    with tempfile.TemporaryDirectory(prefix="harness-check-") as folder, contextlib.redirect_stdout(sys.stderr):
        lab = Lab(methods, name, Path(folder), before)
        for check in CHECKS:
            try:
                check.run(lab)
                results.append(Result(check.name, check.proves, "ok"))
            except CheckSkipped as reason:
                results.append(Result(check.name, check.proves, "skipped", str(reason)))
            except CheckFailed as reason:
                results.append(Result(check.name, check.proves, "failed", str(reason)))
            except Exception as error:
                results.append(Result(check.name, check.proves, "failed", message(error, methods[name])))
    return Report(name, str(methods[name].source), tuple(results), time.perf_counter() - started)


def tiny_trial(name: str, folder: Path, files: Sequence[str | Path] = ()) -> Trial:
    """A method fitted on the tiny world, for tests of its own: `.study`, `.fitted`, `.predict(prompts)`.

    folder       where its adapters are kept, e.g. pytest's tmp_path
    name, files  as for `check_method`
    """
    return Lab(load_with_required(name, files), name, folder).trial()


def _source(name: str, files: Sequence[str | Path]) -> str | None:
    """Where the plugin of that name lies, loadable or not; None if there is none."""
    for file in map(Path, files):
        if file.stem == name and file.is_file():
            return str(file)
    return next((str(x.file) for x in list_plugins("method", ()) if x.name == name), None)
