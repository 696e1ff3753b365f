"""K methods against one baseline: centred, studentised, single-step max-T, and Holm as an extra column.

For 6 to 9 personas see `few`. Estimates and standard errors come in; `family` puts the results together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.statistics.flips import TOLERANCE, studentised


@dataclass(frozen=True, slots=True)
class Simultaneous:
    """Adjusted p-values and simultaneous intervals of K methods, each array [K].

    half_width is critical * se for max-T (a symmetric interval), else half of high - low.
    """

    p_adj: np.ndarray
    low: np.ndarray
    high: np.ndarray
    half_width: np.ndarray


def adjusted(observed: np.ndarray, maxima: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted p-values and critical value of |t| from the flipped maxima.

        p = (1 + #{max T* >= |t|}) / (R + 1),      c such that p < alpha exactly when |t| > c

    observed  [..., K] |t|;  maxima [R, ...] (leading axes match: simulations pass many families at once)
    Returns   p [..., K], c [...]; c is inf where R is too small for alpha.
    Source    Westfall and Young 1993, single step; Phipson and Smyth 2010 for the +1.
    """
    rounds = maxima.shape[0]
    inflated = maxima * (1 + TOLERANCE)
    k = (inflated[..., None] >= observed[None]).sum(0)
    p = (k + 1) / (rounds + 1)
    # The number of k = 0, 1, ... that still reject, by the same division and comparison as p < alpha.
    rejecting = int(np.count_nonzero(np.arange(1, rounds + 2) / (rounds + 1) < alpha))
    if rejecting == 0:
        return p, np.full(maxima.shape[1:], np.inf)
    place = rounds - rejecting
    return p, np.partition(inflated, place, axis=0)[place]


def max_t(
    d: np.ndarray,
    w: np.ndarray,
    delta: np.ndarray,
    se: np.ndarray,
    signs: np.ndarray,
    *,
    alpha: float = 0.05,
    scale: np.ndarray | float = 1.0,
) -> Simultaneous:
    """Single-step max-T on the centred residuals w (d - delta), joint over methods.

    d, w       [K, G] persona differences, [G] weights
    delta, se  [K] estimates and their standard errors (sqrt(V) with several training seeds)
    signs      [R, G]: one sign per persona, shared by all methods
    scale      [K] widens the critical value per method (`seeds.WithSeeds`)
    Centring makes the intervals delta +- c scale se cover whatever the true differences are; they exclude
    0 exactly when p_adj < alpha, also for K = 1.
    Source: STATISTICS.md; Westfall and Young 1993; Romano and Wolf 2005.
    """
    centre = (w * d).sum(-1) / w.sum()
    residuals = (w * (d - centre[:, None])).T
    maxima = studentised(residuals, w, signs).max(1)
    unit = se * np.broadcast_to(np.asarray(scale, dtype=float), delta.shape)
    t = ratio(delta, unit)
    p, c = adjusted(np.abs(t), maxima, alpha)
    c = float(c)
    # unit * (t -+ c) instead of delta -+ c * unit: the sign is then exactly that of the comparison |t| > c.
    finite = np.where(np.isfinite(t), t, 0.0)
    low = np.where(unit > 0, unit * (finite - c), delta)
    high = np.where(unit > 0, unit * (finite + c), delta)
    half = np.where(unit > 0, unit * c, 0.0)
    return Simultaneous(p, low, high, half)


def ratio(delta: np.ndarray, se: np.ndarray) -> np.ndarray:
    """t = delta / se with 0/0 = 0 and x/0 = +-inf."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(se > 0, delta / se, np.where(delta == 0, 0.0, np.sign(delta) * np.inf))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values [K] (1979): max over j <= i of min(1, (K - j) p_(j)), j from 0."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, (p.size - np.arange(p.size)) * p[order])
    out = np.empty_like(stepped)
    out[order] = np.maximum.accumulate(stepped)
    return out
