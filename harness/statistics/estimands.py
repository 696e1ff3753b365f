"""Micro and macro means with persona-clustered standard errors, and their intervals; every other file here uses them.

No tests and no p-values. Everything works along the last axis, so simulations can be vectorised.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from harness.errors import HarnessError
from harness.statistics.distributions import t_quantile

Estimand = Literal["micro", "macro"]

# Spread below this share of the values' own size is rounding, not data: it counts as no spread at all.
NO_SPREAD = 1e-13
# Two persona means this close (0-1 scale) are the same mean summed in another order.
SAME = 1e-12


def weights(n: np.ndarray, estimand: Estimand) -> np.ndarray:
    """Persona weights w_p: 1 for macro (mean over personas), n_p for micro (mean over replies).

    n         [..., G] scored replies per persona
    Returns   [..., G] float
    Raises    HarnessError for another estimand. Source: docs/statistics.md.
    """
    n = np.asarray(n, dtype=float)
    if estimand == "micro":
        return n.copy()
    if estimand == "macro":
        return np.ones_like(n)
    raise HarnessError(f"unknown estimand {estimand!r}: use 'micro' (mean over replies) or 'macro' (over personas)")


def mean_and_se(values: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean over personas and its persona-clustered standard error.

        mean = sum(w v) / sum(w)
        se   = sqrt( G/(G-1) * sum( (w (v - mean))^2 ) ) / sum(w)

    values, w  [..., G]
    Returns    mean [...], se [...]; se is nan for G = 1 and exactly 0 where the spread is only rounding.
    Source     w = 1: the one-sample t-test's; w = n: the cluster-robust (CR1) error of a mean,
               Liang and Zeger 1986, with the correction G/(G-1).
    """
    values, w = np.asarray(values, dtype=float), np.asarray(w, dtype=float)
    personas = values.shape[-1]
    total = w.sum(-1)
    mean = (w * values).sum(-1) / total
    squares = ((w * (values - mean[..., None])) ** 2).sum(-1)
    squares = np.where(squares <= NO_SPREAD**2 * ((w * values) ** 2).sum(-1), 0.0, squares)
    if personas < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, np.sqrt(personas / (personas - 1) * squares) / total


def score(sums: np.ndarray, n: np.ndarray, estimand: Estimand) -> tuple[float, float]:
    """Mean score of one method and its clustered standard error.

    sums     [G] or [S, G] summed score per persona (and seed); seeds are averaged first
    n        [G] scored replies per persona
    Returns  (mean, se) on the scale of the scores
    """
    means = persona_means(sums, n)
    mean, se = mean_and_se(means, weights(n, estimand))
    return float(mean), float(se)


def persona_means(sums: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Mean score per persona [G] from sums [G] or [S, G] and n [G]; seeds are averaged first."""
    sums = np.atleast_2d(np.asarray(sums, dtype=float))
    return sums.mean(0) / np.asarray(n, dtype=float)


def differences(method_sums: np.ndarray, baseline_sums: np.ndarray, n: np.ndarray) -> np.ndarray:
    """d_p: the method's minus the baseline's mean score per persona [G].

    A difference that is only rounding becomes exactly 0, so that "identical", ties and flip counts agree.
    """
    return differences_of(persona_means(method_sums, n), persona_means(baseline_sums, n))


def differences_of(method: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """The same of mean scores per persona [..., G]."""
    d = method - baseline
    scale = np.maximum(1.0, np.maximum(np.abs(method), np.abs(baseline)))
    return np.where(np.abs(d) <= SAME * scale, 0.0, d)


def t_interval(delta: float, se: float, df: float, level: float = 0.95) -> tuple[float, float]:
    """delta +- t((1 + level)/2, df) * se; nan bounds where there is no degree of freedom."""
    if not df > 0:
        return (float("nan"), float("nan"))
    half = float(t_quantile((1 + level) / 2, df)) * se
    return (delta - half, delta + half)
