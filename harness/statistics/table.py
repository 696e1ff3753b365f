"""`compare`: per-persona sums in, complete leaderboard figures out, one row per method. START HERE.

The formulas are in the files beside; what a row holds is in `rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from harness.contract import ReferenceScore
from harness.errors import HarnessError
from harness.statistics.effects import hedges_g, share_improved
from harness.statistics.estimands import Estimand, differences, weights
from harness.statistics.family import (
    FEWEST_FOR_CENTRED,
    FEWEST_FOR_SKEWED,
    FEWEST_FOR_VERDICT,
    Comparison,
    family_comparisons,
)
from harness.statistics.flips import FLIPS, holm
from harness.statistics.power import equivalence, mde, mde_adjusted
from harness.statistics.rows import ComparisonRow, Interval, number_or_none, score_row
from harness.statistics.scores import PersonaScores, aligned
from harness.statistics.verdicts import VerdictKind, verdict


def compare(
    baseline: PersonaScores,
    methods: Mapping[str, PersonaScores],
    estimand: Estimand,
    reference: ReferenceScore | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    seed: int = 0,
    *,
    baseline_name: str = "baseline",
    unit: str = "pt",
    higher_is_better: bool = True,
    flips: int = FLIPS,
) -> list[ComparisonRow]:
    """All figures of a leaderboard's comparable group: K methods against one baseline, one row each.

    baseline, methods  scores of the same personas and numbers of replies (the caller's guard has seen to it)
    reference          published score; in points for unit "pt"
    margin             equivalence margin on the scale of the scores (0-1 for "pt"), stated before the run
    seed               of the sign flips; the result depends on it, not on the order of methods or personas
    unit               "pt": scores in 0-1, shown x 100; "nats" or "raw": shown as they are
    Raises             HarnessError if personas or n differ, or the reference does not fit the estimand.
    Source             docs/statistics.md throughout.
    """
    _check(baseline, estimand, alpha)
    baseline = baseline.restricted_to(sorted(baseline.personas))
    runs = {name: aligned(name, scores, baseline) for name, scores in methods.items()}
    sums = [run.sums for run in runs.values()]
    estimands: tuple[Estimand, ...] = ("micro", "macro")
    results = family_comparisons(sums, baseline.sums, baseline.n, estimands, alpha=alpha, flips=flips, seed=seed)
    chosen = results[estimand]
    raw = [c.p_raw for c in chosen if c.p_raw is not None]
    stepped = holm(np.array(raw)) if len(raw) == len(chosen) else None
    rows = []
    for k, (name, run) in enumerate(runs.items()):
        one_seed = len(run.seeds) == len(baseline.seeds) == 1
        own = score_row(name, run, estimand, reference, unit=unit, higher_is_better=higher_is_better)
        facts = _Facts(baseline_name, unit, higher_is_better, alpha, margin, one_seed)
        kinds = {estimate: facts.verdict(family[k])[0] for estimate, family in results.items()}
        rows.append(
            ComparisonRow(
                **{field.name: getattr(own, field.name) for field in fields(own)},
                baseline=baseline_name,
                baseline_seeds=baseline.seeds,
                family_size=len(runs),
                alpha=alpha,
                delta_micro_pts=results["micro"][k].delta * facts.factor,
                delta_macro_pts=results["macro"][k].delta * facts.factor,
                p_holm=None if stepped is None else float(stepped[k]),
                **_shares(differences(run.sums, baseline.sums, baseline.n), higher_is_better),
                **facts.figures(chosen[k]),
                flags=_flags(chosen[k], one_seed, len(set(kinds.values())) > 1),
            )
        )
    return rows


def _check(baseline: PersonaScores, estimand: Estimand, alpha: float) -> None:
    """What is refused before anything is computed."""
    if not 0 < alpha < 0.5:
        raise HarnessError(f"alpha must lie between 0 and 0.5, got {alpha:g}")
    weights(baseline.n, estimand)  # raises for an unknown estimand


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is the same for every row of one call, and how a Comparison becomes figures and words."""

    baseline: str
    unit: str
    higher_is_better: bool
    alpha: float
    margin: float | None
    one_seed: bool

    @property
    def factor(self) -> float:
        return 100.0 if self.unit == "pt" else 1.0

    def figures(self, c: Comparison) -> dict:
        tested = c.p_adj is not None
        tost = equivalence(c.delta, c.se, c.df, self.margin, self.alpha) if tested else None
        kind, sentence = self.verdict(c)
        return {
            "delta_pts": c.delta * self.factor,
            "se_pts": number_or_none(c.se * self.factor),
            "df": c.df,
            "ci95_pts": self._interval(c.ci95),
            "sim_ci_pts": self._interval(c.sim_ci),
            "p_raw": c.p_raw,
            "p_adj": c.p_adj,
            "hedges_g": hedges_g(c.delta, c.se_personas, c.n_personas) if tested else None,
            "equivalence_margin_pts": None if self.margin is None else self.margin * self.factor,
            "equivalent": tost.equivalent if tost else None,
            "tost_p": tost.p if tost else None,
            "smallest_margin_pts": number_or_none(tost.smallest_margin * self.factor) if tost else None,
            "mde80_pts": number_or_none(mde(c.se, c.df, alpha=self.alpha) * self.factor) if tested else None,
            "mde80_adj_pts": self._mde_adjusted(c),
            "verdict_kind": kind,
            "verdict": sentence,
        }

    def verdict(self, c: Comparison) -> tuple[VerdictKind, str]:
        interval = None if c.sim_ci is None else (c.sim_ci[0] * self.factor, c.sim_ci[1] * self.factor)
        tost = equivalence(c.delta, c.se, c.df, self.margin, self.alpha) if c.p_adj is not None else None
        return verdict(
            self.baseline,
            c.delta * self.factor,
            interval,
            p_adj=c.p_adj,
            n_personas=c.n_personas,
            alpha=self.alpha,
            mde=self._mde_adjusted(c),
            margin=None if self.margin is None else self.margin * self.factor,
            equivalent=tost.equivalent if tost else None,
            identical=c.identical,
            one_seed=self.one_seed,
            unit=self.unit,
            higher_is_better=self.higher_is_better,
        )

    def _mde_adjusted(self, c: Comparison) -> float | None:
        return None if c.half_width is None else number_or_none(mde_adjusted(c.half_width, c.se) * self.factor)

    def _interval(self, interval: tuple[float, float] | None) -> Interval | None:
        return (
            None
            if interval is None
            else (number_or_none(interval[0] * self.factor), number_or_none(interval[1] * self.factor))
        )


def _shares(d: np.ndarray, higher_is_better: bool) -> dict:
    share = share_improved(d, higher_is_better)
    return {"share_improved": share.share, "share_improved_ci95": share.ci95, "tied_personas": share.tied}


def _flags(c: Comparison, one_seed: bool, weighting_sensitive: bool) -> tuple[str, ...]:
    if c.n_personas < FEWEST_FOR_VERDICT:
        return ("descriptive",)
    raised = {
        "weighting-sensitive": weighting_sensitive,
        "few-personas": c.n_personas < FEWEST_FOR_CENTRED,
        "skewed": c.n_personas < FEWEST_FOR_SKEWED and abs(c.skewness) > 1,
        "one-seed": one_seed,
        "no-spread": c.se == 0 and not c.identical,
    }
    return tuple(flag for flag, on in raised.items() if on)
