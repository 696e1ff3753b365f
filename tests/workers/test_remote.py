"""How many processes of methods wait, and how names of files reach them; without starting any."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import ByT5Tokenizer

from harness.config import Recipe
from harness.contract import SCORER, Method, MethodCard, Source
from harness.errors import PluginError
from harness.progress import Progress
from harness.store import Store
from harness.sweeps.sweep import Order, Scope, Workshop
from harness.testkit import tiny_dataset
from harness.training import FitStopped
from harness.workers import Given, RemoteWorker, remote
from harness.workers.channel import Message, read, write
from harness.workers.job import BackboneJob, in_full, whole_path
from harness.workers.remote import WorkerProcess
from harness.workers.task import joined


@dataclass(frozen=True)
class Options:
    pass


@pytest.fixture
def started(monkeypatch):
    """Names of the methods whose processes were started, in order; `-name` where one was ended."""
    log: list[str] = []

    class Task:
        def __init__(self, job: Any, *_: Any) -> None:
            self.job = job
            log.append(job.method)

        def answer(self, prompts: Any) -> str:
            return f"{self.job.method} answers"

        def close(self) -> None:
            log.append(f"-{self.job.method}")

    monkeypatch.setattr(remote, "_Task", Task)
    return log


@pytest.fixture
def worker(tmp_path):
    """Of a method `top`, which stands on three others."""
    needs = {"top": ("one", "two", "three")}
    methods = {
        name: Method(name, MethodCard("m", Options, needs.get(name, ())), Source(f"{name}.py", name), None)
        for name in ("top", "one", "two", "three")
    }
    backbone: Any = SimpleNamespace(fingerprint="f")
    given = Given(methods, tiny_dataset(), {"person_00"}, backbone, Store(tmp_path), Progress("silent"), 0, None)
    loading = {
        "name": "tiny", "device": "cpu", "dtype": "float32", "engine": "auto", "attention": "auto", "load_in": None,
        "chat_template": None,
    }  # fmt: skip
    return RemoteWorker(given, BackboneJob.of(loading, "f"), [], 1)


def asked(worker: RemoteWorker, name: str) -> Any:
    with worker.answer(Recipe(name), []) as answer:
        return answer


def test_two_bases_wait_and_none_is_fitted_twice(worker, started):
    assert asked(worker, "top") == "top answers"
    assert started == ["one", "two", "three", "-one", "top", "-top"]
    started.clear()
    assert asked(worker, "three") == "three answers"
    assert started == ["-three"], "the one that has waited"
    asked(worker, "top")
    assert started == ["-three", "top", "-top"], "what it stands on lies in the store"


def test_a_worker_that_was_closed_begins_anew(worker, started):
    asked(worker, "top")
    started.clear()
    worker.close()
    assert sorted(started) == ["-three", "-two"]
    assert asked(worker, "two") == "two answers"
    assert started[2:] == ["two", "-two"]


def test_processes_of_another_seed_end_before_a_run_is_made():
    log = []
    entry: Any = SimpleNamespace(config=SimpleNamespace(recipe=None), label="m")

    def session(seed: int) -> Any:
        return SimpleNamespace(
            run_id=lambda recipe: "id", stored=lambda run_id: None, run=lambda recipe: log.append(f"run {seed}"),
            close=lambda: log.append(f"close {seed}"),
        )  # fmt: skip

    workshop = Workshop(Any, [], Progress("silent"), [entry], _root=session(9))  # pyright: ignore[reportArgumentType]
    workshop._sessions.update({(seed, Scope()): session(seed) for seed in (0, 1)})
    for seed in (0, 1):
        workshop.make(Order(entry, seed, Scope()))
    assert log == ["close 1", "run 0", "close 0", "run 1"]
    workshop.close()
    assert log[4:] == ["close 0", "close 1", "close 9"], "the first session has opened other machines"


def test_a_fit_is_watched_from_another_process_and_stopped():
    (to_worker, from_driver), (to_driver, from_worker) = os.pipe(), os.pipe()
    process: Any = SimpleNamespace(stdin=os.fdopen(from_driver, "wb"), stdout=os.fdopen(to_driver, "rb"))
    driving = object.__new__(WorkerProcess)
    driving._name, driving._progress, driving._process = "sample", Progress("silent"), process
    inbound, outbound, heard = os.fdopen(to_worker, "rb"), os.fdopen(from_worker, "wb"), []

    def work() -> None:
        assert read(inbound).kind == "try"
        for epoch, loss in ((1, 2.5), (2, None), (3, 3.5)):
            write(outbound, Message("epoch", {"epoch": epoch, "loss": loss}))
            heard.append(read(inbound).kind)
        write(outbound, Message("tried", {"loss": None, "folders": []}))

    seen = []

    def watch(epoch: int, loss: float) -> None:
        seen.append((epoch, loss))
        if loss > 3:
            raise FitStopped

    working = threading.Thread(target=work, daemon=True)
    working.start()
    assert driving.ask("try", {}, "tried", lambda *_: None, watch).fields["loss"] is None
    working.join(10)
    assert heard == ["go on", "go on", "stop"]
    assert str(seen) == "[(1, 2.5), (2, nan), (3, 3.5)]"
    write(outbound, Message("epoch", {"epoch": "no number", "loss": 1}))
    with pytest.raises(PluginError, match="sample: its worker sent an invalid report of an epoch"):
        driving.ask("try", {}, "tried", lambda *_: None, watch)


def test_a_process_must_send_one_number_a_token_of_each_reference():
    task: Any = object.__new__(remote._Task)
    task._backbone, task._method = SimpleNamespace(tokenizer=ByT5Tokenizer()), "m"

    def likelihoods(arrays: Any) -> Any:
        task._ask = lambda *_: Message("likelihoods", {}, arrays)
        return task._likelihood(["ab"])

    (found,) = likelihoods(joined("nats", [[1.0, 2.0, 4.0]], np.float64))
    assert (found.whole, found.split(1)) == ((7.0, 3), ((1.0, 1), (6.0, 2)))
    wrong = [joined("nats", lists, np.float64) for lists in ([[1.0, 2.0]], [], [[1.0, 2.0, 4.0]] * 2)]
    for arrays in (*wrong, {}, {"nats": np.zeros(3), "nats/lengths": np.array([2])}):
        with pytest.raises(PluginError, match="'m': its worker sent an invalid likelihood"):
            likelihoods(arrays)


def test_names_of_files_are_whole_paths_for_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "tiny", "smollm2-135m", SCORER):
        Path(folder).mkdir(parents=True)
    Path("t.jinja").write_text("")
    loading = {"name": "model", "chat_template": Path("t.jinja"), "dtype": "float32"}
    found = in_full(loading)
    assert found == {"name": str(tmp_path / "model"), "chat_template": tmp_path / "t.jinja", "dtype": "float32"}
    for name in ("tiny", "smollm2-135m", "Qwen/Qwen2.5-0.5B-Instruct"):
        assert in_full({"name": name, "chat_template": None}) == {"name": name, "chat_template": None}
    assert whole_path(SCORER) == SCORER
