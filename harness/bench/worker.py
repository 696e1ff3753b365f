"""One measurement in a process of its own: python -m harness.bench.worker FOLDER (a case.json lies there).

A fresh process for each keeps memory, threads and caches of one way out of the next. Lines on stdout are dialogues or
replies done so far; the result is written to FOLDER.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

TELL_EVERY_SECONDS = 0.5


def main(folder: Path) -> None:
    import torch

    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    torch.set_num_threads(case["threads"])
    result = (_train if case["kind"] == "train" else _generate)(folder, case)
    (folder / "result.tmp").write_text(json.dumps(result), encoding="utf-8")
    (folder / "result.tmp").rename(folder / "result.json")


def _train(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    from safetensors.torch import save_file

    from harness.bench import memory, ways
    from harness.bench.job import Job

    job = Job.read(Path(case["job"]))
    job = job.only(job.keys[: case["personas"]], case["epochs"])
    way = ways.find(case["way"])
    if case["way"] in ways.NEEDS_PEFT:
        import peft  # noqa: F401
        from transformers import Trainer  # noqa: F401
    ways.load_model(job)  # imports the architecture, and puts its file into the page cache, for all alike
    gc.collect()
    before = memory.start()
    result = way(job, folder, _Teller())
    peak = memory.peaks()
    save_file({key: prompt.contiguous() for key, prompt in result.prompts.items()}, folder / "prompts.safetensors")
    losses = ways.evaluate(job, result.prompts) if case["evaluate"] else {}
    table = {name: value for name, value in vars(result).items() if name != "prompts"}
    return {**table, **peak, "before_bytes": before, "validation_loss": losses}


def _generate(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    from harness.bench import decoding, memory, ways
    from harness.bench.job import Asked

    asked = Asked.read(Path(case["job"]), case["asked"])
    asked = asked.first(case["replies"])
    way = decoding.find(case["way"])
    if way in decoding.NEEDS_PEFT:
        import peft  # noqa: F401
    ways.load_model(asked)
    gc.collect()
    before = memory.start()
    result = way(asked, _Teller())
    return {**vars(result), **memory.peaks(), "before_bytes": before}


class _Teller:
    """Counts, and now and then prints, what is done."""

    def __init__(self) -> None:
        self.done, self.last = 0, time.monotonic()

    def __call__(self, more: int) -> None:
        self.done += more
        now = time.monotonic()
        if now - self.last >= TELL_EVERY_SECONDS:
            self.last = now
            print(self.done, file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
