"""Fits and replies of methods in processes of their own, one for each method: the driver's side.

The driver holds references, scorer and store, and alone writes to the store. A worker gets train and validation data
and prompts, turn depth by turn depth; what it has fitted is copied out of its scratch folder once it is whole.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import weakref
from array import array
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from harness.adapters import load_bank
from harness.config import Recipe
from harness.contract import Likelihood, Prompt, is_text
from harness.engines import Adapters, Asked, Predicted, Replier, likelihood_of
from harness.errors import HarnessError, PluginError
from harness.progress import Advance, Progress
from harness.store import SEAL, canonical_hash, damage, passing_folder
from harness.study import replies_by_depth
from harness.training import FitStopped
from harness.workers.cards import files_for
from harness.workers.chain import Chain, below, chain_of, options_of
from harness.workers.channel import Closed, Message, raised, read, write
from harness.workers.job import ENGINES, FACTS, JOB, NOTES, PLACES, PROMPTS, BackboneJob, Job, inside, whole_path
from harness.workers.local import Answer, Given, Watch
from harness.workers.owned import ADAPTERS, found, owners_of, place_of
from harness.workers.start import ended, start
from harness.workers.task import Executor, parted

SECONDS_TO_END = 10  # that a process has after it was asked to
MOST_OPEN = 2  # processes of bases that wait: each holds a backbone


class WorkerProcess:
    """A worker that is running, and what it says."""

    def __init__(self, name: str, folder: Path, progress: Progress, executor: Executor | None = None) -> None:
        self._name, self._progress, self._executor = name, progress, executor
        self._tasks: dict[int, tuple[contextlib.ExitStack, Advance]] = {}
        self._begun = False  # whether it has said anything yet
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = start("harness.workers.process", folder=folder, **pipes)

    def ask(
        self,
        kind: str,
        fields: Mapping[str, Any],
        answer: str,
        bring: Callable[[str, str], None],
        watch: Watch | None = None,
    ) -> Message:
        """Send a message and wait for its answer. What the worker raises is raised here.

        bring  (kind, key) of something cached, which the worker wants in its scratch
        watch  of a fit that may be stopped
        Raises PluginError where the process has ended.
        """
        try:
            write(self._stream(self._process.stdin), Message(kind, fields))
            while (message := read(self._stream(self._process.stdout))).kind != answer:
                self._begun = True
                if message.kind == "epoch" and watch is not None:
                    self._watched(message.fields, watch)
                else:
                    self._heard(message, bring)
            return message
        except Closed:
            how = ended(self._process.wait())
            raise PluginError(f"{self._name}: {how}; a plugin returns or raises") from None

    def close(self) -> None:
        """End the process: it is asked to, then made to."""
        for stack, _ in self._tasks.values():
            stack.close()
        self._tasks.clear()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                self._stream(stream).close()
        try:
            self._process.wait(SECONDS_TO_END if self._begun else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _heard(self, message: Message, bring: Callable[[str, str], None]) -> None:
        """Anything but the answer, and what is watched."""
        fields = message.fields
        try:
            match message.kind:
                case "task":
                    stack = contextlib.ExitStack()
                    shown = self._progress.task(str(fields["title"]), int(fields["total"]), str(fields["unit"]))
                    self._tasks[fields["task"]] = stack, stack.enter_context(shown)
                case "standing":
                    self._tasks[fields["task"]][1].to(int(fields["done"]), int(fields["total"]), str(fields["note"]))
                case "end of task":
                    self._tasks.pop(fields["task"])[0].close()
                case "note":
                    self._progress.note(str(fields["text"]))
                case "warn":
                    self._progress.warn(str(fields["text"]))
                case "wanted":
                    bring(str(fields["kind"]), str(fields["key"]))
                    write(self._stream(self._process.stdin), Message("brought"))
                case "tasks" if self._executor is not None:
                    self._carry_out(self._executor, str(fields["title"]), str(fields["unit"]), int(fields["count"]))
                case "error":
                    raise raised(message, _said)
                case other:
                    raise HarnessError(f"{self._name}: its worker sent an unexpected message '{other}'")
        except (KeyError, TypeError, ValueError) as error:
            raise PluginError(f"{self._name}: its worker sent an invalid message") from error

    def _watched(self, fields: Mapping[str, Any], watch: Watch) -> None:
        """Say whether a trial goes on after an epoch."""
        try:
            epoch, loss = int(fields["epoch"]), math.nan if fields["loss"] is None else float(fields["loss"])
        except (KeyError, TypeError, ValueError) as error:
            raise PluginError(f"{self._name}: its worker sent an invalid report of an epoch") from error
        go_on = True
        try:
            watch(epoch, loss)
        except FitStopped:
            go_on = False
        write(self._stream(self._process.stdin), Message("go on" if go_on else "stop"))

    def _carry_out(self, executor: Executor, title: str, unit: str, count: int) -> None:
        """What the worker wants done elsewhere."""
        tasks = [read(self._stream(self._process.stdout)) for _ in range(count)]
        for number, done in executor.run(tasks, title, unit, self._progress):
            fields = {"number": number, "fields": done.fields}
            write(self._stream(self._process.stdin), Message(done.kind, fields, done.arrays))

    @staticmethod
    def _stream(stream: Any) -> BinaryIO:
        assert stream is not None
        return stream


def _said(text: str) -> str:
    missing = "FileNotFoundError" in text
    return text + "; a method runs in a folder of its own: use absolute paths, or --no-isolate" * missing


class RemoteWorker:
    """What `LocalWorker` does, in processes of their own.

    backbone  what their processes load
    files     all loose plugin files; a worker imports those that it needs
    """

    def __init__(self, given: Given, backbone: BackboneJob, files: Sequence[str | Path], threads: int) -> None:
        self._given, self._backbone, self._files, self._threads = given, backbone, files, threads
        self._fitted: set[str] = set()  # of which adapters are in the store
        self._open: dict[str, _Task] = {}  # bases among them that may be asked for replies yet
        self._trying: dict[str, _Trying] = {}  # the method whose trials are made
        for processes in (self._open, self._trying):
            weakref.finalize(self, _close_all, processes)  # at the latest when this process ends

    def close(self) -> None:
        """End the processes that are open. What is asked for afterwards has new ones."""
        _close_all(self._open)
        _close_all(self._trying)

    @contextlib.contextmanager
    def answer(self, recipe: Recipe, prompts: Sequence[Prompt]) -> Iterator[Answer]:
        """Fit, then reply to the prompts, asked for turn depth by turn depth."""
        self._fit_bases(recipe)
        key = self._key(recipe)
        with contextlib.closing(self._open.pop(key, None) or self._task(recipe, key)) as task:
            self._fitted.add(key)
            yield task.answer(prompts)

    def trial(self, recipe: Recipe, watch: Watch) -> float:
        """See `LocalWorker.trial`. The trials of a method are made in one process, one after the other."""
        self._fit_bases(recipe)
        _close_all(self._open)  # trials ask no base for replies
        if recipe.method not in self._trying:
            _close_all(self._trying)
            self._trying[recipe.method] = _Trying(recipe.method, self._given)
        try:
            return self._trying[recipe.method].loss(*self._job(recipe, self._key(recipe)), watch)
        except FitStopped:
            raise
        except BaseException:
            _close_all(self._trying)
            raise

    def _fit_bases(self, recipe: Recipe) -> None:
        """All that a recipe stands on is fitted by its own worker, so that no other plugin can have touched it."""
        method, options = self._chain(recipe)[recipe.method]
        for base in (below(recipe, name) for name in method.requires(options)):
            self._fit_bases(base)
            key = self._key(base)
            if key not in self._fitted:
                self._open[key] = self._task(base, key)
                self._fitted.add(key)
            while len(self._open) > MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()

    def _chain(self, recipe: Recipe) -> Chain:
        return chain_of(self._given.methods, recipe)

    def _key(self, recipe: Recipe) -> str:
        chain, given = self._chain(recipe), self._given
        people = [sorted(given.scope), given.dataset.name, given.backbone.fingerprint]
        return canonical_hash([options_of(chain), owners_of(chain), recipe.control, given.seed, people])

    def _task(self, recipe: Recipe, key: str) -> _Task:
        return _Task(*self._job(recipe, key), self._given)

    def _job(self, recipe: Recipe, key: str) -> tuple[Job, Sequence[str]]:
        """What a worker is told, and who may have fitted what it gets."""
        chain, given = self._chain(recipe), self._given
        dataset = given.dataset
        job = Job(
            method=recipe.method,
            files=files_for(chain, self._files),
            options=dict(options_of(chain)),
            control=recipe.control,
            seed=given.seed,
            dataset=dataset.name,
            personas=dataset.personas,
            dialogues=tuple(d for d in dataset.dialogues if d.split != "test"),
            protocol=dataset.protocol,
            scope=tuple(sorted(given.scope)),
            backbone=self._backbone,
            scorer=given.scorer and whole_path(given.scorer),
            scratch="",
            unfinished=str((given.store.cache / "partial" / key).absolute()),
            threads=self._threads,
            shard_people=given.places.shards.people,
            elsewhere=given.places.executor is not None,
        )
        return job, owners_of(chain)


def _close_all(processes: MutableMapping[str, Any]) -> None:
    for process in processes.values():
        process.close()
    processes.clear()


class _Held:
    """One method's process, with what it writes and gets."""

    def __init__(self, method: str, given: Given) -> None:
        self._method, self._backbone, self._store = method, given.backbone, given.store
        self._progress = given.progress
        self._owners: Sequence[str] = ()
        self._held = contextlib.ExitStack()
        try:
            self._scratch = self._held.enter_context(passing_folder(given.store.cache / "tmp")).absolute()
            executor = given.places.executor
            self._process = WorkerProcess(f"method '{method}'", self._scratch, given.progress, executor)
            self._held.callback(self._process.close)
        except BaseException:
            self._held.close()
            raise

    def close(self) -> None:
        """End the process; what it has written goes."""
        self._held.close()

    def _begin(self, kind: str, job: Job, owners: Sequence[str], answer: str, watch: Watch | None = None) -> Message:
        """Have a job fitted; the adapters that came of it are in the store then."""
        self._owners = owners
        place = Path(job.unfinished)
        fields = JOB.dump_python(replace(job, scratch=str(self._scratch)), mode="json")
        with self._store.lock(f"worker-{place.name}"):  # commands that fit the same have one place for unfinished fits
            told = self._ask(kind, fields, answer, watch)
            try:
                self._adopt(told.fields["folders"])
            except (KeyError, TypeError, ValueError) as error:
                raise PluginError(f"method '{self._method}': its worker named invalid folders") from error
            shutil.rmtree(place, ignore_errors=True)
        return told

    def _ask(self, kind: str, fields: Mapping[str, Any], answer: str, watch: Watch | None = None) -> Message:
        return self._process.ask(kind, fields, answer, self._bring, watch)

    # ---- what lies on the disk ----

    def _bring(self, kind: str, key: str) -> None:
        """Copy what the worker's method or its bases have fitted into the scratch."""
        if kind != ADAPTERS or not key.isalnum():
            return
        if folder := found(self._store, self._owners, key):
            target = self._scratch / ".cache" / kind / key
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(folder, target)

    def _adopt(self, keys: Sequence[str]) -> None:
        """Copy into the store what the worker has fitted."""
        for key in keys:
            source = inside(self._scratch / ".cache" / ADAPTERS, key)

            def fill(part: Path, source: Path = source) -> None:
                if fault := damage(source):
                    raise HarnessError(f"method '{self._method}': {fault}")
                shutil.copytree(source, part, dirs_exist_ok=True, ignore=shutil.ignore_patterns(SEAL))

            if not found(self._store, self._owners, key):
                self._store.cached(ADAPTERS, place_of(self._owners[0], key), fill)


class _Trying(_Held):
    """The process of a method's trials."""

    def loss(self, job: Job, owners: Sequence[str], watch: Watch) -> float:
        """Of one trial. Raises FitStopped where `watch` had it stopped."""
        loss = self._begin("try", job, owners, "tried", watch).fields.get("loss")
        if loss is None:
            raise FitStopped
        if not isinstance(loss, float) or not math.isfinite(loss):
            raise PluginError(f"method '{self._method}': its worker sent a loss that is not a finite number")
        return loss


class _Task(_Held):
    """A fit, and its replies."""

    def __init__(self, job: Job, owners: Sequence[str], given: Given) -> None:
        super().__init__(job.method, given)
        try:
            self._begin("open", job, owners, "learnt")
        except BaseException:
            self.close()
            raise

    def answer(self, prompts: Sequence[Prompt]) -> Answer:
        replies = self._replies(prompts)
        shown = PROMPTS.dump_python(tuple(prompts), mode="json")
        done = self._ask("finish", {"prompts": shown, "replies": replies}, "finished")
        self._adopt(done.fields["folders"])
        try:
            told = done.fields
            facts = FACTS.validate_python(told["facts"])
            if facts.folder:
                facts = replace(facts, folder=self._kept(facts.folder))
            notes, predicted = NOTES.validate_python(told["notes"]), self._predicted(replies, done)
            answer = Answer(
                facts, notes, predicted, float(told["seconds"]),
                ENGINES.validate_python(told["engines"]), tuple(map(str, told["changed"])), int(told["memory"]),
            )  # fmt: skip
        except (ValidationError, KeyError, ValueError, TypeError, IndexError) as error:
            raise PluginError(f"method '{self._method}': its worker sent an invalid answer") from error
        return answer

    def _replies(self, prompts: Sequence[Prompt]) -> list[str]:
        def ask(prompts: Sequence[Prompt]) -> list[str]:
            asked = PROMPTS.dump_python(tuple(prompts), mode="json")
            given = self._ask("reply", {"prompts": asked}, "replies").fields["replies"]
            if len(given) != len(prompts) or not all(isinstance(text, str) and is_text(text) for text in given):
                raise PluginError(f"method '{self._method}', predict: must return one text per prompt")
            return given

        return replies_by_depth(prompts, ask, self._progress)

    def _kept(self, folder: Path) -> Path:
        """Where a folder of the scratch lies in the store. Raises ValueError."""
        _, kind, key, *rest = folder.parts
        kept = found(self._store, self._owners, key)
        if kind != ADAPTERS or kept is None:
            raise ValueError(folder)
        return inside(kept, "/".join(rest))

    # ---- what came back ----

    def _predicted(self, replies: list[str], done: Message) -> Predicted:
        """Replies with how they came about; the adapters are read from the store."""
        fields, arrays = done.fields, done.arrays
        if not fields["asked"]:
            return Predicted(replies, cut=int(fields["cut"]))
        choices = arrays.get("choices")
        if "places" not in fields:
            return Predicted(replies, None, choices, int(fields["cut"]), self._likelihood)
        places = PLACES.validate_python(fields["places"])
        made: dict[int, Adapters] = {}

        def adapters(number: int) -> Adapters:
            if number not in made:
                place = places[number]
                backbone = self._backbone if place.below < 0 else adapters(place.below).merged
                folder = self._kept(Path(place.folder)) if place.folder else None
                made[number] = Adapters(backbone, load_bank(folder, backbone) if folder else None, folder)
            return made[number]

        asked, start = [], 0
        columns = (arrays[name].tolist() for name in ("adapters", "rows", "cut", "lengths", "shards"))
        for number, row, cut, length, shard in zip(*columns, strict=True):
            ids = array("i", arrays["ids"][start : start + length].tolist())
            asked.append(Asked(Replier(adapters(number), row), ids, bool(cut), int(shard)))
            start += length
        if len(asked) != len(replies):
            raise ValueError("asked")
        return Predicted(replies, asked, choices, int(fields["cut"]))

    def _likelihood(self, references: Sequence[str]) -> list[Likelihood]:
        told = self._ask("likelihood", {"references": list(references)}, "likelihoods")
        try:
            pairs = zip(references, parted(told.arrays, "nats"), strict=True)
            return [likelihood_of(self._backbone, reference, nats) for reference, nats in pairs]
        except (KeyError, ValueError, TypeError) as error:
            raise PluginError(f"method '{self._method}': its worker sent an invalid likelihood") from error
