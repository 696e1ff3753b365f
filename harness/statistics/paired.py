"""One method against the measured baseline on the same personas: difference, error, interval, raw p-value.

Also equivalence within a margin, by two one-sided tests. `family` decides for a family of methods, also of one.
p_raw is shown here and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from harness.errors import HarnessError
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


@dataclass(frozen=True, slots=True)
class Equivalence:
    """ci90: the (1 - 2 alpha) interval; smallest_margin = max(|lo|, |hi|).

    margin, p and equivalent are None without a margin.
    """

    ci90: tuple[float, float]
    smallest_margin: float
    margin: float | None
    p: float | None
    equivalent: bool | None


def equivalence(delta: float, se: float, df: float, margin: float | None = None, alpha: float = 0.05) -> Equivalence:
    """TOST: equivalent when the 90 % interval (1 - 2 alpha) lies inside +- margin.

        p = max( P(T > (delta + margin)/se), P(T < (delta - margin)/se) ),  T ~ t(df)

    All on one scale. Raises HarnessError for a margin that is not positive.
    Source: Schuirmann 1987; STATISTICS.md, "Equivalence, power".
    """
    if margin is not None and not margin > 0:
        raise HarnessError(
            f"an equivalence margin must be positive, got {margin:g}: state it before the run, e.g. 0.01"
        )
    low, high = t_interval(delta, se, df, level=1 - 2 * alpha)
    smallest = max(abs(low), abs(high))
    if margin is None:
        return Equivalence((low, high), smallest, None, None, None)
    if se > 0:
        p = max(float(scipy.stats.t.sf((delta + margin) / se, df)), float(scipy.stats.t.cdf((delta - margin) / se, df)))
    else:
        p = 0.0 if abs(delta) < margin else 1.0
    return Equivalence((low, high), smallest, margin, p, bool(smallest < margin))
