"""Persona sign flips: the p-value of one mean, and K methods against one baseline by studentised single-step max-T.

`exact_max_t` is for 6 to 9 personas. Estimates and standard errors come in; `family` uses the results. Signs that are
too many to hold are drawn in `drawn_flips`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.statistics.estimands import NO_SPREAD, mean_and_se

EXACT_PERSONAS = 15
FLIPS = 9_999
HELD = 2**25  # signs that are held at once, 8 bytes each; more are drawn in blocks (`drawn_flips`)
BLOCK = 256  # columns that are flipped together
# Flipped and observed statistics that are equal in exact arithmetic must count as equal.
TOLERANCE = 1e-9
_STEPS = 60  # bisections: the bound is exact to 2^-60 of its distance
_DOUBLINGS = 60


def sign_matrix(personas: int, flips: int = FLIPS, seed: int = 0) -> np.ndarray:
    """Signs +-1, float64 [R, G]: all 2^G patterns for G <= 15, else `flips` patterns drawn from the seed.

    One sign per persona, shared by all methods of a family, keeps the correlation between methods.
    """
    if personas <= EXACT_PERSONAS:
        codes = np.arange(2**personas)[:, None] >> np.arange(personas)[None, :]
        return 1.0 - 2.0 * (codes & 1)
    bits = np.random.default_rng(seed).integers(0, 2, size=(flips, personas), dtype=np.int8)
    return 1.0 - 2.0 * bits


def _blocks(columns: int) -> list[slice]:
    """Columns in parts of BLOCK, at least one: the memory of flips does not grow with the number of methods."""
    return [slice(i, i + BLOCK) for i in range(0, max(columns, 1), BLOCK)]


def sign_flip_p(values: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Two-sided p-value of sum(values) under independent sign changes of the personas.

    values   [G] or [G, M]: w * d; M columns share the signs
    signs    [R, G] from `sign_matrix`
    Returns  [] or [M]: k/2^G where the signs enumerate all patterns, else (k+1)/(R+1), with k the number of
             patterns whose |sum| reaches the observed one (Phipson and Smyth 2010)
    """
    values = np.asarray(values, dtype=float)
    columns = values.reshape(values.shape[0], -1)
    reach = reach_of(columns)
    parts = [(np.abs(signs @ columns[:, part]) >= reach[part]).sum(0) for part in _blocks(columns.shape[1])]
    k = np.concatenate(parts)
    rounds, personas = signs.shape
    p = k / rounds if rounds == 2**personas and personas <= EXACT_PERSONAS else (k + 1) / (rounds + 1)
    return np.asarray(p).reshape(values.shape[1:])


def reach_of(columns: np.ndarray) -> np.ndarray:
    """What |sum| after a flip must reach to count, [M] of columns [G, M]: the observed |sum|, but for rounding."""
    return np.abs(columns.sum(0)) - TOLERANCE * np.abs(columns).sum(0)


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
    return Studentising.of(residuals, w).statistics(signs @ residuals, signs @ (residuals * w))


@dataclass(frozen=True, slots=True)
class Studentising:
    """What turns flipped sums of columns into |t*|: sums over the personas G of r^2, w, w^2 and |r|, each [M]."""

    personas: int
    spread: np.ndarray
    total: np.ndarray
    squared: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, residuals: np.ndarray, w: np.ndarray) -> Studentising:
        """residuals, w  [G, M]"""
        return cls(len(residuals), (residuals**2).sum(0), w.sum(0), (w**2).sum(0), np.abs(residuals).sum(0))

    def statistics(self, sums: np.ndarray, cross: np.ndarray) -> np.ndarray:
        """|t*| [R, M] from the flipped sums of r and of r w, both [R, M]; see `studentised`."""
        delta = sums / self.total
        squares = delta * self.squared
        squares -= 2.0 * cross
        squares *= delta
        squares += self.spread
        # The subtraction loses about 1e-16 of `spread` to rounding; less than that is no spread.
        none = squares <= NO_SPREAD * self.spread
        squares[none] = 1.0
        np.sqrt(squares, out=squares)
        statistic = np.abs(delta, out=delta)
        statistic /= squares
        statistic *= self.total * np.sqrt((self.personas - 1) / self.personas)
        if none.any():
            moved = np.abs(sums) > TOLERANCE * self.size
            statistic = np.where(none, np.where(moved, np.inf, 0.0), statistic)
        return statistic


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
    if maxima.ndim == 1:
        k = rounds - np.searchsorted(np.sort(inflated), observed)
    else:
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
    Source: Westfall and Young 1993; Romano and Wolf 2005.
    """
    residuals = centred(d, w).T
    parts = [studentised(residuals[:, part], w, signs).max(1) for part in _blocks(residuals.shape[1])]
    return simultaneous(delta, se, np.max(parts, axis=0), alpha=alpha, scale=scale)


def centred(d: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The residuals w (d - weighted mean) [K, G] of differences [K, G] and weights [G]."""
    centre = (w * d).sum(-1) / w.sum()
    return w * (d - centre[:, None])


def simultaneous(
    delta: np.ndarray, se: np.ndarray, maxima: np.ndarray, *, alpha: float = 0.05, scale: np.ndarray | float = 1.0
) -> Simultaneous:
    """What `max_t` says of K methods from the largest |t*| after each flip, `maxima` [R]."""
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

    Arguments as in `max_t`, with `signs` complete and the identity first.

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
            t = flipped[0] * clustered[k] / unit[k] if clustered[k] > 0 else abs(float(ratio(delta[k] - v, unit[k])))
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
