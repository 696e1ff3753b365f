"""How long `compare` takes with 12 runs of 6 000 replies and 9 999 joint flips; wanted: at most 5 seconds.

    python tests/scripts/time_compare.py          prints the wall and processor seconds of the parts; not a test

Runs are made of numbers in a temporary folder; what is timed is what the command does, imports included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import written

PERSONAS, REPLIES, RUNS = 200, 30, 12


def write(folder: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0.8, 0.05, PERSONAS)
    for k in range(RUNS):
        scores = truth[:, None] + rng.normal(0.002 * k, 0.2, (PERSONAS, REPLIES))
        written(folder, f"method_{k:02d}", scores)


CODE = """
import time, sys
w, c = time.perf_counter(), time.process_time()
from harness.compare import joint
from harness.runs import all_runs
from pathlib import Path
w1, c1 = time.perf_counter(), time.process_time()
names = [f"method_{k:02d}" for k in range(12)]
found = joint(all_runs(Path(sys.argv[1])), names[0], names[1:])
w2, c2 = time.perf_counter(), time.process_time()
print(f"imports: {w1-w:.2f} s wall, {c1-c:.2f} s processor")
print(f"comparison of {len(found.rows)} methods: {w2-w1:.2f} s wall, {c2-c1:.2f} s processor")
"""

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", CODE, folder], check=True)
        print(f"whole process: {time.perf_counter() - start:.2f} s wall")
