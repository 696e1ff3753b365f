"""Tails and quantiles of the normal, Student's and the noncentral t distribution, as functions of numbers or arrays.

They are scipy.special's, which scipy.stats calls, too, behind checks that take 60 microseconds a number; and to load
that takes a second. With 200 methods all pairs need 40 000 quantiles.
"""

from __future__ import annotations

from typing import Any

import scipy


def t_quantile(p: Any, df: Any) -> Any:
    """The value below which Student's t with df degrees of freedom lies with probability p, 0 < p <= 1."""
    return scipy.special.stdtrit(df, p)


def t_below(t: Any, df: Any) -> Any:
    """P(T <= t), T Student's t with df degrees of freedom."""
    return scipy.special.stdtr(df, t)


def t_above(t: Any, df: Any) -> Any:
    """P(T >= t); exact far out, where 1 - P(T <= t) would be 0."""
    return scipy.special.stdtr(df, -t)


def normal_quantile(p: Any) -> Any:
    """The value below which a standard normal lies with probability p."""
    return scipy.special.ndtri(p)


def normal_above(z: Any) -> Any:
    """P(Z >= z), Z standard normal."""
    return scipy.special.ndtr(-z)


def noncentral_t_below(t: Any, df: Any, noncentrality: Any) -> Any:
    """P(T' <= t), T' noncentral t; nan in the far tails, where the series does not converge."""
    return scipy.special.nctdtr(df, noncentrality, t)
