"""Device settings in a reply, right and wrong, as counts that can be summed before dividing.

Reading the reply is in `settings`; precision, recall and F1 are `harness.statistics.pooled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from .schema import Device
from .settings import Key, Settings, Value, parse

Kind = Literal["device", "parameter", "numeric", "categorical"]
KINDS: tuple[Kind, ...] = ("device", "parameter", "numeric", "categorical")


class Counts(NamedTuple):
    """True positives, false positives and false negatives. They are summed before `harness.statistics` divides."""

    tp: int
    fp: int
    fn: int


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
