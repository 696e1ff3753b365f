"""Differences per group of personas (clusters), behind a test of whether the groups differ at all.

Picking the best-looking group is how noise becomes a finding; so the rows cannot be had without the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import HarnessError
from harness.statistics.distributions import t_above, t_quantile
from harness.statistics.estimands import Estimand, differences, mean_and_se, weights
from harness.statistics.family import FEWEST_FOR_VERDICT
from harness.statistics.flips import ratio

_HELD = 2**24  # numbers of a block of permutations
_BLOCK = 1_000  # permutations per block: bounds the memory


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group, on the scale of the scores. ci and p_adj are None unless the groups differ and G_g >= 6."""

    group: str
    n_personas: int
    n_replies: int
    delta: float
    se: float | None
    ci: tuple[float, float] | None
    p_adj: float | None


@dataclass(frozen=True, slots=True)
class Subgroups:
    """heterogeneity_p is None where fewer than two groups have 2 personas; sentence: how to read the rows."""

    statistic: float | None
    heterogeneity_p: float | None
    heterogeneous: bool
    sentence: str
    rows: tuple[GroupRow, ...]


def subgroup_comparison(
    method_sums: np.ndarray,
    baseline_sums: np.ndarray,
    n: np.ndarray,
    groups: Sequence[object] | np.ndarray,
    estimand: Estimand,
    *,
    alpha: float = 0.05,
    permutations: int = 9_999,
    seed: int = 0,
) -> Subgroups:
    """Does the difference to the baseline vary between groups, and if so, where does it stand?

    method_sums, baseline_sums  [S, G] or [G];  n [G];  groups [G] labels
    Heterogeneity: Cochran's Q = sum_g (delta_g - mean)^2 / se_g^2 over groups of 2 or more personas, p by
    permuting the personas' labels, (k+1)/(R+1); studentised against unequal spread (Janssen 1997).
    Only if p < alpha are intervals and p-values shown, simultaneous over the K groups of 6 or more personas:
    groups are independent, so 1 - (1 - p)^K and t quantiles at level (1 - alpha)^(1/K) (Sidak 1967); the
    interval excludes 0 exactly when p_adj < alpha. Rows come in the order of the labels.
    Raises HarnessError if labels and personas differ in number.
    """
    d, w = differences(method_sums, baseline_sums, n), weights(n, estimand)
    labels = np.array([str(label) for label in groups])
    if labels.shape != d.shape:
        raise HarnessError(f"{labels.size} group labels for {d.size} personas: give one label per persona")
    names = sorted(
        set(labels.tolist()), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    )
    q, p = _heterogeneity(d, w, labels, permutations, seed)
    differ = p is not None and p < alpha
    tested = [name for name in names if (labels == name).sum() >= FEWEST_FOR_VERDICT]
    rows = []
    for name in names:
        inside = labels == name
        size = int(inside.sum())
        delta, se = (float(x) for x in mean_and_se(d[inside], w[inside]))
        ci = p_adj = None
        if differ and name in tested:
            ci, p_adj = _sidak(delta, se, size - 1, len(tested), alpha)
        replies = int(np.asarray(n)[inside].sum())
        rows.append(GroupRow(name, size, replies, delta, se if size > 1 else None, ci, p_adj))
    return Subgroups(q, p, differ, _sentence(p, differ), tuple(rows))


def _sidak(delta: float, se: float, df: int, family: int, alpha: float) -> tuple[tuple[float, float], float]:
    t = float(ratio(np.asarray(delta), np.asarray(se)))
    p = 2 * float(t_above(abs(t), df))
    p_adj = -float(np.expm1(family * np.log1p(-p))) if p < 1 else 1.0
    single = -float(np.expm1(np.log1p(-alpha) / family))
    half = -float(t_quantile(single / 2, df)) * se
    return (delta - half, delta + half), p_adj


def _heterogeneity(
    d: np.ndarray, w: np.ndarray, labels: np.ndarray, permutations: int, seed: int
) -> tuple[float | None, float | None]:
    names, counts = np.unique(labels, return_counts=True)
    usable = np.isin(labels, names[counts > 1])
    if (counts > 1).sum() < 2:
        return None, None
    order = np.argsort(labels[usable], kind="stable")
    d, w = d[usable][order], w[usable][order]
    sizes = np.unique(labels[usable], return_counts=True)[1]
    observed = float(_cochran_q(d[None], w[None], sizes)[0])
    generator = np.random.default_rng(seed)
    reached = 0
    block = max(1, min(_BLOCK, _HELD // d.size))
    for start in range(0, permutations, block):
        rounds = min(block, permutations - start)
        places = np.argsort(generator.random((rounds, d.size)), axis=1)
        reached += int((_cochran_q(d[places], w[places], sizes) >= observed * (1 - 1e-9)).sum())
    return observed, (reached + 1) / (permutations + 1)


def _cochran_q(d: np.ndarray, w: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Q [R] of personas [R, G] laid out group after group; 0 where no group has spread."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def total(x: np.ndarray) -> np.ndarray:
        return np.add.reduceat(x, starts, axis=1)

    weight = total(w)
    delta = total(w * d) / weight
    squares = total((w * (d - np.repeat(delta, sizes, axis=1))) ** 2)
    variance = sizes / (sizes - 1) * squares / weight**2
    # A group without spread would weigh infinitely: it gets the smallest spread that still is one.
    floor = np.maximum(variance.max(1, keepdims=True) * 1e-6, 1e-300)
    precision = 1 / np.maximum(variance, floor)
    mean = (precision * delta).sum(1, keepdims=True) / precision.sum(1, keepdims=True)
    return (precision * (delta - mean) ** 2).sum(1)


def _sentence(p: float | None, differ: bool) -> str:
    if p is None:
        return "too few personas per group to test whether the groups differ: the rows are descriptive"
    if differ:
        return f"the difference varies between the groups (heterogeneity p = {p:.2g})"
    return f"no evidence that the groups differ (heterogeneity p = {p:.2g}): the rows are descriptive"
