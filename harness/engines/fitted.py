"""What `fit` returns: adapters, what they stand on, and who replies to whom. Fitting is harness.study.

A `Fitted` serves some personas itself and may leave others to other `Fitted`s; `parts` says who replies to what.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.adapters import Bank, LoRABank, merged
from harness.contract import Message, Prompt
from harness.errors import HarnessError
from harness.model import Backbone

Grouping = Mapping[str, str]  # persona id -> key of the adapter that serves it


@dataclass(frozen=True)
class FitCost:
    """What fits took; costs add up.

    fits     how many banks of adapters were trained; 0: none, then `seconds` is the time of the method's own work
    seconds  wall-clock; a fit that is found in the store counts with the time that it took when it was made
    steps    optimiser steps, summed over the adapters
    tokens   trained on, summed over the adapters, without padding
    """

    fits: int = 0
    seconds: float = 0.0
    steps: int = 0
    tokens: int = 0

    def __add__(self, other: FitCost) -> FitCost:
        return FitCost(
            self.fits + other.fits, self.seconds + other.seconds, self.steps + other.steps, self.tokens + other.tokens
        )

    @classmethod
    def of_report(cls, report: Mapping[str, Any]) -> FitCost:
        """Of one fit, from its report (training.FitReport as plain data)."""
        steps = sum(adapter["steps"] for adapter in report["adapters"].values())
        return cls(1, float(report["seconds"]), steps, report["tokens"])


def _as_asked(prompt: Prompt) -> tuple[Message, ...]:
    return prompt.messages


@dataclass(frozen=True)
class Fitted:
    """Adapters with what they stand on, and which persona is served by which.

    backbone     frozen model below the adapters (what they stand on is merged into it)
    bank         the adapters; None: the bare backbone replies
    grouping     persona id -> key in the bank; a persona that is not in it gets `otherwise`
    otherwise    key for everybody else; None: see `fallback`
    report       how the last fit went and how each adapter fared, as stored in the record
    folder       where the adapters lie in PEFT format
    messages     prompt -> the messages the model sees; replace it to add text (shown in the method's row)
    routes       persona id -> the Fitted that replies to this persona in place of this one
    fallback     the Fitted that replies to personas without an adapter; None: the backbone as it stands here
    cost         of all fits that the method made, not only of these adapters
    stands_on    method -> its own cost, for each that is required, directly or through another
    adds_text    whether `messages` was replaced, here or in a route or fallback
    """

    backbone: Backbone
    bank: Bank | None = None
    grouping: Grouping = field(default_factory=dict)
    otherwise: str | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    messages: Callable[[Prompt], tuple[Message, ...]] = _as_asked
    routes: Mapping[str, Fitted] = field(default_factory=dict)
    fallback: Fitted | None = None
    cost: FitCost = FitCost()
    stands_on: Mapping[str, FitCost] = field(default_factory=dict)

    @property
    def adds_text(self) -> bool:
        others = [*self.routes.values(), *([self.fallback] if self.fallback else [])]
        return self.messages is not _as_asked or any(other.adds_text for other in others)

    def row(self, persona: str) -> int:
        """Row of the bank that serves a persona; -1: no adapter."""
        key = self.grouping.get(persona, self.otherwise)
        return -1 if self.bank is None or key is None else self.bank.row(key)

    def answering(self, persona: str) -> Fitted:
        """The Fitted that really replies to a persona: this one, a route's, or the fallback's."""
        if persona in self.routes:
            return self.routes[persona].answering(persona)
        if self.fallback is not None and self.row(persona) < 0:
            return self.fallback.answering(persona)
        return self

    def base(self) -> Backbone:
        """This as a frozen backbone to stand on: a single LoRA is merged into the weights.

        Raises HarnessError if there are several adapters, or one that cannot be merged.
        """
        if self.routes:
            raise HarnessError("a method that routes personas to others is no single model to stand on")
        if self.bank is None:
            return self.backbone
        if not isinstance(self.bank, LoRABank) or len(self.bank) != 1:
            raise HarnessError(
                f"only one LoRA shared by everybody can be stood on, not {len(self.bank)} x {self.bank.spec}; "
                "name a method with a single LoRA in `requires`"
            )
        return self.merged

    @functools.cached_property
    def merged(self) -> Backbone:
        """The backbone with a single LoRA folded in, made once: both fits and replies stand on it. See `base`."""
        assert self.bank is not None
        return merged(self.backbone, self.bank, 0)


def parts(fitted: Fitted, personas: Sequence[str]) -> list[tuple[Fitted, list[int]]]:
    """Who replies to whom: (Fitted, places in `personas`), each Fitted once, in order of first need."""
    found: dict[int, tuple[Fitted, list[int]]] = {}
    for place, persona in enumerate(personas):
        answering = fitted.answering(persona)
        found.setdefault(id(answering), (answering, []))[1].append(place)
    return list(found.values())
