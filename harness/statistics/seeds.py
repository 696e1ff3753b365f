"""Training seeds as a random factor crossed with personas: variance, degrees of freedom, wider intervals.

Seeds of different methods are never paired: they share nothing but a number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.statistics.distributions import t_quantile
from harness.statistics.estimands import weights


@dataclass(frozen=True, slots=True)
class SeedVariance:
    """Pooled over methods: vbar, variance of seed means; mbar, the part that personas explain; nu, its df."""

    vbar: float
    mbar: float
    nu: int

    @property
    def excess(self) -> float:
        """(vbar - mbar)_+: what a new training seed adds beyond persona noise."""
        return max(self.vbar - self.mbar, 0.0)


@dataclass(frozen=True, slots=True)
class WithSeeds:
    """se = sqrt(V); df by Satterthwaite; scale = t(1 - alpha/2, df) / t(1 - alpha/2, G - 1). Numbers, or arrays."""

    se: Any
    df: Any
    scale: Any


def seed_variance(runs: Iterable[np.ndarray], n: np.ndarray, estimand: str) -> SeedVariance:
    """Pool the variance of the seed means over methods.

        vbar = sum_m sum_s (Y_s - Y)^2 / nu                                   nu = sum_m (S_m - 1)
        mbar = sum_m sum_s G/(G-1) sum_p (w_p r_ps)^2 / (sum w)^2 / nu        r_ps = Y_ps - Y_p - Y_s + Y

    runs  per method the summed scores [S, G] (also of methods with one seed: they add nothing); n [G] replies
    For macro, mbar is the mean square persona x seed divided by G. Source: docs/statistics.md, "Training seeds".
    """
    w = weights(n, estimand)  # type: ignore[arg-type]
    personas, total = w.shape[0], w.sum()
    between = interaction = 0.0
    nu = 0
    for sums in runs:
        y = np.atleast_2d(sums) / n  # [S, G]
        if y.shape[0] < 2:
            continue
        nu += y.shape[0] - 1
        seed_means = (y * w).sum(1) / total
        between += float(((seed_means - seed_means.mean()) ** 2).sum())
        residual = y - y.mean(0) - seed_means[:, None] + seed_means.mean()
        interaction += float(((w * residual) ** 2).sum()) * personas / max(personas - 1, 1) / total**2
    if nu == 0:
        return SeedVariance(0.0, 0.0, 0)
    return SeedVariance(between / nu, interaction / nu, nu)


def with_seeds(
    se: Any, personas: int, seeds: int, baseline_seeds: int, pooled: SeedVariance, alpha: float = 0.05
) -> WithSeeds:
    """Add the seed variance to a paired standard error.

        V  = se^2 + (vbar - mbar)_+ k                                      k = 1/S_m + 1/S_b
        df = V^2 / [ (se^2)^2/(G-1) + (vbar k)^2/nu + (mbar k)^2/(nu (G-1)) ]

    V is a sum of three mean squares, se^2, vbar k and -mbar k, and each brings its own uncertainty into the df, as in
    Satterthwaite 1946. The plain form has ((vbar - mbar)_+ k)^2 / nu in place of the last two terms: as if the
    difference of two mean squares were as certain as one of its size. That counts too many degrees of freedom where
    vbar is hardly above mbar, and was too liberal: 3 seeds against 3, seed sd .006, no true difference, 2 000
    experiments each: false positives .077 at G = 200 (wanted: <= .07), against .059 with the formula here
    (`tests/scripts/calibrate_seeds.py` prints both; docs/statistics.md has the table).

    df is never below the lesser of nu and G - 1: a sum of mean squares is at least as well known as its worst part,
    and with two seeds each and vbar hardly above mbar the formula alone falls below 1.

    se  of one comparison, or of many with the same numbers of seeds as an array
    With one seed each, or no excess, the result is conditional on the seeds: se, G - 1 and 1 come back.
    Source: docs/statistics.md, "Training seeds"; Satterthwaite 1946.
    """
    if seeds + baseline_seeds == 2 or pooled.nu == 0 or pooled.excess == 0 or personas < 2:
        return WithSeeds(se, personas - 1, 1.0)
    k = 1 / seeds + 1 / baseline_seeds
    variance = se**2 + pooled.excess * k
    uncertainty = se**4 / (personas - 1)
    uncertainty += (pooled.vbar * k) ** 2 / pooled.nu + (pooled.mbar * k) ** 2 / (pooled.nu * (personas - 1))
    df = np.maximum(variance**2 / uncertainty, min(pooled.nu, personas - 1))
    scale = t_quantile(1 - alpha / 2, df) / t_quantile(1 - alpha / 2, personas - 1)
    return WithSeeds(np.sqrt(variance), df, scale)
