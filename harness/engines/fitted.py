"""What `fit` returns: who replies to each persona, with which adapters and which text. Fitting is harness.study."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.adapters import Bank, LoRABank, load_bank, merged
from harness.contract import Message, Prompt, keep_too
from harness.errors import HarnessError
from harness.model import Backbone

Grouping = Mapping[str, str]  # persona id -> key of the adapter that serves it
Messages = Callable[[Prompt], tuple[Message, ...]]  # prompt -> the messages that the model sees


def as_asked(prompt: Prompt) -> tuple[Message, ...]:
    """The messages of a prompt to which nothing is added."""
    return prompt.messages


@dataclass(frozen=True)
class FitCost:
    """What fits took; costs add up.

    fits        how many banks of adapters were trained; 0: none, and `seconds` is what the method did in their place
    seconds     wall-clock; a fit that is found in the store counts with the time that it took when it was made
    steps       optimiser steps, summed over the adapters
    tokens      trained on, summed over the adapters, without padding
    parameters  numbers that were trained, summed over the banks
    """

    fits: int = 0
    seconds: float = 0.0
    steps: int = 0
    tokens: int = 0
    parameters: int = 0

    def __add__(self, other: FitCost) -> FitCost:
        return FitCost(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @classmethod
    def of_fit(cls, bank: Bank, report: Mapping[str, Any]) -> FitCost:
        """Of one fit, from its report (training.FitReport as plain data)."""
        steps = sum(adapter["steps"] for adapter in report["adapters"].values())
        each = report.get("personal_numbers", bank.trainable_per_adapter)  # of functions of shared parameters: fewer
        parameters = report.get("shared_numbers", 0) + each * len(bank)
        return cls(1, float(report["seconds"]), steps, report["tokens"], parameters)


@dataclass(frozen=True, eq=False)
class Adapters:
    """A bank of adapters and the frozen backbone below it; without a bank, the backbone as it is.

    folder  where the bank lies in PEFT format; None: not saved yet
    """

    backbone: Backbone
    bank: Bank | None = None
    folder: Path | None = None

    @functools.cached_property
    def merged(self) -> Backbone:
        """The backbone with a single LoRA folded in, made once: both fits and replies use it."""
        assert self.bank is not None
        made = replace(merged(self.backbone, self.bank, 0), below=self.backbone, folder=self.folder)
        keep_too(made.model)
        return made

    def unlike_stored(self) -> str:
        """How the bank in use differs from its files, in a few words; empty: it does not, or nothing is saved.

        Raises StoreError for files that cannot be read.
        """
        if self.bank is None or self.folder is None:
            return ""
        stored = load_bank(self.folder, self.backbone)
        if (stored.keys, asdict(stored.spec)) != (self.bank.keys, asdict(self.bank.spec)):
            return "the stored adapters have other keys or another shape than those in use"
        there = stored.served()
        for name, used in self.bank.served().items():
            if not _equal(used, there[name]):
                key = next(key for row, key in enumerate(stored.keys) if not _equal(used[row], there[name][row]))
                return f"the tensor '{name}' of the adapter of '{key}' is not as it was saved"
        return ""


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


@dataclass(frozen=True)
class FitFacts:
    """What is known of a `Fitted` without its tensors: plain data, as far as a record needs it.

    adapters             of the method's own, so many;  numbers_per_adapter, stored_bytes: of one, of all
    folder               where they lie in PEFT format; None: there are none
    base                 fingerprint of the model below them
    served               persona -> key of the own adapter that replies to it, of those whom an own one serves
    cost, stands_on, report, adds_text   as in `Fitted`
    """

    cost: FitCost
    stands_on: Mapping[str, FitCost]
    report: Mapping[str, Any]
    adapters: int
    numbers_per_adapter: int
    stored_bytes: int
    folder: Path | None
    base: str
    adds_text: bool
    served: Mapping[str, str]


class Replier(NamedTuple):
    """Who replies: which adapters, which row of their bank (-1: none of them), and what is shown of a prompt."""

    adapters: Adapters
    row: int = -1
    messages: Messages = as_asked


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a method has learnt: its adapters, and who replies to each persona. `Fitted.of` makes one.

    adapters   the method's own, which are kept with its run
    others     who replies to a persona that is not in `repliers`
    repliers   persona id -> who replies to it: own adapters, or those of another method
    report     how the last fit went and how each adapter fared, as stored in the record
    cost       of all fits that the method made, not only of these adapters
    stands_on  method -> its own cost, for each that is required, directly or through another
    """

    adapters: Adapters
    others: Replier
    repliers: Mapping[str, Replier] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    cost: FitCost = FitCost()
    stands_on: Mapping[str, FitCost] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        adapters: Adapters,
        grouping: Grouping | None = None,
        otherwise: str | None = None,
        fallback: Fitted | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> Fitted:
        """Personas of the grouping get the adapter of their key; everybody else `otherwise`, or the fallback.

        otherwise  key of the adapter for all who are not in the grouping
        fallback   who replies to them where there is no such key; None: the backbone below the adapters
        Raises HarnessError for a key that the bank does not have.
        """
        rows = {} if adapters.bank is None else {key: row for row, key in enumerate(adapters.bank.keys)}

        def own(key: str) -> Replier:
            if key not in rows:
                raise HarnessError(f"there is no adapter {key!r}; the bank has {len(rows)} others")
            return Replier(adapters, rows[key])

        repliers = {persona: own(key) for persona, key in (grouping or {}).items()}
        report = report or {}
        if otherwise is not None:
            return cls(adapters, own(otherwise), repliers, report)
        if fallback is None:
            return cls(adapters, Replier(adapters), repliers, report)
        return cls(adapters, fallback.others, {**fallback.repliers, **repliers}, report)

    @property
    def backbone(self) -> Backbone:
        """The frozen model below the adapters; what they stand on is merged into it."""
        return self.adapters.backbone

    @property
    def bank(self) -> Bank | None:
        return self.adapters.bank

    @property
    def folder(self) -> Path | None:
        return self.adapters.folder

    def who(self, persona: str) -> Replier:
        """Who replies to a persona."""
        return self.repliers.get(persona, self.others)

    def row(self, persona: str) -> int:
        """Row of the own bank that serves a persona; -1: another method's adapters, or none."""
        replier = self.who(persona)
        return replier.row if replier.adapters is self.adapters else -1

    def messages(self, prompt: Prompt) -> tuple[Message, ...]:
        """What the model sees of a prompt."""
        return self.who(prompt.persona).messages(prompt)

    @property
    def all_adapters(self) -> list[Adapters]:
        """All adapters that somebody gets replies from, each once, the own ones first."""
        found = [self.adapters, self.others.adapters, *(replier.adapters for replier in self.repliers.values())]
        return list(dict.fromkeys(found))

    @property
    def adds_text(self) -> bool:
        """Whether any persona's prompts are shown with other messages than they have."""
        return any(replier.messages is not as_asked for replier in (self.others, *self.repliers.values()))

    def facts(self, personas: Collection[str]) -> FitFacts:
        """What a record says of it; personas: those that are asked for."""
        bank = self.bank
        rows = {persona: self.row(persona) for persona in sorted(personas)}
        return FitFacts(
            cost=self.cost,
            stands_on=self.stands_on,
            report=self.report,
            adapters=len(bank) if bank else 0,
            numbers_per_adapter=bank.trainable_per_adapter if bank else 0,
            stored_bytes=bank.stored_bytes if bank else 0,
            folder=self.folder,
            base=self.backbone.fingerprint,
            adds_text=self.adds_text,
            served={persona: bank.keys[row] for persona, row in rows.items() if bank and row >= 0},
        )

    def with_messages(self, messages: Messages) -> Fitted:
        """The same, with prompts shown as `messages(prompt)`, whoever replies.

        Text that a replier adds itself is added to these messages.
        """

        def shown(replier: Replier) -> Replier:
            inner = replier.messages
            if inner is as_asked:
                return replier._replace(messages=messages)
            return replier._replace(messages=lambda prompt: inner(replace(prompt, messages=messages(prompt))))

        return self._changed(shown)

    def with_routes(self, routes: Mapping[str, Fitted]) -> Fitted:
        """The same, but each persona in `routes` gets its replies from the Fitted given there."""
        return replace(self, repliers={**self.repliers, **{p: other.who(p) for p, other in routes.items()}})

    def with_adapters(self, made: Mapping[Adapters, Adapters]) -> Fitted:
        """The same with some adapters in place of others; those that are not in `made` stay."""
        changed = self._changed(lambda replier: replier._replace(adapters=made.get(replier.adapters, replier.adapters)))
        return replace(changed, adapters=made.get(self.adapters, self.adapters))

    def _changed(self, change: Callable[[Replier], Replier]) -> Fitted:
        return replace(
            self, others=change(self.others), repliers={p: change(replier) for p, replier in self.repliers.items()}
        )

    def base(self) -> Backbone:
        """This as a frozen backbone for other adapters: a single LoRA is merged into the weights.

        Raises HarnessError if there are several adapters, or one that cannot be merged.
        """
        if self.all_adapters != [self.adapters]:
            raise HarnessError("a base must be one model; this method sends personas to several")
        if self.bank is None:
            return self.backbone
        if not isinstance(self.bank, LoRABank) or len(self.bank) != 1:
            raise HarnessError(
                f"a base must be a single LoRA shared by all personas; this method has {len(self.bank)} x "
                f"{self.bank.spec}; name a method with a single LoRA in `requires`"
            )
        return self.adapters.merged
