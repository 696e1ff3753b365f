"""Persona by persona: a method's difference from the baseline, with an interval where the replies are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from harness.compare import Family
from harness.errors import HarnessError
from harness.runs import Replies
from harness.statistics import sampling_variances, shrunken_estimates

_DIGITS = 6


class Differences(BaseModel):
    """Method minus baseline, per persona (G), on the scale of the scores.

    baseline    id of the first of the baseline's runs
    estimate    shrunken towards the mean, as far as the replies do not tell the personas apart
    low, high   95 %, each for one persona alone
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: str
    personas: tuple[str, ...]
    estimate: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @model_validator(mode="after")
    def _alike(self) -> Differences:
        if len({len(self.personas), len(self.estimate), len(self.low), len(self.high)}) != 1:
            raise ValueError("estimate, low and high need one value for each persona")
        return self


def measured(families: Sequence[Family], baseline: Family, metric: str) -> Iterator[Differences | None]:
    """For each family, in order; None where replies are not at hand, or reply noise cannot be told from spread.

    Seeds are averaged reply by reply; replies of one dialogue share its luck.
    """
    base = _replies(baseline)
    for family in families:
        own = _replies(family) if base else None
        yield _measured(own, base, baseline, metric) if own and base else None


def _measured(own: Sequence[Replies], base: Sequence[Replies], baseline: Family, metric: str) -> Differences | None:
    first = base[0]
    names = first.column("id")
    mine, theirs = _mean_scores(own, names, metric), _mean_scores(base, names, metric)
    if mine is None or theirs is None:
        return None
    personas = baseline.first.record.sums.personas
    place = {persona: i for i, persona in enumerate(personas)}
    owner = np.array([place.get(persona, -1) for persona in first.column("persona")])
    d = mine - theirs
    known = ~np.isnan(d) & (owner >= 0)
    try:
        means, variances, _ = sampling_variances(d[known], owner[known], first.dialogues[known])
        found = shrunken_estimates(means, variances)
    except (HarnessError, ValueError):
        return None
    if len(means) != len(personas):
        return None
    values = {
        name: getattr(found, source) for name, source in (("estimate", "estimates"), ("low", "low"), ("high", "high"))
    }
    rounded = {name: tuple(round(float(x), _DIGITS) for x in array) for name, array in values.items()}
    return Differences(baseline=baseline.first.id, personas=personas, **rounded)


def _replies(family: Family) -> list[Replies] | None:
    """Of all seeds; None where one has none, or they cannot be read: the page says so elsewhere."""
    found = []
    for run in family.runs:
        try:
            replies = run.replies() if run.path.is_dir() else None
        except HarnessError:
            return None
        if replies is None:
            return None
        found.append(replies)
    return found


def _mean_scores(seeds: Sequence[Replies], names: Sequence[str], metric: str) -> NDArray[np.float64] | None:
    """[N] in the order of the names; None where a run lacks one of them."""
    rows = []
    for replies in seeds:
        places = replies.places
        if any(name not in places for name in names):
            return None
        rows.append(replies.scores(metric)[[places[name] for name in names]])
    return np.mean(rows, axis=0)
