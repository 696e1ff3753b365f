"""Shrunken per-persona estimates: what remains of the spread between personas once reply noise is taken out.

They describe; verdicts are about means over personas and never use them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from harness.errors import HarnessError
from harness.statistics.distributions import normal_quantile


@dataclass(frozen=True, slots=True, eq=False)
class Shrunken:
    """mean mu, between-persona variance tau2; per persona [G] the estimate, its sd, interval, kept share."""

    mean: float
    tau2: float
    estimates: np.ndarray
    sd: np.ndarray
    low: np.ndarray
    high: np.ndarray
    kept: np.ndarray  # share of the raw deviation from mu that is kept: tau2 / (tau2 + v)


def sampling_variances(
    scores: np.ndarray, persona: np.ndarray, dialogue: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per persona the mean score and that mean's sampling variance, the noise level pooled over personas.

        e = score - persona mean,   noise = sum_d (sum_{i in d} e_i)^2 * D/(D-1) / N,   v_p = noise / n_p

    scores    [N]; persona [N] integer index 0..G-1; dialogue [N] integer ids, unique over personas
              (replies of one dialogue share its luck); None: replies are independent
    Returns   means [G], variances [G], n [G]. Pooling: three lucky replies are no variance of 0.
    Raises    HarnessError if no persona has two dialogues (or replies).
    """
    scores, persona = np.asarray(scores, dtype=float), np.asarray(persona)
    n = np.bincount(persona).astype(float)
    if (n == 0).any():
        raise HarnessError("every persona index from 0 to the largest needs at least one score")
    means = np.bincount(persona, scores) / n
    units = np.arange(scores.size) if dialogue is None else np.unique(dialogue, return_inverse=True)[1]
    unit_sum = np.bincount(units, scores - means[persona])
    owner = np.zeros(unit_sum.size, dtype=int)
    owner[units] = persona
    dialogues = np.bincount(owner, minlength=n.size).astype(float)
    informed = dialogues > 1
    if not informed.any():
        raise HarnessError("reply noise cannot be estimated: no persona has two independent dialogues or replies")
    squares = np.bincount(owner, unit_sum**2, minlength=n.size)[informed]
    correction = dialogues[informed] / (dialogues[informed] - 1)
    noise = float((squares * correction).sum() / n[informed].sum())
    return means, noise / n, n


def shrunken_estimates(means: np.ndarray, variances: np.ndarray, level: float = 0.95) -> Shrunken:
    """Empirical-Bayes (normal-normal) estimates of the personas' true means.

        tau2 solves  sum( (y - mu)^2 / (tau2 + v) ) = G - 1  (0 if nothing positive does)
        mu         = sum(y / (tau2 + v)) / sum(1 / (tau2 + v))
        estimate_p = mu + B_p (y_p - mu),      B_p = tau2 / (tau2 + v_p)
        variance_p = B_p v_p + (1 - B_p)^2 / sum(1 / (tau2 + v))

    means, variances  [G]: observed means and their sampling variances (`sampling_variances`), variances > 0
    Source            Paule and Mandel 1982 for tau2; Efron and Morris 1975; Morris 1983.
    Raises            HarnessError for G < 2 or a variance that is not positive.
    """
    y, v = np.asarray(means, dtype=float), np.asarray(variances, dtype=float)
    if y.ndim != 1 or y.shape != v.shape or y.size < 2:
        raise HarnessError(
            f"shrinkage needs means and variances of the same 2 or more personas, got {y.shape}, {v.shape}"
        )
    if not (v > 0).all():
        raise HarnessError(
            "shrinkage needs a positive sampling variance for every persona: pool the noise over personas"
        )

    def centre(tau2: float) -> float:
        return float((y / (tau2 + v)).sum() / (1 / (tau2 + v)).sum())

    def excess(tau2: float) -> float:
        return float(((y - centre(tau2)) ** 2 / (tau2 + v)).sum() - (y.size - 1))

    tau2 = 0.0
    if excess(0.0) > 0:
        high = float(y.var(ddof=1)) + float(v.max())
        while excess(high) > 0:
            high *= 2
        tau2 = float(scipy.optimize.brentq(excess, 0.0, high, xtol=1e-14))  # type: ignore[arg-type]
    mu = centre(tau2)
    kept = tau2 / (tau2 + v)
    estimates = mu + kept * (y - mu)
    sd = np.sqrt(kept * v + (1 - kept) ** 2 / (1 / (tau2 + v)).sum())
    z = float(normal_quantile((1 + level) / 2))
    return Shrunken(mu, tau2, estimates, sd, estimates - z * sd, estimates + z * sd, kept)
