"""How long `harness leaderboard` takes with 50 runs of 200 personas and 6 000 replies; wanted: at most 10 seconds.

    python tests/scripts/time_leaderboard.py [SECTIONS]     50 runs in so many comparable sections (10); not a test

Runs are made of numbers in a temporary folder; what is timed is the whole process, imports included.
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
from conftest import written

PERSONAS, REPLIES, RUNS = 200, 30, 50


def write(folder: Path, sections: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0.8, 0.05, PERSONAS)
    for k in range(RUNS):
        section, place = k % sections, k // sections
        scores = truth[:, None] + rng.normal(0.002 * place, 0.2, (PERSONAS, REPLIES))
        name = f"method_{place:02d}" if place else "base"
        written(folder, name, scores, hashes={"examples": f"{section:064x}"}, id=f"run-{k:03d}")


if __name__ == "__main__":
    sections = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "runs", sections)
        board = Path(folder)
        for turn in range(3):
            board = Path(folder) / f"board_{turn}"
            words = ["leaderboard", "--runs-dir", f"{folder}/runs", "--output", f"{board}/README.md"]
            start, before = time.perf_counter(), os.times()
            subprocess.run([sys.executable, "-c", "from harness.cli import main; main()", *words], check=True)
            wall, after = time.perf_counter() - start, os.times()
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            print(f"{RUNS} runs in {sections} sections: {wall:.2f} s wall, {spent:.2f} s processor")
        sizes = {path.name: path.stat().st_size for path in board.glob("*") if path.is_file()}
        plots = [path.stat().st_size for path in (board / "plots").glob("*.svg")]
        print(f"{sizes}, {len(plots)} plots of {sum(plots):,} bytes")
