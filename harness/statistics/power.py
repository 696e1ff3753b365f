"""What a comparison could have found, equivalence, and how many personas the next comparison needs.

Power is by the noncentral t. sd is the spread of the persona differences, se * sqrt(G) of an earlier run.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from harness.errors import HarnessError
from harness.statistics.distributions import (
    noncentral_t_below,
    normal_above,
    normal_quantile,
    t_above,
    t_below,
    t_quantile,
)
from harness.statistics.estimands import t_interval

_MOST_PERSONAS = 10_000_000


def power_at(noncentrality: float, df: float, alpha: float = 0.05) -> float:
    """Power of the two-sided t-test: P(|T'| > t(1 - alpha/2, df)), T' noncentral t(df, noncentrality).

    The noncentral t is nan in the far tails; there a normal approximation is exact to the digits that matter.
    Source: Cohen 1988; agrees with statsmodels' TTestPower.
    """
    critical = float(t_quantile(1 - alpha / 2, df))
    noncentrality = abs(noncentrality)
    with np.errstate(all="ignore"):
        upper = float(1 - noncentral_t_below(critical, df, noncentrality))
        lower = float(noncentral_t_below(-critical, df, noncentrality))
    if not math.isfinite(upper):
        upper = float(normal_above((critical - noncentrality) / math.sqrt(1 + critical**2 / (2 * df))))
    if not math.isfinite(lower):
        lower = float(normal_above((critical + noncentrality) / math.sqrt(1 + critical**2 / (2 * df))))
    return min(1.0, max(0.0, upper + lower))


def mde(se: float, df: float, *, power: float = 0.80, alpha: float = 0.05) -> float:
    """mde80: the smallest true difference that a two-sided t-test finds with this power; on se's scale."""
    if not se > 0 or not df > 0:
        return 0.0 if se == 0 else float("nan")
    return _noncentrality(df, power, alpha) * se


@functools.lru_cache(maxsize=4096)
def _noncentrality(df: float, power: float, alpha: float) -> float:
    """The noncentrality at which the two-sided t-test has this power; the rows of a table share it."""
    low, high = 0.0, float(t_quantile(1 - alpha / 2, df)) + 2.0
    while power_at(high, df, alpha) < power:
        high *= 2
    while high - low > 1e-10 * high:  # power grows with it; to load a root finder takes longer than these 35 halvings
        middle = (low + high) / 2
        low, high = (middle, high) if power_at(middle, df, alpha) < power else (low, middle)
    return (low + high) / 2


def mde_adjusted(half_width: float, se: float, *, power: float = 0.80) -> float:
    """The smallest difference that the family-wise decision finds: about (c + z(power)) * se, z(.80) = .84.

    half_width  c * se, half of the simultaneous interval
    """
    return half_width + float(normal_quantile(power)) * se


def power_of(difference: float, sd: float, personas: int, *, alpha: float = 0.05, family_size: int = 1) -> float:
    """Power to find a true mean difference with G personas; for a family of K at alpha / K (Bonferroni)."""
    _check(difference, sd, alpha, family_size)
    if personas < 2:
        raise HarnessError(f"power needs at least 2 personas, got {personas}")
    return power_at(difference / sd * math.sqrt(personas), personas - 1, alpha / family_size)


def personas_needed(
    difference: float, sd: float, *, power: float = 0.80, alpha: float = 0.05, family_size: int = 1
) -> int:
    """The smallest number of personas that finds `difference` with `power`; at least 6 (fewer: no verdict).

    difference, sd  on one scale: the true mean difference and the sd of the differences between personas
    Raises HarnessError for difference 0, sd <= 0, power outside (alpha, 1), or too many personas.
    """
    _check(difference, sd, alpha, family_size)
    if not alpha < power < 1:
        raise HarnessError(f"power must lie between alpha ({alpha:g}) and 1, got {power:g}")
    low, high = 5, 6
    while power_of(difference, sd, high, alpha=alpha, family_size=family_size) < power:
        low, high = high, high * 2
        if high > _MOST_PERSONAS:
            raise HarnessError(
                f"a difference of {difference:g} at a standard deviation of {sd:g} needs more than "
                f"{_MOST_PERSONAS:,} personas: ask for a larger difference"
            )
    while high - low > 1:
        middle = (low + high) // 2
        enough = power_of(difference, sd, middle, alpha=alpha, family_size=family_size) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


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
    Source: Schuirmann 1987; docs/statistics.md, "Equivalent, inconclusive".
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
        p = max(float(t_above((delta + margin) / se, df)), float(t_below((delta - margin) / se, df)))
    else:
        p = 0.0 if abs(delta) < margin else 1.0
    return Equivalence((low, high), smallest, margin, p, bool(smallest < margin))


def _check(difference: float, sd: float, alpha: float, family_size: int) -> None:
    if difference == 0 or not math.isfinite(difference):
        raise HarnessError(f"the difference to find must be a number other than 0, got {difference:g}")
    if not sd > 0 or not math.isfinite(sd):
        raise HarnessError(f"the standard deviation of the persona differences must be positive, got {sd:g}")
    if not 0 < alpha < 1:
        raise HarnessError(f"alpha must lie between 0 and 1, got {alpha:g}")
    if family_size < 1:
        raise HarnessError(f"the family must hold at least 1 method, got {family_size}")
