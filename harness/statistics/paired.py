"""One method against the measured baseline on the same personas: difference, error, interval, raw p-value.

The decision for a family of methods (also of one) is `family`'s; p_raw here is shown, it decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from harness.statistics.estimands import Estimand, differences, mean_and_se, weights
from harness.statistics.flips import FLIPS, sign_flip_p, sign_matrix


@dataclass(frozen=True, slots=True)
class Paired:
    """A paired comparison, on the scale of the scores.

    delta  method minus baseline        se    persona-clustered standard error
    df     G - 1                        ci95  delta +- t(.975, df) se
    p_raw  two-sided persona sign-flip  n_personas  G
    """

    delta: float
    se: float
    df: float
    ci95: tuple[float, float]
    p_raw: float
    n_personas: int


def t_interval(delta: float, se: float, df: float, level: float = 0.95) -> tuple[float, float]:
    """delta +- t((1 + level)/2, df) * se; nan bounds where there is no degree of freedom."""
    if not df > 0:
        return (float("nan"), float("nan"))
    half = float(scipy.stats.t.ppf((1 + level) / 2, df)) * se
    return (delta - half, delta + half)


def paired_comparison(
    method_sums: np.ndarray,
    baseline_sums: np.ndarray,
    n: np.ndarray,
    estimand: Estimand,
    *,
    flips: int = FLIPS,
    seed: int = 0,
) -> Paired:
    """Compare two methods that were scored on the same replies.

    method_sums, baseline_sums  [G] or [S, G]: summed scores per persona (and seed; seeds are averaged first)
    n                           [G] replies per persona

        delta = sum(w d) / sum(w),   se = sqrt(G/(G-1) sum((w (d - delta))^2)) / sum(w),   df = G - 1

    with w = 1 (macro: this is `scipy.stats.ttest_1samp(d)`) or w = n (micro: persona-clustered). p_raw flips
    the signs of w * d: all patterns for G <= 15, else `flips` of them from `seed`. Training seeds as a random
    factor: see `seeds`.
    Source: STATISTICS.md, "One method against the measured baseline".
    """
    d = differences(method_sums, baseline_sums, n)
    w = weights(n, estimand)
    personas = d.shape[0]
    mean, error = mean_and_se(d, w)
    delta, se = float(mean), float(error)
    p_raw = float(sign_flip_p(w * d, sign_matrix(personas, flips, seed)))
    return Paired(delta, se, personas - 1, t_interval(delta, se, personas - 1), p_raw, personas)
