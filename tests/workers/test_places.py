"""Shards elsewhere give the bits that they give here: as messages, on Ray, as jobs. A lost machine costs its shard."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.config import load_config
from harness.contract import Dataset, Levels, LoRA, SoftPrompt, TrainOptions
from harness.engines import Fitted, Part, Question, Transcript, answers, reply_nll
from harness.errors import ConfigError, HarnessError
from harness.model import Backbone, load_backbone, split_examples
from harness.progress import Advance, Progress
from harness.store import Store
from harness.study import Study
from harness.testkit import tiny_backbone, tiny_dataset
from harness.training import Shards
from harness.workers import on_ray
from harness.workers.channel import Message, read, write
from harness.workers.job import BackboneJob
from harness.workers.on_ray import RayExecutor, packed, unpacked
from harness.workers.on_slurm import SlurmExecutor
from harness.workers.owned import OwnedStore
from harness.workers.process import DriversExecutor, ScratchStore
from harness.workers.remote import WorkerProcess
from harness.workers.task import Distributed, Executor, Workplace

TRAIN = TrainOptions(epochs=2, batch_size=2, learning_rate=0.05)


class Here:
    """Carries tasks out in this process, through bytes, the last first; `asked` are their kinds."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.change: Callable[[Message], Message] = lambda task: task

    def run(self, tasks: Sequence[Message], title: str, unit: str, progress: Progress) -> Iterator[tuple[int, Message]]:
        for number in reversed(range(len(tasks))):
            self.asked.append(tasks[number].kind)
            task = self.change(unpacked(packed(tasks[number])))
            yield number, unpacked(packed(Workplace().done(task)))

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def stored_backbone(tmp_path_factory) -> BackboneJob:
    """The tiny backbone as a folder that other processes can load."""
    folder = tmp_path_factory.mktemp("backbone")
    made = tiny_backbone("float32")
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    loading: dict[str, Any] = {
        "name": str(folder), "device": "cpu", "dtype": "float32", "engine": "auto", "attention": "auto",
        "load_in": None, "chat_template": None,
    }  # fmt: skip
    return BackboneJob(**loading, fingerprint=_loaded(loading).fingerprint)


def _loaded(loading: dict[str, Any]) -> Backbone:
    return load_backbone(**loading, note=lambda _: None)


class Asker:
    """A study whose people are cut in shards of two, and what it finds."""

    def __init__(
        self, job: BackboneJob, folder: Path, executor: Executor | None, dataset: Dataset | None = None,
        people: int = 2, train: TrainOptions = TRAIN, progress: Progress | None = None, store: Store | None = None,
    ) -> None:  # fmt: skip
        self.train, self.progress = train, progress or Progress("silent")
        self.dataset = dataset or tiny_dataset(clusters=3)
        loading = {name: value for name, value in vars(job).items() if name != "fingerprint"}
        self.elsewhere = Distributed(executor, lambda: job) if executor else None
        self.study = Study(
            backbone=_loaded(loading), personas=self.dataset.personas, protocol=self.dataset.protocol,
            dialogues=[d for d in self.dataset.dialogues if d.split != "test"], options=None, seed=0, required={},
            store=store or Store(folder), progress=self.progress, shards=Shards(people, self.elsewhere),
        )  # fmt: skip

    def unified(self) -> Fitted:
        return self.study.fit_adapters(LoRA(2), self.study.for_all(), None, self.train)

    def fitted(self) -> list[Fitted]:
        """One for all, a prefix each on it, and a LoRA each as a sum of levels."""
        study, unified = self.study, self.unified()
        prefixes = study.fit_adapters(SoftPrompt(2), study.by_persona(), unified, self.train)
        return [unified, prefixes, study.fit_jointly(Levels(), LoRA(2), None, self.train)]

    def found(self) -> list[Any]:
        """All numbers of the adapters, all replies, and the likelihood of the references."""
        found: list[Any] = []
        examples = split_examples(self.dataset, "test")
        prompts, references = [e.prompt for e in examples], [e.reference for e in examples]
        shards = Shards(2).of_people([p.id for p in self.dataset.personas])
        for fitted in self.fitted():
            bank = fitted.bank
            assert bank is not None
            found += [values.tolist() for _, values in sorted(bank.tensors.items())]
            found.append(self.study.generate(fitted, prompts))
            asked = Transcript(self.dataset.protocol, self.progress, shards).ask(fitted, prompts)
            likelihoods = reply_nll(asked, references, self.progress, self.elsewhere)
            found += [(one.nats.tolist(), one.ends.tolist()) for one in likelihoods]
            states = json.loads(json.dumps(fitted.report))["adapters"]
            found.append({key: state["validation_loss"] for key, state in states.items()})
        return found


@pytest.fixture(scope="module")
def expected(stored_backbone, tmp_path_factory) -> list[Any]:
    return Asker(stored_backbone, tmp_path_factory.mktemp("local"), None).found()


def test_tasks_as_messages_give_the_same_bits(stored_backbone, expected, tmp_path):
    executor = Here()
    assert Asker(stored_backbone, tmp_path, executor).found() == expected
    assert executor.asked.count("fit") == 5, "one for all, three shards of two people, a joint fit"
    assert executor.asked.count("answer") == 3 * (3 + 3)


def test_a_ray_cluster_without_room_is_told_of_once(monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": 1.0}}]
    monkeypatch.setattr(on_ray, "_imported", lambda: SimpleNamespace(nodes=lambda: nodes))
    monkeypatch.setattr(on_ray, "SECONDS_BETWEEN_LOOKS", 0)
    told: list[str] = []
    progress: Any = SimpleNamespace(note=told.append)
    executor = RayExecutor("auto", 2, gpu=False, progress=progress)
    for _ in range(3):
        executor._man(1)
    assert told == ["no node of the Ray cluster has 2 CPUs; waiting for one"]


def test_choices_are_weighed_elsewhere_with_the_same_bits(stored_backbone, tmp_path):
    made = tiny_dataset()
    dataset = replace(made, protocol=replace(made.protocol, choices=("stove", "fan", "red"), decision="mode"))
    prompts = [e.prompt for e in split_examples(dataset, "test")]
    found = []
    for name, executor in (("here", None), ("there", Here())):
        asker = Asker(stored_backbone, tmp_path / name, executor, dataset)
        unified = asker.unified()
        replies = asker.study.generate(unified, prompts)
        found.append((replies, asker.study._transcript.predicted(unified, prompts, replies).choice_log_probs))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_a_bank_of_shards_is_each_shard_alone(stored_backbone, tmp_path):
    """Shards have the numbers of one bank up to rounding, one file each, and are found again by their content."""
    executor = Here()
    whole = Asker(stored_backbone, tmp_path / "whole", None, people=256)
    cut = Asker(stored_backbone, tmp_path / "cut", executor, people=4)
    banks = [asker.study.fit_adapters(SoftPrompt(2), asker.study.by_persona(), None, TRAIN) for asker in (whole, cut)]
    one, other = banks[0].bank, banks[1].bank
    assert one is not None
    assert other is not None
    assert one.keys == other.keys
    torch.testing.assert_close(one.tensors, other.tensors, rtol=1e-4, atol=1e-5)
    assert banks[1].folder is not None
    assert sorted(path.name for path in banks[1].folder.iterdir()) == [
        "index.json", "shard-00000.safetensors", "shard-00001.safetensors",
    ]  # fmt: skip
    assert executor.asked == ["fit", "fit"]
    fewer = replace(cut.dataset, personas=cut.dataset.personas[:5])
    people = {p.id for p in fewer.personas}
    fewer = replace(fewer, dialogues=tuple(d for d in fewer.dialogues if d.persona in people))
    again = Asker(stored_backbone, tmp_path / "cut", executor, fewer, people=4)
    again.study.fit_adapters(SoftPrompt(2), again.study.by_persona(), None, TRAIN)
    assert executor.asked == ["fit", "fit", "fit"], "only the last shard has other people"


def test_what_a_method_has_fitted_elsewhere_is_not_fitted_again(stored_backbone, tmp_path):
    """Nor what it stands on: both are found under the plugin that fitted them."""
    executor = Here()
    for owners, fits in ((["base"], 4), (["base"], 4), (["mine", "base"], 4), (["somebody else"], 8)):
        asker = Asker(stored_backbone, tmp_path, executor, store=OwnedStore(Store(tmp_path), owners))
        study, own = asker.study, asker.unified()
        study.fit_adapters(SoftPrompt(2), study.by_persona(), own, TRAIN)
        assert executor.asked.count("fit") == fits


@dataclass
class Inline:
    """A driver as its worker sees it, without a thread that listens and ends the process with it."""

    inbound: Any
    outbound: Any

    def next(self) -> Message:
        return read(self.inbound)

    def send(self, message: Message) -> None:
        write(self.outbound, message)

    def tell(self, kind: str, fields: Any = None, **arrays: Any) -> None:
        self.send(Message(kind, fields or {}, arrays))


def test_a_method_in_a_process_of_its_own_has_several_shards_fitted_elsewhere(stored_backbone, tmp_path):
    """Its driver answers no question while it has tasks carried out; here both are threads of this process."""
    executor, brought = Here(), []
    (to_worker, from_driver), (to_driver, from_worker) = os.pipe(), os.pipe()
    process: Any = SimpleNamespace(stdin=os.fdopen(from_driver, "wb"), stdout=os.fdopen(to_driver, "rb"))
    driving = object.__new__(WorkerProcess)
    driving._name, driving._progress, driving._executor = "sample", Progress("silent"), executor
    driving._tasks, driving._begun, driving._process = {}, False, process
    bring: Callable[[str, str], None] = lambda kind, key: brought.append(key)  # noqa: E731
    waiting = threading.Thread(target=lambda: driving.ask("open", {}, "learnt", bring), daemon=True)
    waiting.start()
    driver: Any = Inline(os.fdopen(to_worker, "rb"), os.fdopen(from_worker, "wb"))
    assert driver.next().kind == "open"
    job: Any = SimpleNamespace(scratch=str(tmp_path), unfinished=str(tmp_path / "partial"))
    asker = Asker(
        stored_backbone, tmp_path, DriversExecutor(driver), store=ScratchStore(job, driver, Progress("silent").warn)
    )
    study = asker.study
    fitted = study.fit_adapters(SoftPrompt(2), study.by_persona(), None, TRAIN)
    assert fitted.bank is not None
    assert executor.asked == ["fit"] * 3
    assert len(brought) == len(set(brought)) == 4, "the bank and its shards, each asked for once"
    driver.tell("learnt")
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_worker_with_other_numerics_is_refused_and_its_errors_are_raised_here(stored_backbone, tmp_path):
    executor = Here()

    def older(task: Message) -> Message:
        model = {**task.fields["model"], "numerics": {**task.fields["model"]["numerics"], "torch": "1.0"}}
        return Message(task.kind, {**task.fields, "model": model}, task.arrays)

    executor.change = older
    with pytest.raises(HarnessError, match=r"a worker has torch .* and this command 1\.0: results would differ"):
        Asker(stored_backbone, tmp_path, executor).unified()

    def stranger(task: Message) -> Message:
        banks = [{**bank, "kind": "nope"} for bank in task.fields["model"]["banks"]]
        return Message(task.kind, {**task.fields, "model": {**task.fields["model"], "banks": banks}}, task.arrays)

    executor.change = stranger
    with pytest.raises(HarnessError, match="there is no kind of adapter 'nope'"):
        Asker(stored_backbone, tmp_path, executor).unified()


@pytest.mark.slow
@pytest.mark.long
def test_ray_gives_the_same_bits(stored_backbone, expected, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # a cluster that is gone: one of its own is wanted
    with contextlib.closing(RayExecutor(None, torch.get_num_threads(), False, Progress("silent"))) as executor:
        assert Asker(stored_backbone, tmp_path, executor).found() == expected


@pytest.mark.slow
@pytest.mark.long
def test_jobs_give_the_same_bits(stored_backbone, tmp_path):
    """Slurm's jobs, run by submitit on this machine."""
    pytest.importorskip("submitit")
    executor = SlurmExecutor(Store(tmp_path / "tasks"), {"cluster": "local"}, torch.get_num_threads(), False)
    banks = []
    for name, where in (("here", None), ("jobs", executor)):
        asker = Asker(stored_backbone, tmp_path / name, where)
        bank = asker.study.fit_adapters(SoftPrompt(2), asker.study.by_persona(), None, TRAIN).bank
        assert bank is not None
        banks.append(bank.tensors["prompt_embeddings"])
    assert torch.equal(*banks)
    assert not list((tmp_path / "tasks").rglob("*.task"))


def test_parameters_of_slurm_are_checked(tmp_path):
    pytest.importorskip("submitit")
    executor = SlurmExecutor(Store(tmp_path), {"cluster": "local", "partitoin": "x"}, 1, False)
    with pytest.raises(ConfigError, match="partitoin"):
        list(executor.run([Message("fit")], "fit", "dialogues", Progress("silent")))


class Killing(Progress):
    """Calls `kill` once, as soon as two workers are at it."""

    def __init__(self, kill: Callable[[], None]) -> None:
        super().__init__("silent")
        self.kill, self.killed = kill, False
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        def show(done: int, _: int, note: str) -> None:
            if done and note.endswith("on 2 workers") and not self.killed:
                self.killed = True
                threading.Thread(target=self.kill).start()

        yield Advance(total, show)


@pytest.mark.attack
@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", ["fitting", "answering"])
def test_a_node_that_dies_costs_its_shards_alone(stored_backbone, tmp_path, when):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    threads = torch.get_num_threads()
    train = replace(TRAIN, epochs=400, patience=0) if when == "fitting" else TRAIN
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": threads})
    try:
        second = cluster.add_node(num_cpus=threads)
        progress = Killing(lambda: cluster.remove_node(second, allow_graceful=False))
        executor = RayExecutor(cluster.address, threads, False, progress)
        with contextlib.closing(executor):
            asker = Asker(stored_backbone, tmp_path / "ray", executor, train=train, progress=progress)
            local = Asker(stored_backbone, tmp_path / "local", None, train=train)
            if when == "fitting":
                there, here = (
                    a.study.fit_adapters(SoftPrompt(2), a.study.by_persona(), None, train) for a in (asker, local)
                )
                assert there.bank is not None
                assert here.bank is not None
                torch.testing.assert_close(there.bank.tensors, here.bank.tensors, rtol=0, atol=0)
            else:
                prompts = [[5, 6, 7 + i % 9] for i in range(400)]
                parts = [Part(local.study.backbone, None, [-1] * 400, [[n, *ids] for ids in prompts]) for n in range(6)]
                question = Question("reply", 100)
                assert asker.elsewhere is not None
                replies = asker.elsewhere.answer(question, parts, progress)
                assert replies == [answers(question, part) for part in parts]
        assert progress.killed
        assert sum("is lost; its shard is run again" in note for note in progress.notes) == 1
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_the_configuration_names_where_shards_go():
    def read(**flags: Any):

        return load_config(options_of=lambda target, name: _Nothing, flags={"method": "m", "benchmark": "b", **flags})

    assert read(executor="ray", address="10.0.0.1:6379", shard_people=4).shard_people == 4
    assert read(slurm="partition=gpu,time=90").slurm_parameters == {"partition": "gpu", "time": "90"}
    with pytest.raises(ConfigError, match="'time' is not NAME=VALUE"):
        read(slurm="time")
    with pytest.raises(ConfigError, match="--executor"):
        read(executor="rey")


@dataclass(frozen=True)
class _Nothing:
    """No options."""
