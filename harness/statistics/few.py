"""Six to nine personas: exact joint sign flips of the raw differences, and intervals that invert the test.

With so few patterns the centred test of `multiple` is too coarse; the raw one is exact for symmetric d.
"""

from __future__ import annotations

import numpy as np

from harness.statistics.estimands import mean_and_se
from harness.statistics.flips import TOLERANCE
from harness.statistics.multiple import Simultaneous, ratio

_STEPS = 60  # bisections: the bound is exact to 2^-60 of its distance
_DOUBLINGS = 60


def exact_max_t(
    d: np.ndarray,
    w: np.ndarray,
    delta: np.ndarray,
    se: np.ndarray,
    signs: np.ndarray,
    *,
    alpha: float = 0.05,
    scale: np.ndarray | float = 1.0,
) -> Simultaneous:
    """Joint exact flips on the raw w d, studentised, single-step max-T.

    Arguments as in `multiple.max_t`, with `signs` complete and the identity first.

        p_k(v) = #{ max(T*_k(d_k - v), max_{j != k} T*_j(d_j)) >= |t_k(v)| } / 2^G,      p_adj = p_k(0)

    The interval is the set of v around delta with p_k(v) >= alpha, found by bisection that starts at 0: it
    excludes 0 exactly when p_adj < alpha. Bounds are infinite where 2^G patterns cannot reach alpha.
    `se` may be larger than the clustered error of d (training seeds): then |t| shrinks by that factor.
    """
    methods = d.shape[0]
    own = np.stack([_statistics(d[k], w, signs) for k in range(methods)], 1)  # [R, K]
    unit = se * np.broadcast_to(np.asarray(scale, dtype=float), delta.shape)
    clustered = mean_and_se(d, w)[1]
    p = np.empty(methods)
    low, high = np.empty(methods), np.empty(methods)
    for k in range(methods):
        others = np.delete(own, k, axis=1).max(1) if methods > 1 else np.zeros(signs.shape[0])

        def p_at(v: float, k: int = k, others: np.ndarray = others) -> float:
            flipped = _statistics(d[k] - v, w, signs)
            # The first pattern is the identity: taking t from it makes it tie with itself in floats, too.
            t = flipped[0] * clustered[k] / unit[k] if clustered[k] > 0 else _ratio(delta[k] - v, unit[k])
            return float((np.maximum(flipped, others) * (1 + TOLERANCE) >= t).mean())

        p[k] = p_at(0.0)
        if 2 / signs.shape[0] >= alpha:  # the identity and its mirror always count
            low[k], high[k] = -np.inf, np.inf
            continue
        step = float(np.abs(d[k] - delta[k]).max()) or max(abs(float(delta[k])), 1.0)
        low[k] = _bound(p_at, float(delta[k]), p[k], -step, alpha)
        high[k] = _bound(p_at, float(delta[k]), p[k], step, alpha)
    return Simultaneous(p, low, high, (high - low) / 2)


def _statistics(d: np.ndarray, w: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """|t*| [R] after each flip of w d, without cancellation: the identity must tie with the observed t."""
    personas = d.shape[0]
    flipped = signs * (w * d)
    mean = flipped.sum(1) / w.sum()
    squares = ((flipped - w * mean[:, None]) ** 2).sum(1)
    squares = np.where(squares <= 1e-26 * ((w * d) ** 2).sum(), 0.0, squares)
    mean = np.where(np.abs(mean) * w.sum() <= TOLERANCE * np.abs(w * d).sum(), 0.0, mean)
    return np.abs(ratio(mean, np.sqrt(personas / (personas - 1) * squares) / w.sum()))


def _ratio(delta: float, se: float) -> float:
    return abs(float(ratio(np.asarray(delta), np.asarray(se))))


def _bound(p_at, delta: float, p_zero: float, step: float, alpha: float) -> float:
    """The last accepted value on the side of `step`; 0 is tried first if it lies there."""
    inside, outside = delta, delta + step
    if (0.0 - delta) * step > 0:
        if p_zero < alpha:
            outside = 0.0
        else:
            inside, outside = 0.0, step
    for _ in range(_DOUBLINGS):
        if p_at(outside) < alpha:
            break
        inside, outside = outside, outside + step
        step *= 2
    else:
        return float(np.sign(step) * np.inf)
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if p_at(middle) < alpha else (middle, outside)
    return inside
