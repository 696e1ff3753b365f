"""Metrics that are no mean of per-reply scores: precision, recall and F1 from summed counts, and their jackknife.

The persona is left out as a whole, as everywhere; the counting itself is the metric's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.errors import HarnessError

Statistic = Callable[[np.ndarray], np.ndarray]  # counts [..., C] summed over personas -> values [...]


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


def pseudo_values(counts: np.ndarray, statistic: Statistic) -> np.ndarray:
    """Jackknife pseudo-values [G]: G theta - (G-1) theta_-p, of counts [G, C] per persona.

    Their macro mean and standard error are the bias-corrected estimate and the jackknife's se, so they can
    stand in for persona scores (n = 1 each, estimand macro) wherever a family of methods is compared.
    Raises HarnessError for G < 2, or where the metric is undefined with one persona left out.
    Source: Efron and Stein 1981. For a micro mean the error is close to the clustered one.
    """
    theta, left_out = _left_out(counts, statistic)
    personas = left_out.shape[0]
    return personas * theta - (personas - 1) * left_out


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
