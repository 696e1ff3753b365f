"""The rows of a leaderboard as plain data, and a method's own scores. Comparisons are made in `table`.

Hashes, costs and the guard against unlike runs are `harness.compare.guard`'s.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from harness.contract import ReferenceScore
from harness.statistics.estimands import Estimand, score
from harness.statistics.family import FEWEST_FOR_VERDICT
from harness.statistics.reference import check_aggregation, reference_test
from harness.statistics.scores import PersonaScores
from harness.statistics.verdicts import VerdictKind

Interval = tuple[float | None, float | None]  # None: unbounded on that side


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """A score against a published constant; `_pts` in points, or in the metric's own unit if not pt."""

    score_pts: float
    se_pts: float | None
    source: str
    delta_pts: float
    t: float | None
    p: float
    t_with_se: float | None
    p_with_se: float | None
    caveat: str


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One method's own scores, without a comparison (also the baseline's); `_pts` as in ReferenceRow.

    se_* is None for one persona; reference is None without a published score, or with fewer than 6 personas.
    """

    method: str
    unit: str
    higher_is_better: bool
    estimand: Estimand
    n_personas: int
    n_replies: int
    seeds: tuple[int, ...]
    score_micro_pts: float
    se_micro_pts: float | None
    score_macro_pts: float
    se_macro_pts: float | None
    reference: ReferenceRow | None


@dataclass(frozen=True, slots=True)
class ComparisonRow(ScoreRow):
    """A method against the measured baseline. What cannot be computed or must not be shown is None.

    delta_pts               method minus baseline under the estimand; delta_micro_pts, delta_macro_pts: both
    se_pts, df              sqrt(V), its degrees of freedom: persona-clustered, plus training seeds if several
    ci95_pts                delta +- t(.975, df) se, for this method alone
    sim_ci_pts, p_adj       simultaneous over the family; they decide. p_raw and p_holm are only shown
    tied_personas           personas with equal scores; they count 1/2 in share_improved
    equivalent, tost_p      None without a margin stated before the run
    mde80_pts, mde80_adj_pts  smallest true difference found with 80 % power, alone and in this family
    flags                   keys of `verdicts.FLAGS`
    """

    baseline: str
    baseline_seeds: tuple[int, ...]
    family_size: int
    alpha: float
    delta_pts: float
    delta_micro_pts: float
    delta_macro_pts: float
    se_pts: float | None
    df: float
    ci95_pts: Interval | None
    sim_ci_pts: Interval | None
    p_raw: float | None
    p_adj: float | None
    p_holm: float | None
    hedges_g: float | None
    share_improved: float
    share_improved_ci95: tuple[float, float]
    tied_personas: int
    equivalence_margin_pts: float | None
    equivalent: bool | None
    tost_p: float | None
    smallest_margin_pts: float | None
    mde80_pts: float | None
    mde80_adj_pts: float | None
    flags: tuple[str, ...]
    verdict_kind: VerdictKind
    verdict: str


def score_row(
    method: str,
    scores: PersonaScores,
    estimand: Estimand,
    reference: ReferenceScore | None = None,
    *,
    unit: str = "pt",
    higher_is_better: bool = True,
) -> ScoreRow:
    """Micro and macro scores with clustered standard errors, and the test against a published score.

    reference.score is in points for unit "pt", else in the metric's own unit.
    Raises HarnessError if the reference is a mean of another kind than the estimand.
    """
    factor = 100.0 if unit == "pt" else 1.0
    values = {kind: score(scores.sums, scores.n, kind) for kind in ("micro", "macro")}
    personas = len(scores.personas)
    against: ReferenceRow | None = None
    if reference is not None:
        check_aggregation(reference.aggregation, estimand, reference.score, reference.source)
        if personas >= FEWEST_FOR_VERDICT:
            against = _against(reference, values[estimand][0] * factor, values[estimand][1] * factor, personas)
    return ScoreRow(
        method=method,
        unit=unit,
        higher_is_better=higher_is_better,
        estimand=estimand,
        n_personas=personas,
        n_replies=int(scores.n.sum()),
        seeds=scores.seeds,
        score_micro_pts=values["micro"][0] * factor,
        se_micro_pts=number_or_none(values["micro"][1] * factor),
        score_macro_pts=values["macro"][0] * factor,
        se_macro_pts=number_or_none(values["macro"][1] * factor),
        reference=against,
    )


def row_values(row: ScoreRow) -> dict[str, Any]:
    """All fields of a row as plain data."""
    return dataclasses.asdict(row)


def row_json(row: ScoreRow | None) -> dict[str, Any]:
    """What every command's JSON says of a row, always with the same keys; null where there is no row or comparison.

    score is that of the row's estimand; scores and differences are in points, or in the metric's unit if not pt.
    comparison has all fields of the row.
    """
    c = row if isinstance(row, ComparisonRow) else None
    return {
        "seeds": row and list(row.seeds),
        "score": row and (row.score_micro_pts if row.estimand == "micro" else row.score_macro_pts),
        "score_micro": row and row.score_micro_pts,
        "score_macro": row and row.score_macro_pts,
        "se_micro": row and row.se_micro_pts,
        "se_macro": row and row.se_macro_pts,
        "reference": row_values(row)["reference"] if row else None,
        "delta_pts": c and c.delta_pts,
        "se": c and c.se_pts,
        "df": c and c.df,
        "ci95": c and c.ci95_pts,
        "sim_ci": c and c.sim_ci_pts,
        "p_raw": c and c.p_raw,
        "p_adj": c and c.p_adj,
        "verdict": c and c.verdict,
        "verdict_kind": c and c.verdict_kind,
        "comparison": c and row_values(c),
    }


def _against(reference: ReferenceScore, mean: float, se: float, personas: int) -> ReferenceRow:
    test = reference_test(
        mean,
        se,
        personas,
        score=reference.score,
        aggregation=reference.aggregation,
        estimand=reference.aggregation,
        reference_se=reference.se,
        source=reference.source,
    )
    return ReferenceRow(
        score_pts=reference.score,
        se_pts=reference.se,
        source=reference.source,
        delta_pts=test.delta,
        t=test.t,
        p=test.p,
        t_with_se=test.t_with_se,
        p_with_se=test.p_with_se,
        caveat=test.caveat,
    )


def number_or_none(value: float) -> float | None:
    """None for nan and infinity, which JSON does not know."""
    return float(value) if math.isfinite(value) else None
