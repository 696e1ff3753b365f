"""Methods against the person's base rate: a predictor without a model, whose sums are stored with every run.

A method that is no better has learnt nothing about the person, whatever it gains on its baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare.guard import ESTIMAND, Family, labels_of, persona_scores, scores_of
from harness.errors import HarnessError
from harness.runs import Yardstick
from harness.scoring import PersonaSums
from harness.statistics import ComparisonRow, compare


@dataclass(frozen=True, slots=True)
class AgainstBaseRate:
    """All methods of a group against one base rate, tested jointly, one row each in the order of the families.

    metric  the first of the runs' metrics that the base rate has values of: replies without a model have no likelihood
    """

    yardstick: Yardstick
    metric: str
    rows: tuple[ComparisonRow, ...]

    def sentence(self, row: ComparisonRow) -> str:
        """Whether a method beats it; with fewer than six personas it only says by how much it differs."""
        words = {"better": "beats", "descriptive": "beside"}.get(row.verdict_kind, "does not beat")
        return f"{row.method} {words} {self.yardstick.name}, by {self.metric}"


def against_base_rates(families: Sequence[Family]) -> list[AgainstBaseRate]:
    """One entry for each base rate that the runs carry; empty without any. The families are comparable."""
    found: list[AgainstBaseRate] = []
    record = next((family.first.record for family in families if family.first.record.yardsticks), None)
    if record is None:
        return found
    for yardstick in record.yardsticks:
        sums = yardstick.per_persona
        if sums is None or (metric := next((name for name in record.metrics if _has(sums, name)), None)) is None:
            continue
        entry = sums.metrics[metric]
        try:
            rows = compare(
                scores_of(yardstick.name, [(yardstick.name, sums)], (0,), metric),
                {
                    name: persona_scores(family, metric)
                    for name, family in zip(labels_of(families), families, strict=True)
                },
                ESTIMAND,
                baseline_name=yardstick.name,
                unit=entry.unit,
                higher_is_better=entry.higher_is_better,
            )
        except HarnessError:  # of other people or replies than the runs: no harness has stored it so
            continue
        found.append(AgainstBaseRate(yardstick, metric, tuple(rows)))
    return found


def _has(sums: PersonaSums, name: str) -> bool:
    return name in sums.metrics and any(sums.metrics[name].n)
