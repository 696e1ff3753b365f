"""Tasks as job arrays of Slurm, through submitit: a job for each shard, in a folder that all machines see.

A job that is preempted is queued again and goes on from its fit's last checkpoint. Tasks and answers are files of
`channel`; submitit pickles two paths and the class below, nothing of a plugin.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, HarnessError
from harness.progress import Progress
from harness.store import Store, passing_folder
from harness.workers.channel import Message, read, write
from harness.workers.task import Workplace

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_REPORTS = 2.0


class ShardJob:
    """One job: reads a task, writes the answer beside it."""

    def __call__(self, task: str) -> None:
        place = Path(task)
        with place.open("rb") as stream:
            message = read(stream)
        looked = 0.0

        def report(done: int, total: int) -> None:
            nonlocal looked
            if time.monotonic() - looked > SECONDS_BETWEEN_REPORTS:
                looked = time.monotonic()
                _put(place.with_suffix(".standing"), f"{done} {total}".encode())

        answer = Workplace().done(message, report, place.with_suffix(".state"))
        part = place.with_suffix(".part")
        with part.open("wb") as stream:
            write(stream, answer)
        part.replace(place.with_suffix(".answer"))

    def checkpoint(self, task: str) -> Any:
        """What submitit queues when the job is preempted or runs out of time."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task)


class SlurmExecutor:
    """Tasks as job arrays.

    store       in its folder tasks and answers lie while they are under way; all machines must see it
    parameters  as sbatch takes them, e.g. partition, time (minutes), mem; `cluster: local` runs jobs here, to try it
    Raises ConfigError where submitit or Slurm is missing, or a parameter is unknown.
    """

    def __init__(self, store: Store, parameters: Mapping[str, str], threads: int, gpu: bool) -> None:
        self._store, self._given, self._threads, self._gpu = store, dict(parameters), threads, gpu
        self._submitit = _imported()
        self._failed = self._submitit.core.utils.FailedJobError

    def run(self, tasks: Sequence[Message], title: str, unit: str, progress: Progress) -> Iterator[tuple[int, Message]]:
        """See `task.Executor`."""
        with passing_folder(self._store.cache / "tmp") as folder, progress.task(title, 0, unit) as advance:
            places = [folder.absolute() / f"{number:06d}.task" for number in range(len(tasks))]
            for place, task in zip(places, tasks, strict=True):
                with place.open("wb") as stream:
                    write(stream, task)
            jobs = dict(enumerate(self._submitted(folder.absolute(), places)))
            try:
                yield from self._answers(jobs, places, advance)
            finally:
                for job in jobs.values():
                    job.cancel()

    def close(self) -> None:
        """Nothing is held between calls."""

    def _submitted(self, folder: Path, places: Sequence[Path]) -> list[Any]:
        given = dict(self._given)
        cluster = given.pop("cluster", "slurm")
        parameters: dict[str, Any] = {"name": "harness", "cpus_per_task": self._threads}
        if self._gpu:
            parameters["gpus_per_node"] = 1
        try:
            executor = self._submitit.AutoExecutor(folder=folder / "logs", cluster=cluster)
            for name, value in given.items():
                known = name if name in executor._typed_parameters() else f"slurm_{name}"
                parameters[known] = int(value) if value.isdecimal() else value
            executor.update_parameters(**parameters)
            if len(places) == 1:  # an array of one is a job
                return [executor.submit(ShardJob(), str(places[0]))]
            return executor.map_array(ShardJob(), [str(place) for place in places])
        except (RuntimeError, ValueError, TypeError, NameError, AssertionError, self._failed) as error:
            raise ConfigError(f"executor 'slurm': {error}") from error

    def _answers(self, jobs: dict[int, Any], places: Sequence[Path], advance: Any) -> Iterator[tuple[int, Message]]:
        """Takes the jobs out that have answered."""
        units: dict[int, tuple[int, int]] = {}
        while jobs:
            for number in list(jobs):
                place = places[number]
                if place.with_suffix(".answer").exists():
                    with place.with_suffix(".answer").open("rb") as stream:
                        answer = read(stream)
                    del jobs[number]
                    total = units.get(number, (0, 0))[1]
                    units[number] = total, total
                    yield number, answer
                elif jobs[number].done() and not place.with_suffix(".answer").exists():
                    raise HarnessError(f"a Slurm job ended without a result: {_last_line(jobs[number])}")
                else:
                    units[number] = _standing(place) or units.get(number, (0, 0))
            done, total = (sum(column) for column in zip(*units.values(), strict=True))
            advance.to(done, max(total, done), f"{len(places) - len(jobs)} of {len(places)} shards")
            if jobs:
                time.sleep(SECONDS_BETWEEN_LOOKS)


def _standing(place: Path) -> tuple[int, int] | None:
    try:
        done, total = place.with_suffix(".standing").read_text().split()
        return int(done), int(total)
    except (OSError, ValueError):
        return None


def _last_line(job: Any) -> str:
    lines = (job.stderr() or "").strip().splitlines()
    return lines[-1] if lines else f"state {job.state}"


def _put(place: Path, content: bytes) -> None:
    part = place.with_name(f"{place.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(place)


def _imported() -> Any:
    try:
        import submitit
        import submitit.core.utils
    except ImportError as error:
        raise ConfigError(
            "executor 'slurm' needs submitit: pip install 'peft-personalisation-harness[slurm]'"
        ) from error
    return submitit
