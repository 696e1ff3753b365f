"""Equivalence by two one-sided tests (TOST), and the smallest margin that would have passed.

The margin is stated in the configuration before the run; this file never chooses one.
"""

from __future__ import annotations

from dataclasses import dataclass

import scipy

from harness.errors import HarnessError
from harness.statistics.paired import t_interval


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
