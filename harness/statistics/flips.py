"""Persona sign flips: the sign matrix, the p-value of one mean, and studentised statistics of many at once.

`multiple` puts the statistics of several methods together.
"""

from __future__ import annotations

import numpy as np

from harness.statistics.estimands import NO_SPREAD

EXACT_PERSONAS = 15
FLIPS = 9_999
# Flipped and observed statistics that are equal in exact arithmetic must count as equal.
TOLERANCE = 1e-9


def sign_matrix(personas: int, flips: int = FLIPS, seed: int = 0) -> np.ndarray:
    """Signs +-1, float64 [R, G]: all 2^G patterns for G <= 15, else `flips` patterns drawn from the seed.

    One sign per persona, shared by all methods of a family, keeps the correlation between methods.
    """
    if personas <= EXACT_PERSONAS:
        codes = np.arange(2**personas)[:, None] >> np.arange(personas)[None, :]
        return 1.0 - 2.0 * (codes & 1)
    bits = np.random.default_rng(seed).integers(0, 2, size=(flips, personas), dtype=np.int8)
    return 1.0 - 2.0 * bits


def sign_flip_p(values: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Two-sided p-value of sum(values) under independent sign changes of the personas.

    values   [G] or [G, M]: w * d; M columns share the signs
    signs    [R, G] from `sign_matrix`
    Returns  [] or [M]: k/2^G where the signs enumerate all patterns, else (k+1)/(R+1), with k the number of
             patterns whose |sum| reaches the observed one (Phipson and Smyth 2010)
    """
    values = np.asarray(values, dtype=float)
    columns = values.reshape(values.shape[0], -1)
    flipped = np.abs(signs @ columns)
    reach = np.abs(columns.sum(0)) - TOLERANCE * np.abs(columns).sum(0)
    k = (flipped >= reach).sum(0)
    rounds, personas = signs.shape
    p = k / rounds if rounds == 2**personas and personas <= EXACT_PERSONAS else (k + 1) / (rounds + 1)
    return np.asarray(p).reshape(values.shape[1:])


def studentised(residuals: np.ndarray, w: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """|t*| of every column after every flip, through two matrix products.

    residuals  [G, M] columns w * (d - centre)
    w          [G] or [G, M] persona weights
    signs      [R, G]
    Returns    [R, M] |delta*| / se*: delta* = sum(s r) / W, se* the clustered error after the flip,
               sum((s r - w delta*)^2) = sum(r^2) - 2 delta* sum(s r w) + delta*^2 sum(w^2)
    A column without any spread gives 0; a flip that leaves no spread around a mean that is not 0 gives inf.
    """
    residuals = np.asarray(residuals, dtype=float)
    w = np.broadcast_to(np.asarray(w, dtype=float).reshape(residuals.shape[0], -1), residuals.shape)
    personas = residuals.shape[0]
    total = w.sum(0)
    spread = (residuals**2).sum(0)
    delta = signs @ residuals
    delta /= total
    cross = signs @ (residuals * w)
    squares = delta * (w**2).sum(0)
    squares -= 2.0 * cross
    squares *= delta
    squares += spread
    # The subtraction loses about 1e-16 of `spread` to rounding; less than that is no spread.
    none = squares <= NO_SPREAD * spread
    squares[none] = 1.0
    np.sqrt(squares, out=squares)
    statistic = np.abs(delta, out=delta)
    statistic /= squares
    statistic *= total * np.sqrt((personas - 1) / personas)
    if none.any():
        moved = np.abs(signs @ residuals) > TOLERANCE * np.abs(residuals).sum(0)
        statistic = np.where(none, np.where(moved, np.inf, 0.0), statistic)
    return statistic
