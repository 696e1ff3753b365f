"""Before a run: what so many personas and replies could find, and how many it takes. Formulas: `statistics.power`.

The spread comes from stored runs or from the user; never the difference: one that was observed is no plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.compare.guard import Family, NotComparableError, check_comparable, persona_scores
from harness.compare.selection import select
from harness.errors import HarnessError
from harness.runs import StoredRun
from harness.scoring import scale
from harness.statistics import (
    Estimand,
    differences,
    mde,
    mean_and_se,
    personas_needed,
    power_of,
    sampling_variances,
    weights,
)

FEWEST = 6  # fewer personas get no verdict


@dataclass(frozen=True, slots=True)
class Spread:
    """Spread of the persona differences, in shown units (points).

    sd        of the persona differences as they would be observed with `replies` replies a persona
    true_sd   between personas alone;  reply_sd: of one reply's paired difference. None: not told apart
    replies   a persona, mean; None: unknown
    personas  behind the figures; None: the user gave the figures
    """

    sd: float
    true_sd: float | None = None
    reply_sd: float | None = None
    replies: float | None = None
    personas: int | None = None

    def with_replies(self, replies: float) -> Spread:
        """The spread with another number of replies: sqrt(true_sd^2 + reply_sd^2 / replies).

        Raises HarnessError where reply noise and the personas' own spread are not told apart.
        """
        if self.true_sd is None or self.reply_sd is None:
            raise HarnessError(
                "--replies needs the noise of a reply: give --reply-sd, or runs that store their scores per reply"
            )
        sd = math.sqrt(self.true_sd**2 + self.reply_sd**2 / replies)
        return Spread(sd, self.true_sd, self.reply_sd, replies, self.personas)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run with `personas` could find. mde is the smallest true difference found with `power`.

    personas_needed, power_at  for `difference`; None where none was given
    """

    unit: str
    spread: Spread
    alpha: float
    power: float
    family_size: int
    personas: int | None
    mde: float | None
    difference: float | None
    personas_needed: int | None
    power_at: float | None
    notes: tuple[str, ...]


def spread_of(
    runs: Sequence[StoredRun], method: str, baseline: str, metric: str | None = None, estimand: Estimand = "micro"
) -> tuple[Spread, str]:
    """Spread of stored persona differences and its unit. Raises as `select` and the guard do."""
    other, base = select(runs, method, metric), select(runs, baseline, metric)
    if other.first.id == base.first.id:
        raise HarnessError(f"'{method}' and '{baseline}' are the same run; name a method and another one as baseline")
    check_comparable(base.first, other.first)
    metric = metric or base.first.record.metric
    ours, theirs = persona_scores(other, metric), persona_scores(base, metric)
    if set(ours.personas) != set(theirs.personas):
        raise NotComparableError(f"'{metric}' is defined for other personas in {other.name} than in {base.name}")
    ours = ours.restricted_to(theirs.personas)
    definition = base.first.record.metric_sums(metric)
    factor = scale(definition.unit)
    personas = len(theirs.personas)
    d = differences(ours.sums, theirs.sums, theirs.n)
    sd = float(mean_and_se(d, weights(theirs.n, estimand))[1]) * math.sqrt(personas) * factor
    if not sd > 0:
        raise HarnessError(
            f"{other.name} and {base.name} differ by the same amount for all personas: no spread to plan by"
        )
    replies = float(theirs.n.mean())
    if definition.pooled:
        return Spread(sd, personas=personas), definition.unit
    noise = _reply_sd(other, base, metric)
    if noise is None:
        return Spread(sd, replies=replies, personas=personas), definition.unit
    noise *= factor
    return Spread(sd, math.sqrt(max(sd**2 - noise**2 / replies, 0.0)), noise, replies, personas), definition.unit


def _reply_sd(method: Family, baseline: Family, metric: str) -> float | None:
    """Sd of one reply's paired difference around its persona's, dialogues taken as wholes; None without scores."""
    ours, theirs = method.first.replies(), baseline.first.replies()
    if ours is None or theirs is None:
        return None
    other = dict(zip(theirs.column("id"), theirs.scores(metric), strict=True))
    values = ours.scores(metric) - [other.get(name, math.nan) for name in ours.column("id")]
    known = ~np.isnan(values)
    owner = np.unique(ours.owners[known], return_inverse=True)[1]  # numbered without gaps
    try:
        _, variances, n = sampling_variances(values[known], owner, ours.dialogues[known])
    except HarnessError:
        return None
    return float(np.sqrt((variances * n).mean()))


def plan(
    spread: Spread,
    unit: str = "pt",
    *,
    personas: int | None = None,
    difference: float | None = None,
    power: float = 0.80,
    alpha: float = 0.05,
    family_size: int = 1,
) -> Plan:
    """Raises HarnessError for numbers that make no plan; all in the unit of the spread."""
    if not alpha < power < 1:
        raise HarnessError(f"--power must lie between alpha ({alpha:g}) and 1, not {power:g}")
    if family_size < 1:
        raise HarnessError(f"--family must be 1 or more methods, not {family_size}")
    if not spread.sd > 0 or not math.isfinite(spread.sd):
        raise HarnessError(f"--sd must be a positive number, not {spread.sd:g}")
    notes = []
    smallest = at = None
    if personas is not None:
        if personas < FEWEST:
            raise HarnessError(f"{personas} personas get no verdict, whatever the difference: plan with 6 or more")
        smallest = mde(spread.sd / math.sqrt(personas), personas - 1, power=power, alpha=alpha / family_size)
        if personas < 10:
            notes.append("6 to 9 personas are tested by exact sign flips, whose power is slightly lower than shown")
    needed = None
    if difference is not None:
        needed = personas_needed(difference, spread.sd, power=power, alpha=alpha, family_size=family_size)
        if personas is not None:
            at = power_of(difference, spread.sd, personas, alpha=alpha, family_size=family_size)
    if spread.personas is not None and spread.personas < 20:
        notes.append(f"the spread was measured on {spread.personas} personas only and is itself uncertain")
    if family_size > 1:
        notes.append(f"alpha / {family_size} for each of {family_size} methods; the joint test needs fewer personas")
    notes.append("for given training seeds: the variance between seeds is not included")
    return Plan(
        unit, spread, alpha, power, family_size, personas, smallest, difference, needed, at, tuple(notes)
    )  # fmt: skip
