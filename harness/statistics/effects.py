"""Descriptions beside the verdict: effect size, share of personas improved, skewness. None decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from harness.statistics.distributions import normal_quantile


@dataclass(frozen=True, slots=True)
class Share:
    """Share of personas improved (a tie counts 1/2) with its 95 % Wilson interval."""

    share: float
    ci95: tuple[float, float]
    improved: int
    tied: int
    worsened: int


def hedges_g(delta: float, se: float, personas: int) -> float | None:
    """Hedges' g_z: paired standardised difference, corrected for small G; None without spread or if G < 3.

        g_z = J(G-1) * delta / sd,   sd = se * sqrt(G),   J(m) = Gamma(m/2) / ( sqrt(m/2) Gamma((m-1)/2) )

    se is the clustered error without the seed part. Source: Hedges 1981; Lakens 2013.
    """
    if personas < 3 or not se > 0:
        return None
    m = personas - 1
    log_j = scipy.special.gammaln(m / 2) - scipy.special.gammaln((m - 1) / 2) - 0.5 * np.log(m / 2)
    return float(np.exp(log_j) * delta / (se * np.sqrt(personas)))


def share_improved(d: np.ndarray, higher_is_better: bool = True, level: float = 0.95) -> Share:
    """Share of personas for whom the method is better than the baseline.

    d        [G] persona differences, method minus baseline
        centre = (x + z^2/2) / (G + z^2),   x = wins + ties/2,
        half = z / (G + z^2) * sqrt( x (G - x) / G + z^2/4 )
    Source   Wilson 1927; a tie counts half
    """
    d = np.asarray(d, dtype=float) if higher_is_better else -np.asarray(d, dtype=float)
    personas = d.shape[0]
    wins, ties = int((d > 0).sum()), int((d == 0).sum())
    x = wins + ties / 2
    z = float(normal_quantile((1 + level) / 2))
    centre = (x + z**2 / 2) / (personas + z**2)
    half = z / (personas + z**2) * float(np.sqrt(x * (personas - x) / personas + z**2 / 4))
    interval = (max(0.0, centre - half), min(1.0, centre + half))
    return Share(x / personas, interval, wins, ties, personas - wins - ties)


def skewness(influence: np.ndarray) -> float:
    """Moment skewness g1 of the personas' contributions w (d - delta); 0 where there is no spread."""
    influence = np.asarray(influence, dtype=float)
    centred = influence - influence.mean()
    spread = float((centred**2).mean())
    if spread <= 1e-26 * float((influence**2).mean()) or spread == 0:
        return 0.0
    return float((centred**3).mean() / spread**1.5)
