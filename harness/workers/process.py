"""A worker's own process (`start` makes one). It fits and replies as a driver asks it to.

It reads messages on stdin and answers on what was its stdout; what plugins print goes to stderr. It knows no reference
before all replies are in, has no scorer of a run, and writes to its scratch folder alone. When the driver is gone, it
ends.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.abc import MetaPathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from harness.adapters import is_core
from harness.config import Recipe
from harness.contract import Dataset, Method, load_method, load_with_required
from harness.engines import Adapters, Predicted, reply_nll
from harness.errors import HarnessError
from harness.model import Backbone, set_repeatable
from harness.progress import Advance, Progress
from harness.store import Store, peak_memory_bytes
from harness.study import asked_for, replies_to
from harness.training import FitStopped, Shards
from harness.workers.chain import Chain, own_options
from harness.workers.channel import Closed, Driver, Message, failure, own_streams
from harness.workers.executors import Places
from harness.workers.job import FACTS, JOB, PLACES, PROMPTS, TEXTS, Job, Place
from harness.workers.local import Fit, Given, LocalWorker
from harness.workers.task import Distributed, joined, load_again

INTERRUPTED = 130  # exit code
AT_MOST_EVERY = 0.1  # seconds between two messages on the standing of a task
_loaded = functools.lru_cache(maxsize=1)(load_again)  # of the trials of a method all have the same backbone


class RelayedProgress(Progress):
    """Tasks and lines that the driver shows."""

    def __init__(self, driver: Driver) -> None:
        super().__init__("silent")
        self._driver, self._tasks = driver, 0

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "") -> Iterator[Advance]:
        self._tasks += 1
        number, told = self._tasks, 0.0

        def show(done: int, total: int, note: str) -> None:
            nonlocal told
            if done >= total or time.monotonic() - told > AT_MOST_EVERY:
                told = time.monotonic()
                self._driver.tell("standing", {"task": number, "done": done, "total": total, "note": note})

        self._driver.tell("task", {"task": number, "title": title, "total": total, "unit": unit})
        try:
            yield Advance(total, show)
        finally:
            self._driver.tell("end of task", {"task": number})

    def note(self, text: str) -> None:
        self._driver.tell("note", {"text": text})

    def warn(self, text: str) -> None:
        self._driver.tell("warn", {"text": text})


class DriversExecutor:
    """Tasks that the driver has carried out; it shows their progress."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def run(self, tasks: Sequence[Message], title: str, unit: str, progress: Progress) -> Iterator[tuple[int, Message]]:
        """See `task.Executor`."""
        self._driver.tell("tasks", {"title": title, "unit": unit, "count": len(tasks)})
        for task in tasks:
            self._driver.send(task)
        for _ in tasks:
            done = self._driver.next()
            yield done.fields["number"], Message(done.kind, done.fields["fields"], done.arrays)

    def close(self) -> None:
        """It is the driver's."""


class ScratchStore(Store):
    """A store of the worker's own; what is not in it the driver may have."""

    def __init__(self, job: Job, driver: Driver, note: Callable[[str], None]) -> None:
        super().__init__(Path(job.scratch), note)
        self._driver, self._unfinished = driver, Path(job.unfinished)
        self._asked: set[tuple[str, str]] = set()

    def partial(self, key: str) -> Path:
        return self._unfinished / key

    def find(self, kind: str, key: str) -> Path | None:
        # Once: while the driver has tasks carried out, it answers nothing else.
        if (kind, key) not in self._asked and not (self.cache / kind / key).is_dir():
            self._asked.add((kind, key))
            self._driver.tell("wanted", {"kind": kind, "key": key})
            assert self._driver.next().kind == "brought"
        return super().find(kind, key)


class _Worker(LocalWorker):
    """The driver knows who has fitted what."""

    def _store_of(self, chain: Chain) -> Store:
        return self.given.store


class Serving:
    """One job from its fit to the end."""

    def __init__(self, job: Job, driver: Driver) -> None:
        set_repeatable(job.threads)
        self.driver, self.scratch = driver, Path(job.scratch)
        self.progress = RelayedProgress(driver)
        methods, options = self._methods(job)
        self.recipe = Recipe(job.method, options[job.method], options, job.control)
        given = Given(
            methods=methods,
            dataset=Dataset(job.dataset, job.personas, job.dialogues, job.protocol, ()),
            scope=frozenset(job.scope),
            backbone=_loaded(job.backbone),
            store=ScratchStore(job, driver, self.progress.warn),
            progress=self.progress,
            seed=job.seed,
            scorer=job.scorer,
            places=_places(job, driver),
        )
        self.local = _Worker(given)
        self.fit: Fit | None = None
        self.predicted: Predicted | None = None
        self.seconds = 0.0

    def _methods(self, job: Job) -> tuple[dict[str, Method], dict[str, Any]]:
        """The methods of the job, and their options as the cards type them."""
        options = {name: own_options(load_method(name, job.files), values) for name, values in job.options.items()}
        return load_with_required(job.method, job.files, options[job.method], options), options

    def learn(self) -> None:
        """Fit, and tell what came of it."""
        self.fit = self.local.fit(self.recipe)
        self.driver.tell("learnt", {"folders": self._made()})

    def try_out(self) -> None:
        """Fit under the driver's eyes, and tell the loss on validation replies; none where it had the fit stopped."""

        def watch(epoch: int, loss: float) -> None:
            self.driver.tell("epoch", {"epoch": epoch, "loss": loss if math.isfinite(loss) else None})
            if self.driver.next().kind == "stop":
                raise FitStopped

        loss: float | None = None
        with contextlib.suppress(FitStopped):
            loss = self.local.trial(self.recipe, watch)
        self.driver.tell("tried", {"loss": loss, "folders": self._made()})

    def reply(self, message: Message) -> None:
        """To prompts of one turn depth."""
        assert self.fit
        prompts = PROMPTS.validate_python(message.fields["prompts"])
        started = time.perf_counter()
        replies = replies_to(self.fit.method, self.fit.study, self.fit.fitted, prompts)
        self.seconds += time.perf_counter() - started
        self.driver.tell("replies", {"replies": replies})

    def finish(self, message: Message) -> None:
        """How all replies came about, and what a record says of the fit."""
        assert self.fit
        prompts = PROMPTS.validate_python(message.fields["prompts"])
        replies = list(TEXTS.validate_python(message.fields["replies"]))
        self.predicted = asked_for(self.fit.study, self.fit.fitted, prompts, replies)
        answer = self.local.answered(self.recipe, self.fit, self.predicted, self.seconds)
        facts = answer.facts
        place = Path(self._relative(facts.folder)) if facts.folder else None
        fields: dict[str, Any] = {
            "facts": FACTS.dump_python(replace(facts, folder=place), mode="json"),
            "notes": answer.notes,
            "engines": answer.engines,
            "seconds": answer.seconds,
            "changed": list(answer.changed),
            "memory": peak_memory_bytes(),
            "cut": self.predicted.cut,
            "asked": self.predicted.asked is not None,
            "folders": self._made(),
        }
        arrays: dict[str, np.ndarray] = {}
        if (asked := self.predicted.asked) is not None:
            used = [one.replier.adapters for one in asked]
            own = list(dict.fromkeys(used))
            if (places := self._places(own)) is not None:
                fields["places"] = PLACES.dump_python(places, mode="json")
                arrays = {
                    "adapters": np.array([own.index(adapters) for adapters in used], dtype=np.int64),
                    "rows": np.array([one.replier.row for one in asked], dtype=np.int64),
                    "cut": np.array([one.cut for one in asked], dtype=np.uint8),
                    "lengths": np.array([len(one.ids) for one in asked], dtype=np.int64),
                    "shards": np.array([one.shard for one in asked], dtype=np.int64),
                    "ids": np.concatenate([np.array(one.ids, dtype=np.int32) for one in asked]),
                }
            if self.predicted.choice_log_probs is not None:
                arrays["choices"] = self.predicted.choice_log_probs
        self.driver.tell("finished", fields, **arrays)

    def likelihood(self, message: Message) -> None:
        """Of references, now that all replies are in: for adapters of a kind that only a plugin can apply."""
        assert self.predicted
        assert self.predicted.asked is not None
        found = reply_nll(self.predicted.asked, TEXTS.validate_python(message.fields["references"]), self.progress)
        self.driver.tell("likelihoods", {}, **joined("nats", [one.nats for one in found], np.float64))

    # ---- inside ----

    def _made(self) -> list[str]:
        """Keys of the adapters in the scratch."""
        return sorted(path.name for path in (self.scratch / ".cache" / "adapters").glob("*") if path.is_dir())

    def _relative(self, folder: Path) -> str:
        return folder.resolve().relative_to(self.scratch.resolve()).as_posix()

    def _places(self, own: Sequence[Adapters]) -> tuple[Place, ...] | None:
        """Where the driver finds adapters, `own` first; None: it cannot, or a plugin would have to apply them."""
        if any(one.bank is not None and (one.folder is None or not is_core(one.bank.spec)) for one in own):
            return None
        places: list[Place] = []
        waiting: list[tuple[Path | None, Backbone]] = [(one.folder, one.backbone) for one in own]
        while len(places) < len(waiting):
            folder, backbone = waiting[len(places)]
            below = -1
            if backbone.below is not None:
                if backbone.folder is None:
                    return None
                below = len(waiting)
                waiting.append((backbone.folder, backbone.below))
            places.append(Place(self._relative(folder) if folder else None, below))
        return tuple(places)


def _places(job: Job, driver: Driver) -> Places:
    """Work is cut as the driver would, and done where it has it done."""
    elsewhere = Distributed(DriversExecutor(driver), lambda: job.backbone) if job.elsewhere else None
    return Places(Shards(job.shard_people, elsewhere), None)


def serve(driver: Driver) -> None:
    """Answer until the driver is gone."""
    serving: Serving | None = None
    while True:
        message = driver.next()
        try:
            if message.kind in ("open", "try"):
                serving = Serving(JOB.validate_python(message.fields), driver)
                {"open": serving.learn, "try": serving.try_out}[message.kind]()
            elif serving is not None:
                {"reply": serving.reply, "finish": serving.finish, "likelihood": serving.likelihood}[message.kind](
                    message
                )
        except HarnessError as error:
            driver.send(failure(error))


class _NoBenchmarks(MetaPathFinder):
    """Refuses to import benchmarks: they make or read the references."""

    def __init__(self) -> None:
        self._modules = {point.module for point in entry_points(group="harness.benchmarks")}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname in self._modules:
            raise ImportError(f"a method's process must not import a benchmark, and {fullname} is one")


def main() -> None:
    """Serve one driver."""
    sys.meta_path.insert(0, _NoBenchmarks())
    driver = Driver(*own_streams())
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        serve(driver)
    except Closed:
        os._exit(0)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
