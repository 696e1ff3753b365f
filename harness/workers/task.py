"""Work for another process as messages: the fit of a shard, or the answers to its people. No plugin's code is in them.

`Distributed` asks an executor in place of this process, and `Workplace` does what it is asked, on the other side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import TypeAdapter

from harness.adapters import Bank, create_bank, is_core, kind_named, kind_of, load_bank
from harness.contract import Coefficients, FromVector, Levels, Subspace, TrainOptions
from harness.engines import Adapters, Part, Question, answers, engine_for
from harness.errors import HarnessError
from harness.model import Backbone, Encoded, load_backbone, set_repeatable
from harness.progress import Progress
from harness.store import canonical_hash, numerics
from harness.training import FitOrder, Joint
from harness.workers.channel import Message, failure, raised
from harness.workers.job import BackboneJob

_DESIGNS = {design.__name__: design for design in (Levels, Coefficients, Subspace, FromVector)}
_LOADING, _OPTIONS, _QUESTION = TypeAdapter(BackboneJob), TypeAdapter(TrainOptions), TypeAdapter(Question)
Report = Callable[[int, int], None]  # done, to do


class Executor(Protocol):
    """Where tasks are carried out; see on_ray and on_slurm."""

    def run(self, tasks: Sequence[Message], title: str, unit: str, progress: Progress) -> Iterator[tuple[int, Message]]:
        """(number of a task, what `Workplace.done` answered) as they become ready. Raises HarnessError."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Distributed:
    """Fits and answers of a study by an executor. Adapters of a plugin's own kind are computed in this process."""

    def __init__(self, executor: Executor, loading: Callable[[], BackboneJob]) -> None:
        self._executor, self._loading = executor, loading
        self._below: dict[str, list[_Packed]] = {}  # by the fingerprint of the model that they make

    def fit(self, orders: Sequence[FitOrder], progress: Progress) -> Iterator[tuple[int, dict[str, Any]]]:
        """See `harness.training.Elsewhere`."""
        tasks = [self._task("fit", order.backbone, *_of_order(order), order.bank) for order in orders]
        title = f"fit {len(orders)} shard{'s' * (len(orders) > 1)} x {type(orders[0].bank.spec).__name__}"
        for number, done in self._executor.run(tasks, title, "dialogues", progress):
            bank = orders[number].bank
            for name, values in bank.tensors.items():
                values.detach().copy_(torch.from_numpy(_answer(done).arrays[name]).view_as(values))
            yield number, done.fields["report"]

    def answer(self, question: Question, parts: Sequence[Part], progress: Progress) -> list[Sequence[Any]]:
        """See `harness.engines.Answering`."""
        found: dict[int, Sequence[Any]] = {}
        away = [i for i, part in enumerate(parts) if part.bank is None or is_core(part.bank.spec)]
        fields = {"question": _QUESTION.dump_python(question, mode="json")}
        tasks = [self._task("answer", parts[i].backbone, *_of_part(parts[i], fields), parts[i].bank) for i in away]
        if tasks:
            for number, done in self._executor.run(tasks, question.title, "replies", progress):
                found[away[number]] = _answers_from(question, _answer(done).arrays)
        for i in set(range(len(parts))) - set(away):
            found[i] = answers(question, parts[i])
        return [found[i] for i in range(len(parts))]

    def _task(
        self, kind: str, backbone: Backbone, fields: dict[str, Any], arrays: dict[str, np.ndarray], bank: Bank | None
    ) -> Message:
        below = self._packed_below(backbone)
        packed = [*below, *([] if bank is None else [_Packed.of(bank)])]
        root = backbone
        while root.below is not None:
            root = root.below
        model = {
            "loading": _LOADING.dump_python(self._loading(), mode="json"),
            "numerics": numerics(root, engine_for(root)[0].name),
            "fingerprint": backbone.fingerprint,
            "threads": torch.get_num_threads(),
            "below": len(below),
            "banks": [one.facts for one in packed],
        }
        for number, one in enumerate(packed):
            arrays |= {f"bank{number}/{name}": values for name, values in one.arrays.items()}
        return Message(kind, {**fields, "model": model}, arrays)

    def _packed_below(self, backbone: Backbone) -> list[_Packed]:
        """The adapters that are merged into a backbone, the lowest first."""
        if backbone.below is None:
            return []
        if backbone.fingerprint not in self._below:
            if backbone.folder is None:
                raise HarnessError("a base that is not stored cannot be sent to a worker")
            own = _Packed.of(load_bank(backbone.folder, backbone.below))
            self._below[backbone.fingerprint] = [*self._packed_below(backbone.below), own]
        return self._below[backbone.fingerprint]


class Workplace:
    """Carries tasks out. Models stay loaded between tasks."""

    def __init__(self) -> None:
        self._models: dict[str, Backbone] = {}

    def done(self, task: Message, report: Report | None = None, checkpoint: Path | None = None) -> Message:
        """The answer to a task; an error, too, is an answer.

        checkpoint   file for the state of an unfinished fit
        """
        try:
            backbone, bank = self._model(task)
            if task.kind == "fit":
                return _fitted(_order_from(task, backbone, bank), report, checkpoint)
            question = _QUESTION.validate_python(task.fields["question"])
            rows, prompts = task.arrays["rows"].tolist(), _lists(task.arrays, "prompts")
            part = Part(backbone, bank, rows, prompts, task.fields["references"])
            return _answered(question, answers(question, part, report))
        except HarnessError as error:
            return failure(error)

    def _model(self, task: Message) -> tuple[Backbone, Bank | None]:
        """The frozen model of a task, with what is merged into it, and the bank above it."""
        model = task.fields["model"]
        set_repeatable(int(model["threads"]))
        asked = _LOADING.validate_python(model["loading"])
        backbone = self._kept(canonical_hash(model["loading"]), lambda: load_again(asked))
        own = numerics(backbone, engine_for(backbone)[0].name)
        if unlike := {name: value for name, value in model["numerics"].items() if own.get(name) != value}:
            name, value = next(iter(unlike.items()))
            raise HarnessError(f"a worker has {name} {own.get(name)} and this command {value}: results would differ")
        packed = [_Packed.sent(task, number) for number in range(len(model["banks"]))]
        key = backbone.fingerprint
        for one in packed[: model["below"]]:
            key = canonical_hash([key, one.digest()])
            adapters = Adapters(backbone, one.bank(backbone))
            backbone = self._kept(key, lambda adapters=adapters: adapters.merged)
        if backbone.fingerprint != model["fingerprint"]:
            raise HarnessError("a worker has built a different model from the same parts")
        above = packed[model["below"] :]
        return backbone, above[0].bank(backbone) if above else None

    def _kept(self, key: str, make: Callable[[], Backbone]) -> Backbone:
        if key not in self._models:
            self._models[key] = make()
        return self._models[key]


def load_again(asked: BackboneJob) -> Backbone:
    """The backbone that another process has loaded. Raises HarnessError where it has changed since."""
    loading = {name: value for name, value in vars(asked).items() if name != "fingerprint"}
    backbone = load_backbone(**loading, note=lambda _: None)  # who asks has said it
    if backbone.fingerprint != asked.fingerprint:
        raise HarnessError(f"the backbone {asked.name} on this machine differs from that of the command")
    return backbone


# ---- banks ----


@dataclass(frozen=True)
class _Packed:
    """A bank as plain data and arrays."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, bank: Bank) -> _Packed:
        facts = {"kind": kind_of(bank.spec).name, "spec": asdict(bank.spec), "keys": list(bank.keys)}
        return cls(facts, {name: values.detach().cpu().numpy() for name, values in bank.tensors.items()})

    @classmethod
    def sent(cls, task: Message, number: int) -> _Packed:
        head = f"bank{number}/"
        arrays = {name.removeprefix(head): a for name, a in task.arrays.items() if name.startswith(head)}
        return cls(task.fields["model"]["banks"][number], arrays)

    def digest(self) -> str:
        arrays = {name: hashlib.sha256(values.tobytes()).hexdigest() for name, values in self.arrays.items()}
        return canonical_hash([self.facts, arrays])

    def bank(self, backbone: Backbone) -> Bank:
        spec, keys = kind_named(self.facts["kind"]).spec(**self.facts["spec"]), tuple(self.facts["keys"])
        bank = create_bank(backbone, spec, keys[:1], seed=0)  # only its shapes are used
        tensors = {name: torch.from_numpy(self.arrays[name].copy()).to(one) for name, one in bank.tensors.items()}
        return replace(bank, keys=keys, tensors=tensors)


# ---- fits ----


def _of_order(order: FitOrder) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    fields: dict[str, Any] = {"options": _OPTIONS.dump_python(order.options, mode="json"), "seed": order.seed}
    arrays: dict[str, np.ndarray] = {}
    for split, data in (("train", order.train), ("validation", order.validation)):
        flat = [encoded for own in data for encoded in own]
        arrays[f"{split}/counts"] = np.array([len(own) for own in data], dtype=np.int64)
        arrays |= joined(f"{split}/ids", [encoded.ids for encoded in flat], np.int32)
        arrays |= joined(f"{split}/labels", [encoded.labels for encoded in flat], np.uint8)
    if (joint := order.joint) is not None:
        design = {"name": type(joint.design).__name__, "options": asdict(joint.design)}
        fields["joint"] = {"design": design, "cluster_of": list(joint.cluster_of)}
        if joint.vectors is not None:
            arrays["vectors"] = joint.vectors.cpu().numpy()
    return fields, arrays


def _order_from(task: Message, backbone: Backbone, bank: Bank | None) -> FitOrder:
    assert bank is not None
    data = []
    for split in ("train", "validation"):
        ids, labels = _lists(task.arrays, f"{split}/ids"), _lists(task.arrays, f"{split}/labels")
        flat = iter([Encoded(tuple(i), tuple(map(bool, w))) for i, w in zip(ids, labels, strict=True)])
        data.append([[next(flat) for _ in range(count)] for count in task.arrays[f"{split}/counts"].tolist()])
    joint = None
    if (told := task.fields.get("joint")) is not None:
        design = _DESIGNS[told["design"]["name"]](**told["design"]["options"])
        vectors = torch.from_numpy(task.arrays["vectors"].copy()) if "vectors" in task.arrays else None
        joint = Joint(design, told["cluster_of"], vectors)
    options = _OPTIONS.validate_python(task.fields["options"])
    return FitOrder(backbone, bank, data[0], data[1], options, int(task.fields["seed"]), joint)


def _fitted(order: FitOrder, report: Report | None, checkpoint: Path | None) -> Message:
    progress = (lambda done, total, _: report(done, total)) if report else None
    told = order.carried_out(progress, checkpoint=checkpoint)
    tensors = {name: values.detach().cpu().numpy() for name, values in order.bank.tensors.items()}
    return Message("fitted", {"report": told}, tensors)


# ---- answers ----


def _of_part(part: Part, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    arrays = {"rows": np.array(part.rows, dtype=np.int64), **joined("prompts", part.ids, np.int32)}
    return {**fields, "references": list(part.references)}, arrays


def _answered(question: Question, found: Sequence[Any]) -> Message:
    if question.kind != "weigh choices":
        return Message("answered", {}, joined("found", found, np.int32 if question.kind == "reply" else np.float64))
    return Message("answered", {}, {"found": np.array(found, dtype=np.float64)})


def _answers_from(question: Question, arrays: Mapping[str, np.ndarray]) -> Sequence[Any]:
    if question.kind == "reply":
        return _lists(arrays, "found")
    if question.kind == "likelihood":
        return parted(arrays, "found")
    return list(arrays["found"])


def _answer(message: Message) -> Message:
    """Raises what the worker raised."""
    if message.kind == "error":
        raise raised(message)
    return message


# ---- lists of different lengths ----


def joined(name: str, lists: Sequence[Sequence[Any] | np.ndarray], dtype: Any) -> dict[str, np.ndarray]:
    """Arrays for a message: `parted` gives the lists back."""
    lengths = np.array([len(one) for one in lists], dtype=np.int64)
    return {name: np.array([value for one in lists for value in one], dtype=dtype), f"{name}/lengths": lengths}


def parted(arrays: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    """The lists of `joined` as arrays [their lengths]. Raises KeyError, ValueError for arrays that it has not made."""
    ends = np.cumsum(arrays[f"{name}/lengths"])
    if len(arrays[name]) != (ends[-1] if len(ends) else 0):
        raise ValueError(name)
    return np.split(arrays[name], ends[:-1]) if len(ends) else []


def _lists(arrays: Mapping[str, np.ndarray], name: str) -> list[list[int]]:
    return [part.tolist() for part in parted(arrays, name)]
