"""Max-T over a family, exact flips for few personas, training seeds as a random factor."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from harness import statistics
from harness.statistics import drawn_flips, family as statistics_family
from harness.statistics.flips import BLOCK, adjusted, sign_flip_p, sign_matrix, studentised


def family(personas: int, methods: int, seed: int, spread: float = 0.02):
    rng = np.random.default_rng(seed)
    n = rng.integers(10, 50, personas)
    baseline = rng.normal(0.8, 0.05, personas)
    effects = np.linspace(0, spread, methods)[:, None]
    shared = rng.normal(0, 0.01, personas)
    scores = baseline + effects + shared + rng.normal(0, 0.02, (methods, personas))
    return list(scores * n), baseline * n, n


@pytest.mark.parametrize("personas", [6, 7, 9, 10, 12, 30, 120])
@pytest.mark.parametrize("methods", [1, 5])
@pytest.mark.parametrize("estimand", ["micro", "macro"])
def test_p_and_simultaneous_interval_always_agree(personas, methods, estimand):
    decisions = set()
    for seed in range(4):
        for alpha in (0.05, 0.2):
            scores, baseline, n = family(personas, methods, seed)
            scores = [s + seed % 2 * 0.03 * n for s in scores]
            for row in statistics.family_comparison(scores, baseline, n, estimand, alpha=alpha, flips=199):
                assert row.sim_ci is not None
                assert row.p_adj is not None
                excludes = row.sim_ci[0] > 0 or row.sim_ci[1] < 0
                assert excludes == (row.p_adj < alpha)
                assert row.sim_ci[0] <= row.delta <= row.sim_ci[1]
                decisions.add(excludes)
    assert decisions == {True, False}, "the data must show both decisions"


def test_critical_value_sits_exactly_at_alpha():
    maxima = np.arange(1.0, 100.0)  # 99 flips: p = (k + 1) / 100
    p, c = adjusted(np.array([94.5, 95.5, 96.5]), maxima, 0.05)
    assert p.tolist() == [0.06, 0.05, 0.04]
    assert 96 <= float(c) < 96.5
    assert float(adjusted(np.array([1e9]), maxima, 0.005)[1]) == np.inf


def test_single_method_is_near_the_t_test():
    methods, baseline, n = family(200, 1, 3, spread=0)
    row = statistics.family_comparison(methods, baseline, n, "macro")[0]
    t_test: Any = stats.ttest_1samp((methods[0] - baseline) / n, 0)
    assert row.half_width == pytest.approx(stats.t.ppf(0.975, 199) * row.se, rel=0.05)
    assert row.p_adj == pytest.approx(t_test.pvalue, abs=0.02)


def test_correlated_methods_pay_less_than_bonferroni_and_more_than_alone():
    methods, baseline, n = family(100, 8, 4)
    joint = statistics.family_comparison(methods, baseline, n, "micro")
    alone = [statistics.family_comparison([m], baseline, n, "micro")[0] for m in methods]
    bonferroni = stats.t.ppf(1 - 0.025 / 8, 99)
    c = joint[0].half_width / joint[0].se  # type: ignore[operator]
    assert alone[0].half_width / alone[0].se < c < bonferroni * 1.02  # type: ignore[operator]
    assert all(j.p_adj >= a.p_adj for j, a in zip(joint, alone, strict=True))  # type: ignore[operator]


def test_centring_keeps_the_family_from_hiding_behind_a_giant():
    # Raw flips of a huge true effect would inflate every other method's p-value; centred ones do not see it.
    methods, baseline, n = family(60, 3, 5)
    before = statistics.family_comparison(methods, baseline, n, "micro")
    methods[2] = methods[2] + 0.5 * n
    after = statistics.family_comparison(methods, baseline, n, "micro")
    assert [r.p_adj for r in after[:2]] == [r.p_adj for r in before[:2]]


def test_holm_is_statsmodels_holm():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.9, 0.03])
    assert statistics.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_max_t_agrees_with_holm_on_the_clear_cases():
    methods, baseline, n = family(150, 6, 6, spread=0.03)
    rows = statistics.family_comparison(methods, baseline, n, "micro")
    holm = statistics.holm(np.array([r.p_raw for r in rows]))
    clear = (holm < 0.01) | (holm > 0.2)
    assert clear.sum() >= 3
    assert [r.p_adj < 0.05 for r, c in zip(rows, clear, strict=True) if c] == [  # type: ignore[operator]
        h < 0.05 for h, c in zip(holm, clear, strict=True) if c
    ]


def test_few_personas_use_exact_flips_of_the_raw_differences():
    methods, baseline, n = family(8, 3, 7)
    w = n.astype(float)
    d = (np.stack(methods) - baseline) / n
    signs = statistics.sign_matrix(8)
    mean, se = statistics.mean_and_se(signs[:, None, :] * d[None], w)
    flipped = np.abs(mean / se).max(1)
    observed = np.abs(np.divide(*statistics.mean_and_se(d, w)))
    expected = [(flipped >= t * (1 - 1e-12)).mean() for t in observed]
    rows = statistics.family_comparison(methods, baseline, n, "micro")
    assert [r.p_adj for r in rows] == pytest.approx(expected)


def test_few_personas_interval_inverts_the_test():
    methods, baseline, n = family(9, 1, 8)
    low, high = statistics.family_comparison(methods, baseline, n, "macro")[0].sim_ci  # type: ignore[misc]
    for bound, outwards in ((low, -1e-6), (high, 1e-6)):

        def p(v: float) -> float:
            shifted = statistics.family_comparison([methods[0] - v * n], baseline, n, "macro")[0].p_adj
            assert shifted is not None
            return shifted

        assert p(bound - outwards) >= 0.05
        assert p(bound + outwards) < 0.05


def test_six_personas_cannot_reach_a_level_of_one_percent():
    methods, baseline, n = family(6, 1, 9, spread=0)
    row = statistics.family_comparison([methods[0] + n], baseline, n, "macro", alpha=0.01)[0]
    assert row.p_adj == 2 / 64
    assert row.sim_ci == (-np.inf, np.inf)


@pytest.mark.parametrize("personas", [6, 10, 40])
def test_a_constant_difference_is_found_without_a_spread(personas):
    n = np.full(personas, 10)
    row = statistics.family_comparison([n * 0.9], n * 0.8, n, "macro")[0]
    assert row.se == 0
    assert row.p_adj is not None
    assert row.p_adj < 0.05
    assert row.sim_ci == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize("personas", [6, 12, 40])
def test_an_identical_method_has_p_one_and_leaves_the_others_alone(personas):
    methods, baseline, n = family(personas, 2, 10)
    alone = statistics.family_comparison(methods, baseline, n, "micro")
    rows = statistics.family_comparison([baseline.copy(), *methods], baseline, n, "micro")
    assert rows[0].identical
    assert (rows[0].delta, rows[0].p_raw, rows[0].p_adj, rows[0].sim_ci) == (0.0, 1.0, 1.0, (0.0, 0.0))
    assert [r.p_adj for r in rows[1:]] == [r.p_adj for r in alone]


def test_twelve_methods_two_hundred_personas_take_well_under_a_second():
    methods, baseline, n = family(200, 12, 11)
    statistics.sign_matrix(200)  # warm
    start = time.process_time()  # not the wall clock: other work on the machine is no fault of this code
    statistics.family_comparison(methods, baseline, n, "micro")
    assert time.process_time() - start < 1.0


def test_more_methods_than_are_flipped_together_are_one_family():
    rng, methods = np.random.default_rng(3), 2 * BLOCK + 5
    d, w = rng.normal(0.01, 0.03, (methods, 24)), rng.integers(3, 9, 24).astype(float)
    signs = sign_matrix(24, 999, 0)
    found = statistics.family_comparison(list((d + 0.5) * w), 0.5 * w, w, "micro", signs=signs)
    delta = (w * d).sum(1) / w.sum()
    se = np.array([s.se for s in found])
    maxima = studentised((w * (d - delta[:, None])).T, w, signs).max(1)
    wanted = [(1 + np.sum(maxima >= abs(t))) / 1000 for t in delta / se]
    assert [s.p_adj for s in found] == pytest.approx(wanted, abs=1e-12)
    one = [float(sign_flip_p(w * row, signs)) for row in d]
    assert sign_flip_p((w * d).T, signs) == pytest.approx(one, abs=1e-12)


def test_columns_with_their_own_weights_equal_one_by_one():
    rng = np.random.default_rng(12)
    residuals, w = rng.normal(size=(20, 4)), rng.uniform(1, 3, (20, 4))
    signs = statistics.sign_matrix(20, 99)
    together = studentised(residuals, w, signs)
    for k in range(4):
        assert together[:, k] == pytest.approx(studentised(residuals[:, [k]], w[:, k], signs)[:, 0], rel=1e-10)


def test_seed_variance_is_the_two_way_layout():
    rng = np.random.default_rng(13)
    runs = [rng.normal(size=(3, 12)), rng.normal(size=(4, 12)), rng.normal(size=(1, 12))]
    pooled = statistics.seed_variance(runs, np.ones(12), "macro")
    mean_squares = between = 0.0
    for y in runs[:2]:
        residual = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
        mean_squares += (residual**2).sum() / 11
        between += (len(y) - 1) * y.mean(1).var(ddof=1)
    assert pooled.nu == 5
    assert pooled.vbar == pytest.approx(between / 5)
    assert pooled.mbar == pytest.approx(mean_squares / 5 / 12)


def test_seeds_widen_error_and_critical_value_as_stated():
    pooled = statistics.SeedVariance(vbar=5e-5, mbar=1e-5, nu=4)
    got = statistics.with_seeds(0.003, 24, 3, 3, pooled)
    added = 4e-5 * 2 / 3
    variance = 0.003**2 + added
    # Three mean squares, each with its own degrees of freedom: Satterthwaite's sum.
    df = variance**2 / (0.003**4 / 23 + (5e-5 * 2 / 3) ** 2 / 4 + (1e-5 * 2 / 3) ** 2 / (4 * 23))
    assert got.se == pytest.approx(np.sqrt(variance))
    assert got.df == pytest.approx(df)
    assert got.scale == pytest.approx(stats.t.ppf(0.975, df) / stats.t.ppf(0.975, 23))


def test_one_seed_each_is_conditional_and_no_excess_changes_nothing():
    assert statistics.with_seeds(0.003, 24, 1, 1, statistics.SeedVariance(5e-5, 1e-5, 4)).se == 0.003
    assert statistics.with_seeds(0.003, 24, 3, 3, statistics.SeedVariance(1e-5, 5e-5, 4)) == statistics.WithSeeds(
        0.003, 23, 1.0
    )


@pytest.mark.parametrize("personas", [8, 24])
def test_lucky_seeds_do_not_decide(personas):
    rng = np.random.default_rng(14)
    n = np.full(personas, 30)
    luck = np.array([0.0, 0.06, 0.12])[:, None]
    base = rng.normal(0.8, 0.03, personas)
    method = (base + 0.012 + luck - 0.06 + rng.normal(0, 0.002, (3, personas))) * n
    baseline = (base + luck[::-1] - 0.06 + rng.normal(0, 0.002, (3, personas))) * n
    several = statistics.family_comparison([method], baseline, n, "macro")[0]
    averaged = statistics.family_comparison([method.mean(0)], baseline.mean(0), n, "macro")[0]
    assert averaged.p_adj is not None
    assert several.p_adj is not None
    assert averaged.p_adj < 0.05 < several.p_adj
    assert several.sim_ci is not None
    assert several.sim_ci[0] < 0 < several.sim_ci[1]
    assert several.delta == pytest.approx(averaged.delta)


def test_five_personas_get_no_p_and_no_interval():
    row = statistics.family_comparison(*family(5, 1, 15), "micro")[0]
    assert (row.p_raw, row.p_adj, row.ci95, row.sim_ci) == (None, None, None, None)
    assert np.isfinite(row.delta)
    assert statistics.family_comparison([], np.ones(8), np.ones(8), "micro") == []


@pytest.mark.parametrize("blocks", [(40, 7), (1000, 2048), (4_000_000, 11)])
def test_signs_that_are_drawn_in_blocks_are_those_of_the_matrix(monkeypatch, blocks):
    methods, baseline, n = family(30, 3, 21)
    held = statistics_family.family_comparisons(methods, baseline, n, ("micro", "macro"), flips=999, seed=4)
    monkeypatch.setattr(statistics_family, "HELD", 0)
    monkeypatch.setattr(drawn_flips, "DRAWN", blocks[0])
    monkeypatch.setattr(drawn_flips, "PERSONAS", blocks[1])
    drawn = statistics_family.family_comparisons(methods, baseline, n, ("micro", "macro"), flips=999, seed=4)
    other = statistics_family.family_comparisons(methods, baseline, n, ("micro", "macro"), flips=999, seed=5)
    for kind in ("micro", "macro"):
        for ours, theirs in zip(drawn[kind], held[kind], strict=True):
            assert (ours.p_raw, ours.p_adj, ours.delta, ours.se) == (
                theirs.p_raw,
                theirs.p_adj,
                theirs.delta,
                theirs.se,
            )
            assert ours.sim_ci == pytest.approx(theirs.sim_ci, rel=1e-9)
        assert [row.p_raw for row in drawn[kind]] != [row.p_raw for row in other[kind]]


def test_drawn_signs_leave_a_method_that_is_the_baseline_alone(monkeypatch):
    methods, baseline, n = family(20, 2, 10)
    monkeypatch.setattr(statistics_family, "HELD", 0)
    same, *_ = statistics.family_comparison([baseline.copy(), *methods], baseline, n, "micro", flips=999)
    assert (same.identical, same.p_raw, same.p_adj, same.sim_ci) == (True, 1.0, 1.0, (0.0, 0.0))
