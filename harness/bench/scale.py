"""`bench scale`: what a store of very many people costs, and how fast they are fitted. Nobody's data: random numbers.

A store of N people is what a comparison of METHODS methods leaves, but for the texts of replies: a baseline and each
method with sums per persona, and one bank of N soft prompts. What the figures mean for GPUs is in docs/scaling.md.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from harness.adapters import PROMPT, Bank, create_bank, open_adapter, save_bank
from harness.bench import memory
from harness.bench.measure import environment
from harness.bench.prepare import Subject, encoded
from harness.contract import SoftPrompt, TrainOptions
from harness.errors import HarnessError
from harness.model import Backbone, Encoded
from harness.progress import Progress
from harness.runs import RunRecord, StoredRun, read_record, write_run
from harness.scoring import MetricSums, PersonaSums
from harness.store import Store, size_bytes
from harness.training import fit_bank

METHODS = 5
TOKENS = 10  # of each soft prompt
REPLIES = 10  # scored a person
OPENED = 20  # people whose adapter is opened
FIT_DIALOGUES, FIT_EPOCHS = 2, 1  # a person
OPEN_SECONDS, COMPARE_SECONDS, COMPARE_BYTES = 0.1, 300.0, 8e9  # targets
_POLL_SECONDS = 0.02
_BASE, _METRIC = "base", "similarity"


@dataclass(frozen=True)
class Scale:
    """What is measured. people: sizes of stores;  fitted: sizes of banks that are trained;  threads of each process"""

    people: Sequence[int]
    fitted: Sequence[int]
    threads: int


def measure_scale(
    scale: Scale, backbone: Backbone, subject: Callable[[], Subject], progress: Progress
) -> dict[str, Any]:
    """Rows of all stores and fits, the slope of fitting, and the targets. Each store is removed once it is measured.

    subject   whose dialogues are fitted, asked for once
    Raises HarnessError where the disk is too small for the largest store.
    """
    torch.set_num_threads(scale.threads)
    _check_space(backbone, max(scale.people, default=0))
    stores = []
    steps = len(_steps()) * len(scale.people)
    with progress.task("measure stores", steps, "steps") as advance:
        for people in scale.people:
            with tempfile.TemporaryDirectory(prefix="harness-scale-") as place:
                stores.append(_store(Path(place), people, backbone, scale.threads, lambda: advance(1)))
    fits = _fits(scale.fitted, backbone, subject(), progress) if scale.fitted else []
    return {"stores": stores, "fits": fits, "fit_slope": _slope(fits), "targets": _targets(stores)}


# ---- stores ----


def _steps() -> tuple[str, ...]:
    return ("adapters", "results", "open", "list", "compare")


def _store(place: Path, people: int, backbone: Backbone, threads: int, done: Callable[[], None]) -> dict[str, Any]:
    """One store: made, measured."""
    runs = place / "runs"
    keys = tuple(f"p{number:08d}" for number in range(people))
    row: dict[str, Any] = {"people": people, "methods": METHODS, "tokens": TOKENS}
    started = time.perf_counter()
    save_bank(_random_bank(backbone, keys), place / "adapters", backbone.name)
    row["write_adapters_seconds"] = time.perf_counter() - started
    row["adapter_bytes_a_person"] = size_bytes(place / "adapters") / people
    done()
    started = time.perf_counter()
    written = [_write_results(runs, keys, number) for number in range(METHODS + 1)]
    row["write_results_seconds"] = (time.perf_counter() - started) / len(written)
    row["result_bytes_a_person"] = size_bytes(written[0].path) / people
    row["in_parquet"] = (written[0].path / "people.parquet").is_file()
    started = time.perf_counter()
    read_record(written[0].path / "run.json")
    row["read_results_seconds"] = time.perf_counter() - started
    names = [run.record.method for run in written]
    del written
    done()
    opened, cpu = _open_seconds(place / "adapters", keys)
    row |= {"open_seconds": statistics.median(opened), "open_seconds_longest": max(opened)}
    row["open_cpu_seconds"] = statistics.median(cpu)
    done()
    del keys
    row |= {f"list_{name}": value for name, value in _command(["list", "runs"], runs, threads)[0].items()}
    done()
    figures, text = _command(["compare", *names, "--json"], runs, threads)
    row |= {f"compare_{name}": value for name, value in figures.items()}
    row["compared"] = json.loads(text)["n_personas"]
    done()
    return row


def _random_bank(backbone: Backbone, keys: tuple[str, ...]) -> Bank:
    """Soft prompts of random numbers, as large as fitted ones."""
    one = create_bank(backbone, SoftPrompt(tokens=TOKENS), keys[:1], seed=0)
    shape = (len(keys), *one.tensors[PROMPT].shape[1:])
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=one.tensors[PROMPT].dtype)
    return replace(one, keys=keys, tensors={PROMPT: values})


def _write_results(runs: Path, keys: tuple[str, ...], number: int) -> StoredRun:
    """A run of made-up scores: everybody has their own level, method `number` adds a little."""
    level = np.random.default_rng(0).normal(0.7, 0.05, len(keys))
    noise = np.random.default_rng(number + 1).normal(0.0005 * number, 0.03, len(keys))
    sums = np.clip(level + noise, 0, 1) * REPLIES
    entry = MetricSums(
        unit="pt", higher_is_better=True, summary="made up", sum=tuple(sums.tolist()), n=(REPLIES,) * len(keys)
    )
    name = f"method_{number}" if number else _BASE
    record = RunRecord.model_validate({
        "id": f"{name}-made-up", "status": "ok", "method": name,
        "plugin": {"distribution": "made-up", "version": "0", "file": f"{name}.py", "sha256": ""},
        "config": {"method": name, "benchmark": "made-up", "baseline": _BASE},
        "seed": 0, "benchmark": {"name": "made-up", "options": {}, "facts": {}, "sha256": ""}, "metrics": [_METRIC],
        "hashes": {"examples": f"{len(keys)} people"}, "created": "made up", "n_personas": len(keys),
        "n_replies": REPLIES * len(keys), "scores": {_METRIC: float(sums.mean()) / REPLIES},
        "per_persona": PersonaSums(personas=keys, replies=(REPLIES,) * len(keys), metrics={_METRIC: entry}),
    })  # fmt: skip
    return write_run(Store(runs), record)


def _open_seconds(folder: Path, keys: Sequence[str]) -> tuple[list[float], list[float]]:
    """Seconds on the clock, and of the processor, until the adapter of each of some people is in memory.

    They are read from the disk where the system allows it.
    """
    _forget(folder)
    chosen = np.random.default_rng(0).choice(len(keys), size=min(OPENED, len(keys)), replace=False)
    seconds, cpu = [], []
    for place in chosen:
        started, used = time.perf_counter(), time.process_time()
        open_adapter(folder, keys[int(place)])
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return seconds, cpu


def _forget(folder: Path) -> None:
    """Take the files of a folder out of the page cache, so that they are read from the disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def _command(words: Sequence[str], runs: Path, threads: int) -> tuple[dict[str, Any], str]:
    """Seconds on the clock and of processors, most resident bytes, and stdout of a harness command.

    Raises HarnessError where it fails.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as err:
        started = time.perf_counter()
        command = [sys.executable, "-P", "-m", "harness", *words, "--runs-dir", str(runs)]
        child = psutil.Popen(command, stdout=out, stderr=err, env=environment(threads))
        peak, cpu = 0, 0.0
        try:
            while child.poll() is None:
                try:
                    peak, times = max(peak, child.memory_info().rss), child.cpu_times()
                    cpu = times.user + times.system
                except psutil.Error:  # it has just ended
                    break
                time.sleep(_POLL_SECONDS)
            code = child.wait()
        except BaseException:
            child.kill()
            child.wait()
            raise
        seconds = time.perf_counter() - started
        if code:
            err.seek(0)
            last = (err.read().strip().splitlines() or ["it printed no message"])[-1]
            raise HarnessError(f"`harness {words[0]}` failed (exit code {code}): {last}")
        out.seek(0)
        return {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}, out.read()


def _check_space(backbone: Backbone, people: int) -> None:
    values = TOKENS * backbone.hidden * 4 * people
    needed, place = 1.1 * values + 200 * people, Path(tempfile.gettempdir())
    if (free := shutil.disk_usage(place).free) < needed:
        raise HarnessError(
            f"a store of {people:,} people takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {place}; "
            "name fewer --people, or another disk in the variable TMPDIR"
        )


# ---- fits ----


def _fits(sizes: Sequence[int], backbone: Backbone, subject: Subject, progress: Progress) -> list[dict[str, Any]]:
    """A row for each size, after a small fit that is not counted: the first one also loads code."""
    rows = [own for own in encoded(subject.dataset, backbone.tokenizer, "train").values() if own]
    options = replace(subject.options, epochs=FIT_EPOCHS, patience=0)
    found = [_fit(people, backbone, rows, options, progress) for people in (1, *sizes)]
    return found[1:]


def _fit(
    people: int, backbone: Backbone, rows: Sequence[Sequence[Encoded]], options: TrainOptions, progress: Progress
) -> dict[str, Any]:
    """One bank of so many people, trained and saved; their dialogues are those of the benchmark's personas in turn."""
    keys = [f"p{number:08d}" for number in range(people)]
    train = []
    for number in range(people):
        own, turn = rows[number % len(rows)], number // len(rows)
        train.append([own[(FIT_DIALOGUES * turn + i) % len(own)] for i in range(FIT_DIALOGUES)])
    memory.reset_peak()
    started, used = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as place, progress.task(f"fit {people} people", 0, "dialogues") as advance:
        bank = create_bank(backbone, SoftPrompt(tokens=TOKENS), keys, 0)
        fit_bank(backbone, bank, train, (), options, 0, progress=advance.to)
        save_bank(bank, Path(place) / "adapters", backbone.name)
        seconds = time.perf_counter() - started
    tokens = FIT_EPOCHS * sum(len(row) for own in train for row in own)
    return {
        "people": people,
        "seconds": seconds,
        "cpu_seconds": time.process_time() - used,
        "people_per_second": people / seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "peak_bytes": memory.peak_bytes(),
    }


def _slope(fits: Sequence[Mapping[str, Any]]) -> float | None:
    """d log(seconds) / d log(people) by least squares: 1 where twice as many people take twice as long."""
    if len({fit["people"] for fit in fits}) < 2:
        return None
    x, y = ([math.log(fit[name]) for fit in fits] for name in ("people", "seconds"))
    return float(np.polyfit(x, y, 1)[0])


# ---- targets ----


def _targets(stores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each target of each store with what was measured."""
    asked = {
        "open_seconds": ("open one person's adapter", OPEN_SECONDS),
        "compare_seconds": (f"compare {METHODS} methods, seconds", COMPARE_SECONDS),
        "compare_peak_bytes": (f"compare {METHODS} methods, memory", COMPARE_BYTES),
    }
    return [
        {
            "what": what, "people": row["people"], "asked": limit, "measured": row[name],
            "met": bool(row[name] < limit),
        }
        for row in stores
        for name, (what, limit) in asked.items()
    ]  # fmt: skip


def missed(table: Mapping[str, Any]) -> list[str]:
    """The targets that were missed, in words."""
    return [
        f"{one['what']} ({one['people']:,} people): {one['measured']:.3g}, target < {one['asked']:.3g}"
        for one in table["targets"]
        if not one["met"]
    ]
