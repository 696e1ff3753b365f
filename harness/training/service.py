"""Fits as the study offers them: what the control leaves of them, their identity, the cache, and who is served.

The public door with the manual is harness.study; the loops are in harness.training.bank_training.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.adapters import (
    AdapterSpec,
    Bank,
    LoRABank,
    combine_loras,
    create_bank,
    is_core,
    kind_source,
    load_bank,
    save_bank,
)
from harness.contract import Dialogue, Persona, Protocol, Split
from harness.engines import Adapters, FitCost, Fitted, Grouping, engine_for
from harness.errors import HarnessError, Passing
from harness.model import Backbone, Encoded, dialogue_messages, encode_dialogue
from harness.progress import Progress
from harness.store import Store, canonical_hash, dump_json, numerics, read_json, source_hash
from harness.training.bank_training import TrainOptions, Watch
from harness.training.designs import DesignSpec
from harness.training.orders import Elsewhere, FitOrder, Joint, Shards, joined, joined_reports

Control = Literal["global", "swapped"]


class FitStopped(Passing):
    """Raised by a `watch`: the fit ends here, and nothing of it is kept."""


@dataclass(frozen=True)
class PlannedFit:
    """A fit that is about to be made, as the control changes it."""

    backbone: Backbone
    grouping: Grouping
    train: TrainOptions
    keys: list[str]
    data: dict[str, list[list[Encoded]]]  # of each key, by split

    def shard(self, places: range) -> PlannedFit:
        """The adapters at some places alone."""
        data = {split: [of_key[i] for i in places] for split, of_key in self.data.items()}
        return replace(self, keys=[self.keys[i] for i in places], data=data)


@dataclass(frozen=True)
class _Fit:
    """A fit that may be in the cache: what decides on it, and the order that makes it."""

    identity: Mapping[str, Any]
    order: Callable[[], FitOrder]
    title: str

    @property
    def key(self) -> str:
        return canonical_hash(self.identity)


@dataclass(frozen=True)
class Fitter:
    """Everything that the fits of one study have in common."""

    personas: tuple[Persona, ...]
    dialogues: tuple[Dialogue, ...]
    protocol: Protocol
    seed: int
    store: Store
    progress: Progress
    control: Control | None
    watch: Watch | None = None
    shards: Shards = field(default_factory=Shards)
    unswapped: dict[Adapters, Grouping] = field(default_factory=dict)  # whose the adapters are that the control swaps
    controlled: set[Control] = field(default_factory=set)  # the control, once it has changed something

    def adapters(
        self,
        backbone: Backbone,
        spec: AdapterSpec,
        grouping: Grouping,
        train: TrainOptions,
        start: Fitted | None,
        fallback: Fitted | None,
    ) -> Fitted:
        """One adapter per key of a grouping; see Study.fit_adapters."""
        plan = self._plan(backbone, grouping, train)
        begin = None if start is None else self._to_start_from(start, plan)
        # Who watches a fit wants the losses of all its adapters, so it is not cut.
        cut = [range(len(plan.keys))] if self.watch else self.shards.cut(len(plan.keys))
        if len(cut) == 1:
            fits = [self._alone(plan, spec, begin)]
        else:
            starts = [begin.select(places) if begin else None for places in cut]
            fits = [self._alone(plan.shard(p), spec, start) for p, start in zip(cut, starts, strict=True)]
        return self._made(plan, spec, fits, fallback)

    def _alone(self, plan: PlannedFit, spec: AdapterSpec, start: Bank | None) -> _Fit:
        """The fit of adapters that share nothing."""

        def order() -> FitOrder:
            bank = create_bank(plan.backbone, spec, plan.keys, self.seed, start)
            return self._order(plan, bank, None)

        return self._fit(plan, spec, {"start": _hash_of(start)} if start else {}, order)

    def _fit(self, plan: PlannedFit, spec: AdapterSpec, more: Mapping[str, Any], order: Callable[[], FitOrder]) -> _Fit:
        return _Fit(self._identity(plan, spec, more), order, f"fit {len(plan.keys)} x {type(spec).__name__}")

    def _order(self, plan: PlannedFit, bank: Bank, joint: Joint | None) -> FitOrder:
        return FitOrder(
            plan.backbone, bank, plan.data["train"], plan.data["validation"], plan.train, self.seed, joint
        )  # fmt: skip

    def jointly(
        self,
        backbone: Backbone,
        design: DesignSpec,
        spec: AdapterSpec,
        people: Sequence[str],
        train: TrainOptions,
        labels: Mapping[str, int],
        vectors: Mapping[str, NDArray[Any]] | None,
        fallback: Fitted | None,
    ) -> Fitted:
        """One adapter per persona of `people` as a function of shared parameters; see Study.fit_jointly."""
        if vectors is not None and not any(p.id in vectors for p in self.personas):
            raise HarnessError(
                "none of the personas that are fitted has a vector to make an adapter from; what is embedded, a "
                "description or train replies, this data does not have: choose the other one (`by`)"
            )
        if train.towards_start:
            raise HarnessError("a joint fit has no starting values to decay towards; leave towards_start out")
        plan = self._plan(backbone, {p: p for p in people}, train)
        places = {label: i for i, label in enumerate(sorted(set(labels.values())))}
        # A persona whose cluster is unknown has no cluster: its cluster part stays at 0.
        cluster_of = [places[labels[k]] if k in labels else len(places) for k in plan.keys]
        known = None if vectors is None else _standardised(vectors, plan.keys, [p.id for p in self.personas])
        shared: dict[str, Any] = {
            "design": [type(design).__name__, dataclasses.asdict(design)],
            "cluster_of": cluster_of,
            "vectors": canonical_hash(known.tolist()) if known is not None else None,
        }

        def order() -> FitOrder:
            first = create_bank(plan.backbone, spec, ["all"], self.seed)
            bank = create_bank(plan.backbone, spec, plan.keys, self.seed, first)
            vectors = None if known is None else torch.from_numpy(known)
            return self._order(plan, bank, Joint(design, cluster_of, vectors))

        return self._made(plan, spec, [self._fit(plan, spec, shared, order)], fallback, serve_all=True)

    def combined(
        self, fitted: Fitted, recipes: Mapping[str, Mapping[str, float]], fallback: Fitted | None, same_rank: bool
    ) -> Fitted:
        """Weighted sums of fitted LoRAs; see Study.combine."""
        if not isinstance(fitted.bank, LoRABank):
            raise HarnessError("only LoRAs can be combined; name a method that fits LoRAs in `requires`")
        bank = combine_loras(fitted.bank, recipes, same_rank=same_rank)
        adapters = self._kept(fitted.backbone, bank, _own_key(bank))
        return self._serving(adapters, {p: p for p in recipes}, None, fallback)

    def given(
        self,
        backbone: Backbone,
        spec: AdapterSpec,
        tensors: Mapping[str, Mapping[str, Tensor]],
        grouping: Grouping | None,
        fallback: Fitted | None,
    ) -> Fitted:
        """A method's own tensors as adapters; see Study.fitted_from."""
        if self.control == "global":
            raise HarnessError("the control 'global' needs a method whose adapters the harness fits; leave it out")
        bank = _filled(create_bank(backbone, spec, list(tensors), self.seed), tensors)
        adapters = self._kept(backbone, bank, _own_key(bank))
        fitted = self._serving(adapters, grouping or {key: key for key in tensors}, None, fallback)
        return replace(fitted, cost=FitCost(fits=1, parameters=bank.trainable_per_adapter * len(bank)))

    def saved(self, fitted: Fitted) -> Fitted:
        """The same with every bank in the store; one that is not there yet is saved, and served as it was saved."""
        made = {
            adapters: self._kept(adapters.backbone, bank, _own_key(bank))
            for adapters in fitted.all_adapters
            if (bank := adapters.bank) is not None and adapters.folder is None
        }
        return fitted.with_adapters(made) if made else fitted

    def _kept(self, backbone: Backbone, bank: Bank, key: str) -> Adapters:
        """A bank as it is read back from the store, where it lies under `key`."""
        folder = self.store.cached(
            "adapters",
            key,
            lambda part: save_bank(bank, part / "adapters", backbone.name, backbone.folder, self.shards.people),
        )
        return Adapters(backbone, load_bank(folder / "adapters", backbone), folder / "adapters")

    def _serving(
        self,
        adapters: Adapters,
        grouping: Grouping,
        otherwise: str | None,
        fallback: Fitted | None,
        report: Mapping[str, Any] | None = None,
    ) -> Fitted:
        """Adapters that serve the personas of a grouping, or others of it as the control has it."""
        if self.control == "swapped":
            self.unswapped[adapters] = grouping
            self.controlled.add("swapped")
            grouping = _swapped(grouping, self.seed)
        return Fitted.of(adapters, grouping, otherwise, fallback, report)

    def _to_start_from(self, start: Fitted, plan: PlannedFit) -> Bank:
        """For each key of a plan the adapter of its first persona in `start`, whomever the control lets it serve.

        A key without train dialogues, which is not trained and serves nobody, may have none: it gets zeros.
        """
        if start.bank is None:
            raise HarnessError("there are no adapters to start from; give a fitted method that has some")
        first: dict[str, str] = {}
        for persona, key in plan.grouping.items():
            first.setdefault(key, persona)
        own = self.unswapped.get(start.adapters)
        places = {key: row for row, key in enumerate(start.bank.keys)}
        rows = [
            start.row(p) if own is None else places.get(own.get(p, ""), -1) for p in map(first.__getitem__, plan.keys)
        ]
        missing = [place for place, row in enumerate(rows) if row < 0]
        if wanted := [plan.keys[place] for place in missing if plan.data["train"][place]]:
            raise HarnessError(f"there is no adapter to start '{wanted[0]}' from; fit one for all of its personas")
        # Keys of one bank must differ, and two of ours may start from one row.
        tensors = {name: tensor.detach()[rows].clone() for name, tensor in start.bank.tensors.items()}
        for tensor in tensors.values():
            tensor[missing] = 0
        return replace(start.bank, tensors=tensors, keys=tuple(plan.keys))

    def _plan(self, backbone: Backbone, grouping: Grouping, train: TrainOptions) -> PlannedFit:
        if self.control == "global":
            if (factor := len(set(grouping.values()))) > 1:
                self.controlled.add("global")
            grouping = dict.fromkeys(grouping, "all")
            train = replace(train, batch_size=train.batch_size * factor)
        keys = sorted(set(grouping.values()))
        data = {split: self.encoded(backbone, grouping, split) for split in ("train", "validation")}
        if not any(data["train"]):
            raise HarnessError("no persona has train dialogues; nothing can be fitted (check the splits of the data)")
        return PlannedFit(backbone, grouping, train, keys, data)

    def _identity(self, plan: PlannedFit, spec: AdapterSpec, more: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that decides on fitted adapters."""
        numbers = {s: [[[e.ids, e.labels] for e in own] for own in data] for s, data in plan.data.items()}
        return {
            "backbone": plan.backbone.fingerprint,
            "spec": [type(spec).__name__, dataclasses.asdict(spec)],
            "kind": kind_source(spec),
            "train": dataclasses.asdict(plan.train),
            "seed": self.seed,
            "keys": plan.keys,
            "data": canonical_hash(numbers),
            "numerics": numerics(plan.backbone, engine_for(plan.backbone)[0].name),
            "code": source_hash(__name__),
            **more,
        }

    def _made(
        self,
        plan: PlannedFit,
        spec: AdapterSpec,
        fits: Sequence[_Fit],
        fallback: Fitted | None,
        serve_all: bool = False,
    ) -> Fitted:
        """The adapters of a plan, from the cache or made now; `serve_all`: also those without data of their own."""
        folder = self._whole(fits, plan.backbone)
        report = read_json(folder / "report.json")
        bank = load_bank(folder / "adapters", plan.backbone)
        adapters = Adapters(plan.backbone, bank, folder / "adapters")
        without = {k for k, state in report["adapters"].items() if state["status"] == "no data" and not serve_all}
        grouping = {p: k for p, k in plan.grouping.items() if k not in without}
        fitted = self._of_plan(plan, adapters, grouping, fallback, report)
        return replace(fitted, cost=FitCost.of_fit(bank, report))

    def _whole(self, fits: Sequence[_Fit], backbone: Backbone) -> Path:
        """The folder of one fit, or of the bank that several shards make up."""
        if len(fits) == 1:
            (folder,) = self._folders(fits)
            return folder
        keys = [fit.key for fit in fits]

        def join(part: Path) -> None:
            folders = self._folders(fits)
            bank = joined([load_bank(folder / "adapters", backbone) for folder in folders])
            report = joined_reports([read_json(folder / "report.json") for folder in folders])
            self._write(part, bank, backbone, report, {"shards": keys})

        return self.store.cached("adapters", canonical_hash(["joined", self.shards.people, *keys]), join)

    def _folders(self, fits: Sequence[_Fit]) -> list[Path]:
        """The folder of each fit; those that are not in the cache are fitted, here or elsewhere."""
        there = {fit.key: self.store.find("adapters", fit.key) for fit in fits}
        missing = [fit for fit in fits if there[fit.key] is None]
        if missing and self.shards.elsewhere and not self.watch:
            self._fit_elsewhere(missing, self.shards.elsewhere)
        return [there[fit.key] or self._fitted_here(fit) for fit in fits]

    def _fit_elsewhere(self, fits: Sequence[_Fit], elsewhere: Elsewhere) -> None:
        """Have these fits carried out by an executor; adapters of a plugin's own kind stay for this process."""
        orders = [fit.order() for fit in fits]
        if not all(is_core(order.bank.spec) for order in orders):
            return
        for number, report in elsewhere.fit(orders, self.progress):
            fit, order = fits[number], orders[number]

            def keep(part: Path, fit: _Fit = fit, order: FitOrder = order, report: Any = report) -> None:
                self._write(part, order.bank, order.backbone, report, fit.identity)

            self.store.cached("adapters", fit.key, keep)

    def _fitted_here(self, fit: _Fit) -> Path:
        """The folder of a fit, from the cache or fitted now; an interrupted one goes on where it stopped."""
        partial = self.store.partial(fit.key)

        def make(part: Path) -> None:
            partial.mkdir(parents=True, exist_ok=True)
            order = fit.order()
            with self.progress.task(fit.title, 0, "dialogues") as advance:
                report = order.carried_out(advance.to, self.progress.note, partial / "state", self.watch)
            self._write(part, order.bank, order.backbone, report, fit.identity)

        try:
            folder = self.store.cached("adapters", fit.key, make)
        except FitStopped:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(partial, ignore_errors=True)
        return folder

    def _write(
        self, part: Path, bank: Bank, backbone: Backbone, report: Mapping[str, Any], identity: Mapping[str, Any]
    ) -> None:
        save_bank(bank, part / "adapters", backbone.name, backbone.folder, self.shards.people)
        dump_json({**report, "identity": identity}, part / "report.json")

    def _of_plan(
        self,
        plan: PlannedFit,
        adapters: Adapters,
        grouping: Grouping,
        fallback: Fitted | None,
        report: Mapping[str, Any] | None = None,
    ) -> Fitted:
        """A plan's adapters, served to the personas of a grouping; one for all serves everybody else, too."""
        otherwise = "all" if set(plan.keys) == {"all"} and self.control is None else None
        return self._serving(adapters, grouping, otherwise, fallback, report)

    def encoded(self, backbone: Backbone, grouping: Grouping, split: Split) -> list[list[Encoded]]:
        """The dialogues of a split by adapter, keys ascending; a dialogue without anything to learn is left out."""
        people = {p.id: p for p in self.personas}
        made: dict[str, list[Encoded]] = {key: [] for key in sorted(set(grouping.values()))}
        for dialogue in self.dialogues:
            if dialogue.split == split and dialogue.persona in grouping:
                messages = dialogue_messages(self.protocol, people[dialogue.persona], dialogue)
                encoded = encode_dialogue(backbone.tokenizer, messages, self.protocol.max_prompt_tokens)
                if len(encoded):
                    made[grouping[dialogue.persona]].append(encoded)
        return list(made.values())


def _filled(bank: Bank, tensors: Mapping[str, Mapping[str, Tensor]]) -> Bank:
    """The bank with these tensors, by key and name, in place of its own. Raises HarnessError for names and shapes."""
    wanted = {name: tuple(tensor.shape[1:]) for name, tensor in bank.tensors.items()}
    for key, given in tensors.items():
        found = {name: tuple(tensor.shape) for name, tensor in given.items()}
        wrong = [name for name in wanted | found if found.get(name) != wanted.get(name)]
        if wrong:
            name = wrong[0]
            raise HarnessError(
                f"the adapter {key!r}: tensor '{name}' has shape {found.get(name, 'none: it is missing')}, wanted "
                f"{wanted.get(name, 'no such tensor')}; {bank.spec} has {', '.join(wanted)}"
            )
    stacked = {
        name: torch.stack([given[name].detach().to(tensor) for given in tensors.values()])
        for name, tensor in bank.tensors.items()
    }
    return bank.with_tensors(stacked)


def _own_key(bank: Bank) -> str:
    """Where a bank of a method's own tensors lies in the store."""
    return canonical_hash(["own", bank.base.fingerprint, _hash_of(bank)])


def _hash_of(bank: Bank) -> str:
    """Of a bank's spec, keys and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(bank.tensors.items()):
        digest.update(f"{name} {tensor.dtype}\n".encode() + tensor.detach().cpu().numpy().tobytes())
    spec = [type(bank.spec).__name__, dataclasses.asdict(bank.spec)]
    return canonical_hash([spec, list(bank.keys), digest.hexdigest()])


def _standardised(vectors: Mapping[str, NDArray[Any]], keys: Sequence[str], seen: Sequence[str]) -> NDArray[np.float32]:
    """[N, E] in the order of keys: mean 0 and mean square 1 over the personas that are fitted, not newcomers.

    A key without a vector is everybody's, under the control 'global': it gets the mean.
    """
    known = np.stack([np.asarray(vectors[p], dtype=np.float64) for p in seen if p in vectors])
    middle = known.mean(axis=0)
    scale = float(np.sqrt(np.square(known - middle).mean())) or 1.0
    own = (np.asarray(vectors.get(key, middle), dtype=np.float64) for key in keys)
    return np.stack([(vector - middle) / scale for vector in own]).astype(np.float32)


def _swapped(grouping: Grouping, seed: int) -> dict[str, str]:
    """Every persona gets the adapter of another: one cycle through the keys in seeded order."""
    keys = sorted(set(grouping.values()))
    if len(keys) < 2:
        raise HarnessError("the control 'swapped' needs at least two adapters; this method has one for all personas")
    random.Random(seed).shuffle(keys)
    following = dict(zip(keys, keys[1:] + keys[:1], strict=True))
    return {persona: following[key] for persona, key in grouping.items()}
