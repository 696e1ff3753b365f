"""Which methods are shown to be better than which others: all pairs of K methods, tested jointly.

Comparisons with one baseline, which decide verdicts, are `family`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.statistics import drawn_flips
from harness.statistics.estimands import Estimand, differences_of, mean_and_se, persona_means, weights
from harness.statistics.family import FEWEST_FOR_CENTRED, FEWEST_FOR_VERDICT
from harness.statistics.flips import HELD, exact_max_t, max_t, sign_matrix, simultaneous
from harness.statistics.seeds import seed_variance, with_seeds

PAIR_FLIPS = 1_999  # the 95 % quantile of the largest of all pairs needs no more


@dataclass(frozen=True, slots=True)
class Rank:
    """A method's place among K, from 1.

    tier       methods that the best of a tier is not shown to beat share its rank, which is that of its first
    low, high  at least low - 1 methods are shown to be better, and at least K - high to be worse
    """

    tier: int
    low: int
    high: int


def ranks(
    methods: Sequence[np.ndarray],
    n: np.ndarray,
    estimand: Estimand,
    *,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    seed: int = 0,
) -> list[Rank]:
    """The ranks of K methods, given best first.

    methods  K arrays of summed scores [S_m, G] (or [G]) of the same personas;  n [G] replies per persona
    The intervals of all K (K - 1) / 2 differences are simultaneous (`max_t`), so that all ranks hold jointly with
    probability 1 - alpha. With fewer than 6 personas nothing is tested, and all share rank 1.
    Source: simultaneous confidence sets for ranks from pairwise intervals, Mogstad, Romano, Shaikh and Wilhelm 2024.
    """
    better = _shown_better(methods, n, estimand, higher_is_better, alpha, seed)
    count = len(methods)
    found, leader = [], 0
    for place in range(count):
        leader = place if better[leader, place] else leader
        found.append(Rank(leader + 1, 1 + int(better[:, place].sum()), count - int(better[place].sum())))
    return found


def _shown_better(
    methods: Sequence[np.ndarray],
    n: np.ndarray,
    estimand: Estimand,
    higher_is_better: bool,
    alpha: float,
    seed: int,
) -> np.ndarray:
    """[K, K] whether the row's method is shown to be better than the column's."""
    runs = [np.atleast_2d(sums) for sums in methods]
    better = np.zeros((len(runs), len(runs)), dtype=bool)
    w = weights(n, estimand)
    personas = w.shape[0]
    if personas < FEWEST_FOR_VERDICT or len(runs) < 2:
        return better
    first, second = np.triu_indices(len(runs), 1)
    means = np.stack([persona_means(run, n) for run in runs])
    d = differences_of(means[first], means[second])  # [pairs, G]
    delta, errors = mean_and_se(d, w[None])
    pooled = seed_variance(runs, n, estimand)
    scale, seeds = np.ones_like(errors), np.array([len(run) for run in runs])
    for ours, theirs in {*zip(seeds[first].tolist(), seeds[second].tolist(), strict=True)}:
        alike = (seeds[first] == ours) & (seeds[second] == theirs)
        found = with_seeds(errors[alike], personas, ours, theirs, pooled, alpha)
        errors[alike], scale[alike] = found.se, found.scale
    if PAIR_FLIPS * personas > HELD:  # their signs do not fit into memory
        (flipped,) = drawn_flips.flip([drawn_flips.Tested(d, w)], PAIR_FLIPS, seed)
        joint = simultaneous(delta, errors, flipped.maxima, alpha=alpha, scale=scale)
    else:
        test = exact_max_t if personas < FEWEST_FOR_CENTRED else max_t
        joint = test(d, w, delta, errors, sign_matrix(personas, PAIR_FLIPS, seed), alpha=alpha, scale=scale)
    up = 1 if higher_is_better else -1
    shown = joint.p_adj < alpha
    ahead = shown & (up * delta > 0)
    behind = shown & (up * delta < 0)
    better[first[ahead], second[ahead]] = True
    better[second[behind], first[behind]] = True
    return better
