"""Tasks on a Ray cluster: actors that hold the backbone, one for each slot of CPUs; shards are their tasks.

An actor that is lost loses its task alone, and that is run again. Tasks and answers are bytes of `channel`; Ray pickles
nothing else of ours.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import ConfigError, HarnessError
from harness.progress import Advance, Progress
from harness.workers.channel import Message, read, write
from harness.workers.task import Workplace

SECONDS_BETWEEN_LOOKS = 0.5
MOST_TRIES = 5  # of one task, after each of which its actor was lost


class Slot:
    """What lives on a node: one workplace, which does one task at a time and can be asked how it stands."""

    def __init__(self) -> None:
        self._workplace = Workplace()
        self._standing = (0, 0)
        self._busy = threading.Lock()

    def ready(self) -> str:
        """Where it is."""
        return platform.node()

    def standing(self) -> tuple[int, int]:
        """(done, to do) of the task under way."""
        return self._standing

    def done(self, task: bytes) -> bytes:
        with self._busy:
            self._standing = (0, 0)
            return packed(self._workplace.done(unpacked(task), self._report))

    def _report(self, done: int, total: int) -> None:
        self._standing = (done, total)


@dataclass(eq=False)
class _Actor:
    """An actor as the driver sees it; task: number of what it does, -1: nothing."""

    handle: Any
    started: Any  # reference that is ready once the actor is
    ready: bool = False
    task: int = -1
    answer: Any = None
    asked: Any = None
    standing: tuple[int, int] = (0, 0)


@dataclass
class _Work:
    """The tasks of one call of `run`."""

    tasks: list[Any]  # references to their bytes
    waiting: deque[int]
    tries: dict[int, int] = field(default_factory=dict)
    finished: dict[int, int] = field(default_factory=dict)  # number -> units that it took


class RayExecutor:
    """Tasks on a Ray cluster.

    address   of a running cluster; None: one is started on this machine, and ended by `close`
    threads   CPUs of a slot
    gpu       whether a slot takes a GPU
    Raises ConfigError where ray is not installed, or the cluster does not answer.
    """

    def __init__(self, address: str | None, threads: int, gpu: bool, progress: Progress) -> None:
        self._ray = _imported()
        self._address, self._threads, self._gpu, self._progress = address, threads, gpu, progress
        self._actors: list[_Actor] = []
        self._connected = self._owner = self._waits = False

    def run(self, tasks: Sequence[Message], title: str, unit: str, progress: Progress) -> Iterator[tuple[int, Message]]:
        """See `task.Executor`."""
        self._connect()
        work = _Work([self._ray.put(packed(task)) for task in tasks], deque(range(len(tasks))))
        with progress.task(title, 0, unit) as advance:
            try:
                while work.waiting or any(actor.task >= 0 for actor in self._actors):
                    self._man(len(work.waiting))
                    self._give(work)
                    yield from self._taken(work)
                    self._show(work, advance)
            finally:
                self._abandon()

    def close(self) -> None:
        """Let go of the actors, and of a cluster that was started here."""
        for actor in self._actors:
            self._drop(actor)
        if self._owner:
            self._ray.shutdown()
        self._connected = self._owner = False

    # ---- the cluster ----

    def _connect(self) -> None:
        if self._connected:
            return
        if self._ray.is_initialized():  # by whoever calls the harness
            self._connected = True
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address is None:
            options |= {"include_dashboard": False, "num_cpus": max(os.cpu_count() or 1, self._threads)}
        try:
            # Without "local" Ray looks for a cluster that somebody has left here, and fails where it is gone.
            self._ray.init(address=self._address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise ConfigError(f"no Ray cluster answers at {self._address or 'this machine'}: {error}") from error
        self._connected = self._owner = True

    def _slots(self) -> int:
        """How many slots the living nodes have."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if self._gpu:
            return sum(int(node.get("GPU", 0)) for node in nodes)
        return sum(int(node.get("CPU", 0)) // self._threads for node in nodes)

    def _man(self, wanted: int) -> None:
        """Start actors where there are slots, at most as many as tasks wait."""
        idle = sum(actor.task < 0 for actor in self._actors)
        slots = self._slots()
        if not slots and not self._actors:
            if not self._waits:  # once, however long it takes
                what = "a GPU" if self._gpu else f"{self._threads} CPUs"
                self._progress.note(f"no node of the Ray cluster has {what}; waiting for one")
            time.sleep(SECONDS_BETWEEN_LOOKS)
        self._waits = not slots and not self._actors
        needs = {"num_cpus": 0 if self._gpu else self._threads, "num_gpus": int(self._gpu)}
        for _ in range(min(slots - len(self._actors), wanted - idle)):
            made = self._ray.remote(**needs)(Slot).options(max_concurrency=2).remote()
            self._actors.append(_Actor(made, made.ready.remote()))

    def _drop(self, actor: _Actor) -> None:
        self._ray.kill(actor.handle)
        self._actors = [one for one in self._actors if one is not actor]

    def _abandon(self) -> None:
        """After an error or an interruption: who still works is ended."""
        for actor in [one for one in self._actors if one.task >= 0]:
            self._drop(actor)

    # ---- tasks ----

    def _give(self, work: _Work) -> None:
        for actor in self._actors:
            if actor.ready and actor.task < 0 and work.waiting:
                actor.task = work.waiting.popleft()
                actor.answer = actor.handle.done.remote(work.tasks[actor.task])

    def _taken(self, work: _Work) -> Iterator[tuple[int, Message]]:
        """What has become ready since the last look."""
        waited = {(actor.answer if actor.ready else actor.started): actor for actor in self._actors}
        waited.pop(None, None)
        if not waited:
            return
        ready, _ = self._ray.wait(list(waited), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
        for reference in ready:
            actor = waited[reference]
            try:
                answer = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                raise HarnessError(f"a worker failed: {error}") from error
            except self._ray.exceptions.RayError:
                self._lost(actor, work)
                continue
            if not actor.ready:
                actor.ready = True
                continue
            number, actor.task, actor.answer = actor.task, -1, None
            work.finished[number] = actor.standing[1]
            actor.standing = (0, 0)
            yield number, unpacked(answer)

    def _lost(self, actor: _Actor, work: _Work) -> None:
        """Its task waits again."""
        self._drop(actor)
        if actor.task < 0:
            return
        work.waiting.appendleft(actor.task)
        work.tries[actor.task] = tries = work.tries.get(actor.task, 0) + 1
        if tries >= MOST_TRIES:
            raise HarnessError(f"a worker was lost {tries} times on the same shard; check that it has enough memory")
        self._progress.note("a worker of the Ray cluster is lost; its shard is run again")

    def _show(self, work: _Work, advance: Advance) -> None:
        busy = [actor for actor in self._actors if actor.task >= 0]
        for actor in busy:
            if actor.asked is None:
                actor.asked = actor.handle.standing.remote()
            elif self._ray.wait([actor.asked], timeout=0)[0]:
                with contextlib.suppress(self._ray.exceptions.RayError):  # its answer will say so
                    actor.standing = tuple(self._ray.get(actor.asked))
                actor.asked = None
        shards = len(work.tasks)
        done = sum(work.finished.values()) + sum(actor.standing[0] for actor in busy)
        known = sum(work.finished.values()) + sum(actor.standing[1] for actor in busy)
        told = len(work.finished) + sum(actor.standing[1] > 0 for actor in busy)
        total = known * shards // told if told else 0
        advance.to(done, max(total, done), f"{len(work.finished)} of {shards} shards on {len(self._actors)} workers")


def packed(message: Message) -> bytes:
    """A message as bytes."""
    stream = io.BytesIO()
    write(stream, message)
    return stream.getvalue()


def unpacked(raw: bytes) -> Message:
    """A message from its bytes. Raises HarnessError."""
    return read(io.BytesIO(raw))


def _imported() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ConfigError("executor 'ray' needs ray: pip install 'peft-personalisation-harness[ray]'") from error
    return ray
