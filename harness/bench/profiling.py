"""Where the time goes: the shares of a run by what the main thread is doing, and torch's own table of a short fit.

A sampler looks at the main thread's stack a hundred times a second, so nothing in the measured code has to know of it;
torch's operations release the interpreter lock, so it looks in the middle of them, too.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from tabulate import tabulate

from harness.adapters import create_bank
from harness.bench.job import Job
from harness.config import RunConfig
from harness.engines import THREAD_NAME
from harness.model import load_backbone, set_repeatable
from harness.progress import Progress
from harness.training import fit_bank

EVERY_SECONDS = 0.01
ENGINE, MODULES = "harness/engines/engine.py", ("torch/nn/modules/module.py", "_call_impl")
# Kind of work -> (part of a file's path, name of a function or "" for any), in order of precedence: a stack counts as
# the first of these that any of its frames matches.
Rules = Sequence[tuple[str, Sequence[tuple[str, str]]]]
RULES: Rules = (
    ("import", (("<frozen importlib", ""),)),
    ("scoring", (("harness/scoring/", ""),)),
    ("decoding", ((ENGINE, "replies"), ("transformers/generation/", "generate"))),
    ("backward", (("torch/autograd/__init__.py", "backward"), ("torch/autograd/", "grad"), ("/engines/", "backward"))),
    ("optimiser", (("harness/training/optimiser.py", ""), ("torch/optim/", ""), ("torch/nn/utils/clip_grad.py", ""))),
    ("forward", ((ENGINE, "reply_nll"), (ENGINE, "choice_log_probs"), ("/engines/", "token_losses"), MODULES)),
    ("batching", (("harness/engines/batching.py", ""), ("torch/utils/data/", ""))),
    ("waves", (("/training/waves.py", "_all"),)),  # waiting for the threads that do the work
    ("prompts", (("harness/model/prompts.py", ""), ("harness/model/templates.py", ""))),
    ("store", (("harness/store/", ""), ("adapters/files.py", ""))),
)  # fmt: skip
ASKED = " (target for a run of 200 personas: >= 80 %)"
WORK = ("forward", "backward", "decoding")  # what a run is for; the rest is overhead


class Sampler:
    """Counts what the thread that opens it is doing, while it is open.

    with Sampler() as sampler: ...
    sampler.shares()   # {"forward": .4, ..., "other": .02}
    """

    def __init__(self, rules: Rules = RULES, every_seconds: float = EVERY_SECONDS) -> None:
        self.rules, self.every = rules, every_seconds
        self.counts: dict[str, float] = defaultdict(float)
        self.others: Counter[str] = Counter()
        self.seconds = 0.0
        self._kinds: dict[tuple[str, str], int] = {}
        self._thread = threading.get_ident()
        self._stop = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Sampler:
        self._started = time.perf_counter()
        self._looking.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.seconds = time.perf_counter() - self._started
        self._stop.set()
        self._looking.join()

    def shares(self) -> dict[str, float]:
        """Kind of work -> share of the time."""
        total = sum(self.counts.values()) or 1
        return {kind: n / total for kind, n in sorted(self.counts.items(), key=lambda item: -item[1])}

    def _look(self) -> None:
        while not self._stop.wait(self.every):
            frame = sys._current_frames().get(self._thread)
            kind = self.kind(frame)
            if kind == "waves" and (workers := _wave_threads()):
                for worker in workers:
                    self.counts[self.kind(worker)] += 1 / len(workers)
                continue
            self.counts[kind] += 1
            if kind == "other" and frame is not None:
                self.others[_where(frame)] += 1

    def kind(self, frame: FrameType | None) -> str:
        """What a stack is doing."""
        found = len(self.rules)
        while frame is not None:
            found = min(found, self._kind_of(frame.f_code.co_filename, frame.f_code.co_name))
            frame = frame.f_back
        return self.rules[found][0] if found < len(self.rules) else "other"

    def _kind_of(self, file: str, function: str) -> int:
        """Number of the first rule that a frame matches."""
        key = file, function
        if key not in self._kinds:
            path = file.replace("\\", "/")
            matches = (
                number
                for number, (_, places) in enumerate(self.rules)
                if any(part in path and name in ("", function) for part, name in places)
            )
            self._kinds[key] = next(matches, len(self.rules))
        return self._kinds[key]


def _wave_threads() -> list[FrameType]:
    """Stacks of the threads that compute waves for a fit."""
    frames = sys._current_frames()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [frame for ident, frame in frames.items() if names.get(ident, "").startswith(THREAD_NAME)]


def _where(frame: FrameType) -> str:
    """The innermost frame of the harness, else the innermost."""
    at: FrameType | None = frame
    while at is not None:
        if "harness/" in at.f_code.co_filename.replace("\\", "/"):
            break
        at = at.f_back
    at = at or frame
    return f"{'/'.join(at.f_code.co_filename.replace(chr(92), '/').rsplit('/', 2)[-2:])}:{at.f_code.co_name}"


def summary(sampler: Sampler) -> dict[str, Any]:
    """Seconds, shares, the share of forward, backward and decoding, and the largest pieces of the rest."""
    shares = sampler.shares()
    total = sum(sampler.counts.values()) or 1
    return {
        "seconds": sampler.seconds,
        "samples": round(sum(sampler.counts.values())),
        "shares": shares,
        "work": sum(shares.get(kind, 0.0) for kind in WORK),
        "largest_others": {where: count / total for where, count in sampler.others.most_common(8)},
    }


def profile_training(job: Job, progress: Progress) -> dict[str, Any]:
    """The harness's fit of a job under the sampler, and torch's operations in one epoch of a few of its adapters."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    set_repeatable(job.threads)  # as in a run
    backbone = load_backbone(str(job.base), device=job.device, dtype=job.dtype)
    bank = create_bank(backbone, job.spec, job.keys, job.seed)
    cuda = job.device.startswith("cuda")
    with progress.task("fit under the sampler", 0, "dialogues") as advance, Sampler() as sampler:
        report = fit_bank(
            backbone,
            bank,
            bank.by_row(job.data("train")),
            bank.by_row(job.data("validation")),
            job.options,
            job.seed,
            progress=advance.to,
        )
        if cuda:
            torch.cuda.synchronize()
    few = job.only(job.keys[:8], epochs=1)
    small = create_bank(backbone, few.spec, few.keys, few.seed)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        fit_bank(
            backbone,
            small,
            small.by_row(few.data("train")),
            (),
            replace(few.options, patience=0),
            few.seed,
        )
    return {
        **summary(sampler),
        "tokens_per_second": report.tokens / sampler.seconds,
        "operations": _operations(profiler, cuda),
    }


def profile_run(config: RunConfig, files: Sequence[str | Path], progress: Progress) -> dict[str, Any]:
    """A whole `harness run` under the sampler: data, fits, replies, scores, the baseline, the test."""
    from harness.runner import execute

    with Sampler() as sampler:
        outcome = execute(replace(config, isolate=False), files, progress)  # what another process does is not seen
    record, runs = outcome.run.record, {"run": outcome.run, "baseline": outcome.baseline}
    return {
        **summary(sampler),
        "personas": record.n_personas,
        "replies": record.n_replies,
        "cost": {name: run.record.cost and run.record.cost.model_dump() for name, run in runs.items()},
    }


def _operations(profiler: Any, cuda: bool, count: int = 12) -> list[dict[str, Any]]:
    """The dearest operations by their own time."""
    name = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, name))
    total = sum(getattr(event, name) for event in events) or 1
    return [{"operation": e.key, "share": getattr(e, name) / total, "calls": e.count} for e in events[:count]]


def text(found: Mapping[str, Any]) -> str:
    """For people."""
    shares = [[kind, f"{share:.1%}"] for kind, share in found["shares"].items()]
    parts = [
        f"{found['seconds']:.1f} s, {found['samples']:,} samples of the main thread; "
        f"forward, backward and decoding: {found['work']:.1%}" + ASKED * ("cost" in found),
        tabulate(shares, headers=["what", "share of the time"], tablefmt="github"),
    ]
    if found["largest_others"]:
        rest = ", ".join(f"{where} {share:.1%}" for where, share in found["largest_others"].items())
        parts.append(f"Largest pieces of `other`: {rest}")
    if found.get("operations"):
        lines = [[row["operation"], f"{row['share']:.1%}", f"{row['calls']:,}"] for row in found["operations"]]
        parts.append(tabulate(lines, headers=["operation (own time)", "share", "calls"], tablefmt="github"))
    return "\n\n".join(parts)
