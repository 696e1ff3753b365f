"""How long commands take with 10 000 stored runs; wanted: list, show, compare of three 2 s, leaderboard 30 s, 500 MB.

    python tests/scripts/time_many_runs.py [WORLDS METHODS SEEDS]     10 200 5; not a test

Runs are made of numbers, without replies, in a temporary folder. Each command is a process; the best of three is shown.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import stored

from harness.runs import write_run
from harness.store import Store

PERSONAS = 60


def write(folder: Path, worlds: int, methods: int, seeds: int) -> int:
    rng, truth = np.random.default_rng(0), np.random.default_rng(1).normal(0.7, 0.05, PERSONAS)
    shape = np.ndindex(worlds, methods, seeds)
    for number, (world, method, seed) in enumerate(shape):
        scores = truth + rng.normal(0.0005 * method, 0.03, PERSONAS)
        name = f"method_{method:05d}" if method else "base"
        more = {"hashes": {"examples": f"{world:064x}"}, "id": f"run-{number:06d}", "seed": seed}
        write_run(Store(folder), stored(folder, name, scores, **more).record)
    return worlds * methods * seeds


def timed(*words: str) -> str:
    """Wall seconds of a command and the most memory that it took."""
    seconds, memory = [], 0
    for _ in range(3):
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-c", "from harness.cli import main; main()", *words], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(child.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, words
        seconds.append(time.perf_counter() - start)
        memory = max(memory, usage.ru_maxrss)
    return f"{words[0]:12} {min(seconds):6.2f} s  {memory / 1000:5.0f} MB"


if __name__ == "__main__":
    worlds, methods, seeds = map(int, sys.argv[1:4] or (10, 200, 5))
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place) / "runs"
        count = write(runs, worlds, methods, seeds)
        print(f"{count} runs: {worlds} worlds of {methods} methods, {seeds} seeds each")
        three = [",".join(f"run-{method * seeds + seed:06d}" for seed in range(seeds)) for method in range(3)]
        where = ("--runs-dir", str(runs))
        print(timed("list", "runs", *where))
        print(timed("show", "run-000100", *where))
        print(timed("compare", *three, *where))
        print(timed("leaderboard", *where, "--output", f"{place}/board/README.md"))
