"""Does a method plugin keep the contract? `checks_of` runs small named checks on it, here in this process.

`check_method` in `isolated` has them run in processes of their own, for `harness check` and for the tests of plugin
authors. The checks are in `checks`, what they try a method on in `lab` and `harness.testkit.tiny_world`, how options
and objects are watched in `watching`.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.contract import count_changes, list_plugins, load_with_required
from harness.errors import HarnessError
from harness.testkit.checks import CHECKS
from harness.testkit.lab import CheckFailed, CheckSkipped, Lab, Trial, message
from harness.testkit.report import FRESH, LOADS, Report, Result


def check_names() -> list[str]:
    """The checks in the order in which they run."""
    return [name for name, _ in proved()]


def proved() -> list[tuple[str, str]]:
    """(name, what it proves) of every check, in their order."""
    return [LOADS, *((check.name, check.proves) for check in CHECKS), FRESH]


def check_here(name: str, files: Sequence[str | Path] = ()) -> Report:
    """As `harness.testkit.check_method`, in this process: for a debugger. What needs two processes is skipped."""
    started = time.perf_counter()
    # A plugin that prints must not write between the lines of a report or into JSON.
    with tempfile.TemporaryDirectory(prefix="harness-check-") as folder, contextlib.redirect_stdout(sys.stderr):
        checking = Checking(name, files, Path(folder))
        results = [*checking.results(), Result(*FRESH, "skipped", "there is one process")]
    return Report(name, checking.source, tuple(results), time.perf_counter() - started)


class Checking:
    """One method on its way through the checks.

    name, files  as for `harness run --method NAME --plugin FILE`
    folder       to write to
    step         called before every call of a hook on the tiny world
    Raises PluginError if there is no plugin of that name. One that is there and cannot be loaded fails `hooks`.
    """

    def __init__(
        self, name: str, files: Sequence[str | Path], folder: Path, step: Callable[[], None] = lambda: None
    ) -> None:
        before = count_changes()
        self.lab: Lab | None = None
        self._checks, self._why = tuple(CHECKS), ""  # as they are before any plugin is imported
        try:
            methods = load_with_required(name, files)
        except HarnessError as error:
            source = _source(name, files)
            if source is None:
                raise
            self.source, self._why = source, str(error)
            return
        self.source = str(methods[name].source)
        self.lab = Lab(methods, name, folder, before, step)

    def results(self) -> Iterator[Result]:
        """One after another, as they are found."""
        lab = self.lab
        if lab is None:
            yield Result(*LOADS, "failed", self._why)
            for check in self._checks:
                yield Result(check.name, check.proves, "skipped", "the plugin cannot be loaded, see 'hooks'")
            return
        yield Result(*LOADS, "ok")
        for check in self._checks:
            try:
                check.run(lab)
                yield Result(check.name, check.proves, "ok")
            except CheckSkipped as reason:
                yield Result(check.name, check.proves, "skipped", str(reason))
            except CheckFailed as reason:
                yield Result(check.name, check.proves, "failed", str(reason))
            except Exception as error:
                yield Result(check.name, check.proves, "failed", message(error, lab.method))


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
