"""One fit as an order that can be carried out here or elsewhere, and what the shards of one bank add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.adapters import SHARD, Bank
from harness.engines import Answering
from harness.model import Backbone, Encoded
from harness.progress import Progress
from harness.training.bank_training import OnProgress, TrainOptions, Watch, fit_bank, fit_jointly
from harness.training.designs import DesignSpec


@dataclass(frozen=True, eq=False)
class Joint:
    """How the adapters of a fit share parameters, see `fit_jointly`."""

    design: DesignSpec
    cluster_of: Sequence[int]
    vectors: Tensor | None


@dataclass(frozen=True, eq=False)
class FitOrder:
    """One fit: nothing else decides on its bits.

    bank   adapters with the values that they start from; the fit replaces them in place
    train, validation   encoded dialogues of each row
    joint  None: every adapter is fitted as if it were alone
    """

    backbone: Backbone
    bank: Bank
    train: Sequence[Sequence[Encoded]]
    validation: Sequence[Sequence[Encoded]]
    options: TrainOptions
    seed: int
    joint: Joint | None = None

    def carried_out(
        self,
        progress: OnProgress | None = None,
        announce: Callable[[str], None] | None = None,
        checkpoint: Path | None = None,
        watch: Watch | None = None,
    ) -> dict[str, Any]:
        """Fit in this process; the report as plain data, with the facts of a joint design."""
        told: dict[str, Any] = {"progress": progress, "announce": announce, "checkpoint": checkpoint, "watch": watch}
        given = self.backbone, self.bank, self.train, self.validation, self.options, self.seed
        if self.joint is None:
            return fit_bank(*given, **told).as_dict()
        shared = self.joint
        report, facts = fit_jointly(*given, shared.design, shared.cluster_of, shared.vectors, **told)
        return {**report.as_dict(), **facts}


class Elsewhere(Answering, Protocol):
    """Where fits and answers may be computed in place of this process."""

    def fit(self, orders: Sequence[FitOrder], progress: Progress) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number of an order, its report) as they become ready, in any order; each bank then holds what was fitted."""
        ...


@dataclass(frozen=True)
class Shards:
    """How work is cut, and where it is done.

    people     so many adapters, or people who are answered, are computed together
    elsewhere  None: in this process
    """

    people: int = SHARD
    elsewhere: Elsewhere | None = None

    def cut(self, count: int) -> list[range]:
        """Consecutive places of `count` adapters by shard."""
        return [range(first, min(first + self.people, count)) for first in range(0, count, self.people)]

    def of_people(self, people: Sequence[str]) -> dict[str, int]:
        """Persona id -> number of its shard, in alphabetical order; empty where one holds them all."""
        ordered = sorted(people)
        return {p: i // self.people for i, p in enumerate(ordered)} if len(ordered) > self.people else {}


def joined(banks: Sequence[Bank]) -> Bank:
    """One bank of all adapters, in this order."""
    first = banks[0]
    tensors = {name: torch.cat([bank.tensors[name] for bank in banks]) for name in first.tensors}
    return replace(first, tensors=tensors, keys=tuple(key for bank in banks for key in bank.keys))


def joined_reports(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report of a whole bank from those of its shards."""
    sums = ("seconds", "tokens", "label_tokens", "padded_tokens", "hidden")
    return {
        "adapters": {key: state for report in reports for key, state in report["adapters"].items()},
        **{name: sum(report[name] for report in reports) for name in sums},
        "rewaved": any(report["rewaved"] for report in reports),
    }
