"""How long `compare` takes with 12 runs of 6 000 replies and 9 999 joint flips; wanted: at most 5 seconds.

    python tests/scripts/time_compare.py          prints the wall and processor seconds of the parts; not a test

Runs are made of numbers in a temporary folder; what is timed is what the command does, imports included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from conftest import stored

from harness.store.disk import dump_json

PERSONAS, REPLIES, RUNS = 200, 30, 12


def write(folder: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0.8, 0.05, PERSONAS)
    for k in range(RUNS):
        scores = truth[:, None] + rng.normal(0.002 * k, 0.2, (PERSONAS, REPLIES))
        run = stored(folder, f"method_{k:02d}", scores.mean(1), n=REPLIES, created="2026-01-01")
        record = dict(run.record)
        sums = record.pop("per_persona")
        run.path.mkdir(parents=True)
        dump_json(record, run.path / "run.json")
        dump_json(sums, run.path / "personas.json")
        with (run.path / "scores.jsonl").open("w") as file:
            for p, row in zip(sums["personas"], scores, strict=True):
                for i, value in enumerate(row):
                    file.write(json.dumps({"id": f"{p}/{i}#0", "persona": p, "similarity": value, "reply": "x"}) + "\n")


CODE = """
import time, sys
w, c = time.perf_counter(), time.process_time()
from harness.compare import joint
from harness.store import Store
from pathlib import Path
w1, c1 = time.perf_counter(), time.process_time()
names = [f"method_{k:02d}" for k in range(12)]
found = joint(Store(Path(sys.argv[1])).runs(), names[0], names[1:])
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
