"""Metrics that are no mean of per-reply scores: precision, recall and F1 from summed counts, and their jackknife.

The persona is left out as a whole, as everywhere; the counting itself is the metric's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.errors import HarnessError
from harness.statistics.flips import FLIPS, sign_flip_p, sign_matrix
from harness.statistics.paired import Paired, t_interval

Statistic = Callable[[np.ndarray], np.ndarray]  # counts [..., C] summed over personas -> values [...]


@dataclass(frozen=True, slots=True)
class Jackknife:
    """estimate of the pooled metric (not bias-corrected), jackknife se, df = G - 1, 95 % t interval, G."""

    estimate: float
    se: float
    df: float
    ci95: tuple[float, float]
    n_personas: int


def precision(counts: np.ndarray) -> np.ndarray:
    """tp / (tp + fp) from counts [..., 3] (tp, fp, fn); nan where the replies say nothing of the kind."""
    tp, fp, _ = _columns(counts)
    return _ratio(tp, tp + fp)


def recall(counts: np.ndarray) -> np.ndarray:
    """tp / (tp + fn) from counts [..., 3] (tp, fp, fn); nan where the references say nothing of the kind."""
    tp, _, fn = _columns(counts)
    return _ratio(tp, tp + fn)


def f1(counts: np.ndarray) -> np.ndarray:
    """2 tp / (2 tp + fp + fn) from counts [..., 3] (tp, fp, fn); nan without any count."""
    tp, fp, fn = _columns(counts)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _columns(counts: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.asarray(counts, dtype=float), -1, 0)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, np.divide(part, whole), np.nan)


def jackknife(counts: np.ndarray, statistic: Statistic) -> Jackknife:
    """Leave-one-persona-out standard error of a pooled metric.

        se = sqrt( (G-1)/G * sum( (theta_-p - mean(theta_-.))^2 ) )

    counts  [G, C] per persona; statistic as `f1`
    Raises  HarnessError for G < 2, or where the metric is undefined with one persona left out.
    Source  Efron and Stein 1981. For a micro mean it is close to the clustered standard error.
    """
    theta, left_out = _left_out(counts, statistic)
    personas = left_out.shape[0]
    se = float(np.sqrt((personas - 1) / personas * ((left_out - left_out.mean()) ** 2).sum()))
    return Jackknife(theta, se, personas - 1, t_interval(theta, se, personas - 1), personas)


def pseudo_values(counts: np.ndarray, statistic: Statistic) -> np.ndarray:
    """Jackknife pseudo-values [G]: G theta - (G-1) theta_-p.

    Their macro mean and standard error are the bias-corrected estimate and the jackknife's se, so they can
    stand in for persona scores (n = 1 each, estimand macro) wherever a family of methods is compared.
    """
    theta, left_out = _left_out(counts, statistic)
    personas = left_out.shape[0]
    return personas * theta - (personas - 1) * left_out


def paired_jackknife(
    method_counts: np.ndarray,
    baseline_counts: np.ndarray,
    statistic: Statistic,
    *,
    flips: int = FLIPS,
    seed: int = 0,
) -> Paired:
    """Difference of a pooled metric between two methods on the same personas, counts [G, C] each.

    delta is the plain difference; se the jackknife's, with a persona left out of both at once; p_raw flips
    the signs of the differences of the pseudo-values.
    """
    method, method_out = _left_out(method_counts, statistic)
    baseline, baseline_out = _left_out(baseline_counts, statistic)
    if method_out.shape != baseline_out.shape:
        raise HarnessError(
            f"pooled metrics of {method_out.shape[0]} and {baseline_out.shape[0]} personas cannot be paired"
        )
    personas = method_out.shape[0]
    delta, out = method - baseline, method_out - baseline_out
    se = float(np.sqrt((personas - 1) / personas * ((out - out.mean()) ** 2).sum()))
    values = personas * delta - (personas - 1) * out
    p_raw = float(sign_flip_p(values, sign_matrix(personas, flips, seed)))
    return Paired(delta, se, personas - 1, t_interval(delta, se, personas - 1), p_raw, personas)


def _left_out(counts: np.ndarray, statistic: Statistic) -> tuple[float, np.ndarray]:
    counts = np.asarray(counts, dtype=float)
    if counts.ndim != 2 or counts.shape[0] < 2:
        raise HarnessError(f"a jackknife needs counts of shape (personas >= 2, counts), got {counts.shape}")
    total = counts.sum(0)
    theta, left_out = float(statistic(total)), statistic(total - counts)
    if not (np.isfinite(theta) and np.isfinite(left_out).all()):
        raise HarnessError(
            "the pooled metric is undefined with one persona left out, because that one holds all counts: "
            "report it without a standard error"
        )
    return theta, left_out
