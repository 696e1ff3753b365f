"""Precision, recall and F1 of the device settings in a reply, as counts that can be summed before dividing.

Counts and their figures only; reading the reply is `harness.scoring.settings`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.contract import Device
from harness.scoring.settings import Key, Settings, Value, parse, same_settings

__all__ = ["KINDS", "Counts", "Kind", "count_actions", "parse", "same_settings", "total"]

Kind = Literal["device", "parameter", "numeric", "categorical"]
KINDS: tuple[Kind, ...] = ("device", "parameter", "numeric", "categorical")


@dataclass(frozen=True, slots=True)
class Counts:
    """True positives, false positives and false negatives; `+` pools them (micro average)."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """tp / (tp + fp); nan where the replies say nothing of the kind."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """tp / (tp + fn); nan where the references say nothing of the kind."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn); nan only where neither side says anything of the kind."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of counts, e.g. over a persona's examples."""
    return sum(counts, Counts())


def count_actions(reply: str, reference: str, schema: tuple[Device, ...]) -> dict[Kind, Counts]:
    """Counts of one reply against its reference.

    device       devices named
    parameter    (device, parameter) pairs that are set, whatever to
    numeric      (device, parameter, number), equal only if the number is the same: fan speed 1 is not 2
    categorical  (device, parameter, word), booleans among them

    A wrong value is one false positive and one false negative.
    """
    said, meant = parse(reply, schema), parse(reference, schema)
    return {
        "device": _counts(said.devices, meant.devices),
        "parameter": _counts(frozenset(said.values), frozenset(meant.values)),
        "numeric": _counts(_pairs(said, numbers=True), _pairs(meant, numbers=True)),
        "categorical": _counts(_pairs(said, numbers=False), _pairs(meant, numbers=False)),
    }


def _pairs(settings: Settings, *, numbers: bool) -> frozenset[tuple[Key, Value]]:
    values: Mapping[Key, Value] = settings.values
    return frozenset(item for item in values.items() if isinstance(item[1], str) is not numbers)


def _counts(said: frozenset[Any], meant: frozenset[Any]) -> Counts:
    return Counts(len(said & meant), len(said - meant), len(meant - said))
