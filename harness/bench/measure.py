"""Repeats of measurements, one process each, in turn (A B C A B C), so that a drift of the machine hits all alike.

What a measurement does is in worker and ways; what the figures mean is in report.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from harness.errors import HarnessError
from harness.progress import Advance, Progress
from harness.store import canonical_hash, source_hash

RESULT, PROMPTS = "result.json", "prompts.safetensors"


@dataclass(frozen=True)
class Case:
    """One line of a table, measured `repeats` times.

    label      of the line, unique
    way        what is run
    kind       "train" or "generate"
    amount     personas or replies that are measured;  of: as many as the figure stands for
    scale      work of all in units of the work that is measured
    epochs     other than the job's
    evaluate   whether validation losses are wanted
    asked      name of the file with what is asked
    work       what it is expected to cost, in any unit common to all cases
    """

    label: str
    way: str
    kind: str
    amount: int
    of: int
    scale: float = 1.0
    epochs: int | None = None
    evaluate: bool = True
    asked: str = ""
    work: float = 1.0
    reported: int = 1  # dialogues or replies that it will report as done


@dataclass
class Measured:
    """All repeats of a case; `results` as the worker wrote them, `prompts` of the first."""

    case: Case
    results: list[dict[str, Any]] = field(default_factory=list)
    prompts: Mapping[str, Tensor] = field(default_factory=dict)

    def seconds(self) -> list[float]:
        """Of each repeat, scaled from what was measured to what the case stands for; loading once is not scaled."""
        return [r["load_seconds"] + (r["seconds"] - r["load_seconds"]) * self.case.scale for r in self.results]

    def middle(self, name: str) -> float:
        """Median over the repeats of a figure as measured."""
        return statistics.median(result[name] for result in self.results)


def environment(threads: int) -> dict[str, str]:
    """What every measured process starts with: the same threads, nothing from the network, no chatter."""
    count = str(threads)
    return {
        **os.environ,
        "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error",
    }  # fmt: skip


def measure(
    folder: Path, cases: Sequence[Case], repeats: int, threads: int, progress: Progress, unit: str = "padded k tokens"
) -> list[Measured]:
    """Run all cases `repeats` times in turn; what is in the folder already is not run again.

    Raises HarnessError with the last words of a process that failed.
    """
    found = [Measured(case) for case in cases]
    total = repeats * sum(case.work for case in cases)
    done = 0.0
    with progress.task("measure", round(total), unit) as advance:
        for repeat in range(repeats):
            for measured in found:
                case, note = measured.case, f"{measured.case.label}, {repeat + 1} of {repeats}"
                place = folder / "results" / re.sub(r"[^a-z0-9_]+", "-", f"{case.label} {repeat}")
                if not (place / RESULT).exists():
                    _run(folder, place, case, threads, _Share(advance, done, total, case, note))
                done += case.work
                advance.to(round(done), round(total), note)
                measured.results.append(json.loads((place / RESULT).read_text(encoding="utf-8")))
                if repeat == 0 and (place / PROMPTS).exists():
                    measured.prompts = load_file(place / PROMPTS)
    return found


@dataclass(frozen=True)
class _Share:
    """The part of the whole progress that one case is."""

    advance: Advance
    before: float
    total: float
    case: Case
    note: str

    def __call__(self, done: int) -> None:
        share = min(1.0, done / max(1, self.case.reported)) * self.case.work
        self.advance.to(round(self.before + share), round(self.total), self.note)


def _run(folder: Path, place: Path, case: Case, threads: int, progress: _Share) -> None:
    """One measurement; `place` then holds what it found."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    table = {
        "job": str(folder), "kind": case.kind, "way": case.way, "threads": threads, "epochs": case.epochs,
        "personas": case.amount, "replies": case.amount, "evaluate": case.evaluate, "asked": case.asked,
    }  # fmt: skip
    (place / "case.json").write_text(json.dumps(table), encoding="utf-8")
    complaints = place / "stderr.txt"
    with complaints.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.bench.worker", str(place)],
            stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(threads),
        )  # fmt: skip
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip().isdigit():
                    progress(int(line))
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if code:
        words = [line for line in complaints.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        last = words[-1] if words else "it printed no message"
        raise HarnessError(f"the way '{case.way}' failed (exit code {code}): {last}; leave it out of --ways")
    for leftover in ("adapters", "scratch"):
        shutil.rmtree(place / leftover, ignore_errors=True)


@contextlib.contextmanager
def workplace(keep: Path | None, identity: Any) -> Iterator[Path]:
    """A folder to measure in: a temporary one, or one that is kept, so that an interrupted bench can go on.

    identity   JSON of all that decides on the figures. Raises HarnessError for a folder of another bench.
    """
    if keep is None:
        with tempfile.TemporaryDirectory() as scratch:  # after an interruption nothing is left
            yield Path(scratch)
        return
    digest = canonical_hash([identity, source_hash("harness.study", "harness.bench.worker", __name__)])
    mark = keep / "bench.txt"
    if keep.exists() and any(keep.iterdir()) and not (mark.exists() and mark.read_text("utf-8") == digest):
        raise HarnessError(
            f"--keep {keep} holds something else, or a bench of other code or options; take a new folder"
        )
    keep.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest, encoding="utf-8")
    yield keep
