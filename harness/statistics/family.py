"""A family of K methods against one baseline under one estimand: every figure that the decision rests on.

`rows` turns two of these (micro and macro) into leaderboard rows; the wording is in `verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.statistics import drawn_flips
from harness.statistics.effects import skewness
from harness.statistics.estimands import Estimand, differences, mean_and_se, t_interval, weights
from harness.statistics.flips import (
    FLIPS,
    HELD,
    Simultaneous,
    exact_max_t,
    max_t,
    sign_flip_p,
    sign_matrix,
    simultaneous,
)
from harness.statistics.seeds import WithSeeds, seed_variance, with_seeds

FEWEST_FOR_VERDICT = 6
FEWEST_FOR_CENTRED = 10
FEWEST_FOR_SKEWED = 50


@dataclass(frozen=True, slots=True)
class Comparison:
    """One method of the family, on the scale of the scores. p, intervals and half_width are None for G < 6.

    se is sqrt(V) with several training seeds; se_personas leaves the seeds out. half_width = c * se.
    """

    n_personas: int
    delta: float
    se: float
    se_personas: float
    df: float
    ci95: tuple[float, float] | None
    p_raw: float | None
    p_adj: float | None
    sim_ci: tuple[float, float] | None
    half_width: float | None
    skewness: float
    identical: bool


@dataclass(frozen=True, slots=True)
class _Estimates:
    """K methods under one estimand before any test: d [K, G], w [G], and [K] estimates and clustered errors."""

    d: np.ndarray
    w: np.ndarray
    delta: np.ndarray
    se_personas: np.ndarray
    seeded: tuple[WithSeeds, ...]

    @property
    def se(self) -> np.ndarray:
        return np.array([s.se for s in self.seeded])

    @property
    def scale(self) -> np.ndarray:
        return np.array([s.scale for s in self.seeded])


@dataclass(frozen=True, slots=True)
class _Tests:
    """p_raw [K], and the joint test of K methods."""

    p_raw: np.ndarray
    joint: Simultaneous


def family_comparison(
    methods: Sequence[np.ndarray],
    baseline: np.ndarray,
    n: np.ndarray,
    estimand: Estimand,
    *,
    alpha: float = 0.05,
    flips: int = FLIPS,
    seed: int = 0,
    signs: np.ndarray | None = None,
) -> list[Comparison]:
    """`family_comparisons` under one estimand."""
    found = family_comparisons(methods, baseline, n, (estimand,), alpha=alpha, flips=flips, seed=seed, signs=signs)
    return found[estimand]


def family_comparisons(
    methods: Sequence[np.ndarray],
    baseline: np.ndarray,
    n: np.ndarray,
    estimands: Sequence[Estimand],
    *,
    alpha: float = 0.05,
    flips: int = FLIPS,
    seed: int = 0,
    signs: np.ndarray | None = None,
) -> dict[Estimand, list[Comparison]]:
    """Compare K methods with one baseline; p_adj and sim_ci hold for all of them jointly, also for K = 1.

    methods   K arrays of summed scores [S_m, G] (or [G])
    baseline  [S_b, G] (or [G]);  n [G] replies per persona
    signs     [R, G] from `sign_matrix`, to share between calls; drawn from `seed` otherwise, once for all estimands
    G < 6: descriptive only. 6 <= G <= 9: exact flips of the raw differences (`exact_max_t`). Else max-T.
    Source: docs/statistics.md, "Several methods at once", "Training seeds".
    """
    if not methods:
        return {estimand: [] for estimand in estimands}
    found: dict[Estimand, _Estimates] = {
        estimand: _estimates(methods, baseline, n, estimand, alpha) for estimand in estimands
    }
    tests = _tests(found, alpha, flips, seed, signs)
    return {estimand: _comparisons(own, tests.get(estimand)) for estimand, own in found.items()}


def _estimates(
    methods: Sequence[np.ndarray], baseline: np.ndarray, n: np.ndarray, estimand: Estimand, alpha: float
) -> _Estimates:
    baseline = np.atleast_2d(baseline)
    runs = [np.atleast_2d(sums) for sums in methods]
    w = weights(n, estimand)
    d = np.stack([differences(sums, baseline, n) for sums in runs])
    delta, se_personas = mean_and_se(d, w[None])
    pooled = seed_variance([baseline, *runs], n, estimand)
    seeded = [
        with_seeds(float(se_personas[k]), w.shape[0], len(sums), len(baseline), pooled, alpha)
        for k, sums in enumerate(runs)
    ]
    return _Estimates(d, w, delta, se_personas, tuple(seeded))


def _tests(
    found: Mapping[Estimand, _Estimates], alpha: float, flips: int, seed: int, signs: np.ndarray | None
) -> dict[Estimand, _Tests]:
    """The tests of each estimand; none for fewer than 6 personas."""
    personas = next(iter(found.values())).w.shape[0]
    if personas < FEWEST_FOR_VERDICT:
        return {}
    if signs is None and flips * personas > HELD:
        tested = [drawn_flips.Tested(own.d, own.w) for own in found.values()]
        flipped = zip(found.items(), drawn_flips.flip(tested, flips, seed), strict=True)
        return {
            estimand: _Tests(after.p_raw, simultaneous(own.delta, own.se, after.maxima, alpha=alpha, scale=own.scale))
            for (estimand, own), after in flipped
        }
    held = sign_matrix(personas, flips, seed) if signs is None else signs
    test = exact_max_t if personas < FEWEST_FOR_CENTRED else max_t
    return {
        estimand: _Tests(
            sign_flip_p((own.w * own.d).T, held),
            test(own.d, own.w, own.delta, own.se, held, alpha=alpha, scale=own.scale),
        )
        for estimand, own in found.items()
    }


def _comparisons(found: _Estimates, tests: _Tests | None) -> list[Comparison]:
    joint = tests.joint if tests else None
    d, delta, se = found.d, found.delta, found.se
    return [
        Comparison(
            n_personas=found.w.shape[0],
            delta=float(delta[k]),
            se=float(se[k]),
            se_personas=float(found.se_personas[k]),
            df=found.seeded[k].df,
            ci95=t_interval(float(delta[k]), float(se[k]), found.seeded[k].df) if joint else None,
            p_raw=float(tests.p_raw[k]) if tests else None,
            p_adj=float(joint.p_adj[k]) if joint else None,
            sim_ci=(float(joint.low[k]), float(joint.high[k])) if joint else None,
            half_width=float(joint.half_width[k]) if joint else None,
            skewness=skewness(found.w * (d[k] - delta[k])) if found.se_personas[k] > 0 else 0.0,
            identical=not d[k].any(),
        )
        for k in range(len(d))
    ]
