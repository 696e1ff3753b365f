"""A family of K methods against one baseline under one estimand: every figure that the decision rests on.

`rows` turns two of these (micro and macro) into leaderboard rows; the wording is in `verdicts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.statistics.effects import skewness
from harness.statistics.estimands import Estimand, differences, mean_and_se, t_interval, weights
from harness.statistics.flips import FLIPS, Simultaneous, exact_max_t, max_t, sign_flip_p, sign_matrix
from harness.statistics.seeds import seed_variance, with_seeds

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
    """Compare K methods with one baseline; p_adj and sim_ci hold for all of them jointly, also for K = 1.

    methods   K arrays of summed scores [S_m, G] (or [G])
    baseline  [S_b, G] (or [G]);  n [G] replies per persona
    signs     [R, G] from `sign_matrix`, to share between calls; drawn from `seed` otherwise
    G < 6: descriptive only. 6 <= G <= 9: exact flips of the raw differences (`exact_max_t`). Else max-T.
    Source: STATISTICS.md, "K methods against one baseline", "Seeds", "Few personas".
    """
    if not methods:
        return []
    baseline = np.atleast_2d(baseline)
    runs = [np.atleast_2d(sums) for sums in methods]
    w = weights(n, estimand)
    d = np.stack([differences(sums, baseline, n) for sums in runs])  # [K, G]
    delta, se_personas = mean_and_se(d, w[None])
    personas = w.shape[0]
    pooled = seed_variance([baseline, *runs], n, estimand)
    seeded = [
        with_seeds(float(se_personas[k]), personas, len(sums), len(baseline), pooled, alpha)
        for k, sums in enumerate(runs)
    ]
    se = np.array([s.se for s in seeded])
    joint: Simultaneous | None = None
    p_raw = np.ones(len(runs))
    if personas >= FEWEST_FOR_VERDICT:
        if signs is None:
            signs = sign_matrix(personas, flips, seed)
        p_raw = sign_flip_p((w * d).T, signs)
        test = exact_max_t if personas < FEWEST_FOR_CENTRED else max_t
        joint = test(d, w, delta, se, signs, alpha=alpha, scale=np.array([s.scale for s in seeded]))
    return [
        Comparison(
            n_personas=personas,
            delta=float(delta[k]),
            se=float(se[k]),
            se_personas=float(se_personas[k]),
            df=seeded[k].df,
            ci95=t_interval(float(delta[k]), float(se[k]), seeded[k].df) if joint else None,
            p_raw=float(p_raw[k]) if joint else None,
            p_adj=float(joint.p_adj[k]) if joint else None,
            sim_ci=(float(joint.low[k]), float(joint.high[k])) if joint else None,
            half_width=float(joint.half_width[k]) if joint else None,
            skewness=skewness(w * (d[k] - delta[k])) if se_personas[k] > 0 else 0.0,
            identical=not d[k].any(),
        )
        for k in range(len(runs))
    ]
