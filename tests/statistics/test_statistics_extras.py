"""Reference test, equivalence, power, effect sizes, jackknife, shrinkage, subgroups: known answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from harness import statistics
from harness.errors import HarnessError


def test_reference_test_is_the_one_sample_t_test():
    x = np.random.default_rng(1).normal(0.83, 0.05, 60)
    mean, se = statistics.score(x, np.ones(60), "macro")
    ours = statistics.reference_test(
        mean, se, 60, score=0.8214, aggregation="macro", estimand="macro", reference_se=0.0033
    )
    theirs: Any = stats.ttest_1samp(x, 0.8214)
    assert (ours.t, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert ours.t_with_se == pytest.approx((mean - 0.8214) / math.hypot(se, 0.0033))
    assert ours.p_with_se is not None
    assert ours.p_with_se > ours.p


def test_reference_test_without_spread_or_personas():
    same = statistics.reference_test(0.5, 0.0, 9, score=0.5, aggregation="micro", estimand="micro")
    assert (same.t, same.p, same.p_with_se) == (None, 1.0, None)
    assert statistics.reference_test(0.6, 0.0, 9, score=0.5, aggregation="micro", estimand="micro").p == 0.0
    with pytest.raises(HarnessError, match="2 personas"):
        statistics.reference_test(0.6, 0.1, 1, score=0.5, aggregation="micro", estimand="micro")
    with pytest.raises(HarnessError, match="macro mean"):
        statistics.reference_test(0.6, 0.1, 9, score=0.5, aggregation="macro", estimand="micro")


def test_equivalence_is_statsmodels_tost():
    d = np.random.default_rng(2).normal(0.002, 0.02, 40)
    delta, se = statistics.score(d, np.ones(40), "macro")
    ours = statistics.equivalence(delta, se, 39, margin=0.01)
    assert ours.p == pytest.approx(ttost_paired(d, np.zeros(40), -0.01, 0.01)[0])
    assert ours.p is not None
    assert ours.equivalent == (ours.p < 0.05)


def test_smallest_margin_is_where_tost_turns():
    found = statistics.equivalence(0.003, 0.002, 30).smallest_margin
    assert statistics.equivalence(0.003, 0.002, 30, margin=found * 1.0001).equivalent
    assert not statistics.equivalence(0.003, 0.002, 30, margin=found * 0.9999).equivalent
    assert statistics.equivalence(0.003, 0.002, 30, margin=found).p == pytest.approx(0.05)
    assert statistics.equivalence(0.0, 0.0, 30, margin=0.01).equivalent
    with pytest.raises(HarnessError, match="positive"):
        statistics.equivalence(0.0, 0.1, 30, margin=0.0)


@pytest.mark.parametrize(("effect", "personas"), [(0.1, 10), (0.5, 24), (1.0, 8), (0.2, 200)])
def test_power_is_statsmodels_power(effect, personas):
    theirs: Any = TTestPower().power(effect, personas, 0.05, alternative="two-sided")
    assert statistics.power_of(effect * 0.03, 0.03, personas) == pytest.approx(theirs, abs=1e-9)


def test_personas_needed_is_the_smallest_number_that_suffices():
    needed = statistics.personas_needed(0.01, 0.05)
    assert needed == math.ceil(TTestPower().solve_power(0.2, power=0.8, alpha=0.05))
    assert statistics.power_of(0.01, 0.05, needed) >= 0.8 > statistics.power_of(0.01, 0.05, needed - 1)
    assert statistics.personas_needed(0.01, 0.05, family_size=12) > needed
    assert statistics.personas_needed(1.0, 0.01) == 6


@pytest.mark.parametrize(
    "arguments",
    [(0.0, 1.0), (0.1, 0.0), (math.nan, 1.0), (1e-9, 1.0)],
    ids=["none", "no sd", "nan", "too small"],
)
def test_impossible_plans_are_refused(arguments):
    with pytest.raises(HarnessError):
        statistics.personas_needed(*arguments)


def test_power_survives_the_tails_where_scipy_returns_nan():
    assert statistics.power_at(60.0, 5) == pytest.approx(1.0)
    assert statistics.power_at(1e4, 199) == 1.0
    assert statistics.power_at(0.0, 23) == pytest.approx(0.05)
    grid = [statistics.power_at(x, 9) for x in np.linspace(0, 200, 400)]
    assert np.isfinite(grid).all()
    assert np.diff(grid).min() > -1e-6


@pytest.mark.parametrize("df", [1, 5, 23, 199])
def test_mde_is_found_with_eighty_percent_power(df):
    assert statistics.power_at(statistics.mde(0.004, df) / 0.004, df) == pytest.approx(
        0.8,
        abs=1e-3,  # scipy's nct itself is good to three digits at one degree of freedom
    )


def test_mde_of_a_large_sample_is_the_textbook_constant():
    assert statistics.mde(1.0, 100_000) == pytest.approx(1.96 + 0.8416, abs=1e-3)
    assert statistics.mde_adjusted(2.7, 1.0) == pytest.approx(2.7 + 0.8416, abs=1e-4)
    assert statistics.mde(0.0, 20) == 0.0


def test_hedges_g_corrects_cohens_d():
    d = np.random.default_rng(4).normal(0.5, 1, 12)
    _, se = statistics.score(d, np.ones(12), "macro")
    cohen = d.mean() / d.std(ddof=1)
    assert statistics.hedges_g(d.mean(), se, 12) == pytest.approx(cohen * (1 - 3 / (4 * 11 - 1)), rel=1e-3)
    assert statistics.hedges_g(0.1, 0.0, 12) is None
    assert statistics.hedges_g(0.1, 0.1, 2) is None


def test_share_improved_is_statsmodels_wilson_with_ties_as_halves():
    d = np.array([0.1] * 13 + [-0.1] * 5 + [0.0] * 4)
    ours = statistics.share_improved(d)
    assert ours.ci95 == pytest.approx(proportion_confint(15, 22, method="wilson"))
    assert (ours.share, ours.improved, ours.tied, ours.worsened) == (15 / 22, 13, 4, 5)
    assert statistics.share_improved(d, higher_is_better=False).share == pytest.approx(7 / 22)
    assert statistics.share_improved(np.ones(9)).ci95[1] == 1.0


def test_skewness_is_scipys():
    x = np.random.default_rng(5).exponential(size=40)
    assert statistics.skewness(x) == pytest.approx(stats.skew(x))
    assert statistics.skewness(np.full(9, 0.1)) == 0.0


def _ratio_of_sums(counts):
    return counts[..., 0] / counts[..., 1]


def test_jackknife_of_a_macro_mean_is_its_standard_error():
    x = np.random.default_rng(6).normal(size=30)
    ours = statistics.pseudo_values(np.stack([x, np.ones(30)], 1), _ratio_of_sums)
    assert ours.mean() == pytest.approx(x.mean())
    assert stats.sem(ours) == pytest.approx(stats.sem(x))


def test_jackknife_of_pooled_f1():
    counts = np.random.default_rng(7).integers(1, 30, (40, 3))
    tp, fp, fn = counts.sum(0)
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    assert statistics.f1(counts.sum(0)) == pytest.approx(2 * precision * recall / (precision + recall))
    left_out = [float(statistics.f1(np.delete(counts, p, axis=0).sum(0))) for p in range(40)]
    assert stats.sem(statistics.pseudo_values(counts, statistics.f1)) == pytest.approx(np.sqrt(39) * np.std(left_out))


def test_jackknife_refuses_counts_of_one_persona_only():
    with pytest.raises(HarnessError, match="one persona left out"):
        statistics.pseudo_values(np.array([[3, 1, 1], [0, 0, 0]]), statistics.f1)
    with pytest.raises(HarnessError, match="personas >= 2"):
        statistics.pseudo_values(np.array([[3, 1, 1]]), statistics.f1)


def test_shrinkage_is_statsmodels_paule_mandel():
    rng = np.random.default_rng(9)
    v = rng.uniform(0.001, 0.004, 80)
    y = rng.normal(0.8, 0.05, 80) + rng.normal(0, np.sqrt(v))
    ours = statistics.shrunken_estimates(y, v)
    theirs: Any = combine_effects(y, v, method_re="iterated", atol=1e-12, maxiter=500)
    assert ours.tau2 == pytest.approx(theirs.tau2, rel=1e-4)
    assert ours.mean == pytest.approx(theirs.mean_effect_re, rel=1e-6)
    assert (np.abs(ours.estimates - ours.mean) < np.abs(y - ours.mean)).all()


def test_shrunken_estimates_are_nearer_to_the_truth_and_their_intervals_cover():
    rng = np.random.default_rng(10)
    truth = rng.normal(0.7, 0.055, 2_000)
    v = np.full(2_000, 0.068**2)  # ten replies a persona, as in the study behind FAIR_COMPARISON row 17
    y = truth + rng.normal(0, 0.068, 2_000)
    ours = statistics.shrunken_estimates(y, v)
    assert ((ours.estimates - truth) ** 2).mean() < 0.5 * ((y - truth) ** 2).mean()
    assert ((ours.low < truth) & (truth < ours.high)).mean() == pytest.approx(0.95, abs=0.02)


def test_no_spread_beyond_noise_shrinks_to_the_mean():
    y = np.array([0.5, 0.51, 0.49, 0.5])
    ours = statistics.shrunken_estimates(y, np.full(4, 0.01))
    assert ours.tau2 == 0
    assert ours.estimates == pytest.approx(np.full(4, 0.5))
    with pytest.raises(HarnessError, match="positive sampling variance"):
        statistics.shrunken_estimates(y, np.array([0.1, 0.0, 0.1, 0.1]))
    with pytest.raises(HarnessError, match="2 or more"):
        statistics.shrunken_estimates(y[:1], np.ones(1))


def test_sampling_variance_is_honest_about_dialogues():
    rng = np.random.default_rng(11)
    persona = np.repeat(np.arange(300), 30)
    dialogue = np.repeat(np.arange(3_000), 3)
    scores = rng.normal(0, 0.1, 3_000)[dialogue] + rng.normal(0, 0.2, 9_000)
    true = 0.1**2 / 10 + 0.2**2 / 30
    means, clustered, n = statistics.sampling_variances(scores, persona, dialogue)
    assert n.tolist() == [30] * 300
    assert clustered[0] == pytest.approx(true, rel=0.1)
    assert clustered[0] == pytest.approx(means.var(), rel=0.2)
    assert statistics.sampling_variances(scores, persona)[1][0] < 0.8 * true
    with pytest.raises(HarnessError, match="two independent"):
        statistics.sampling_variances(np.ones(3), np.arange(3))


def groups_of(sizes, effects, seed, noise=0.02):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    n = rng.integers(10, 40, labels.size)
    d = np.asarray(effects)[labels] + rng.normal(0, noise, labels.size)
    return d * n, np.zeros(labels.size), n, labels


def test_groups_that_differ_get_intervals_that_agree_with_their_p_values():
    got = statistics.subgroup_comparison(*groups_of([16, 52, 25, 4], [0.05, 0.0, 0.02, 0.0], 12), "micro")
    assert got.heterogeneous
    assert got.heterogeneity_p is not None
    assert got.heterogeneity_p < 0.01
    assert "varies" in got.sentence
    assert [(r.group, r.n_personas) for r in got.rows] == [("0", 16), ("1", 52), ("2", 25), ("3", 4)]
    assert got.rows[3].ci is None  # four personas: no verdict
    for row in got.rows[:3]:
        assert row.ci is not None
        assert row.p_adj is not None
        assert (row.ci[0] > 0 or row.ci[1] < 0) == (row.p_adj < 0.05)
    assert got.rows[0].p_adj is not None
    assert got.rows[0].p_adj < 0.05


def test_groups_that_do_not_differ_show_no_p_value_even_if_one_looks_good():
    got = statistics.subgroup_comparison(*groups_of([16, 52, 25], [0.01, 0.01, 0.01], 13), "micro")
    assert not got.heterogeneous
    assert all(row.ci is None and row.p_adj is None for row in got.rows)
    assert "no evidence" in got.sentence
    assert sum(row.n_personas for row in got.rows) == 93


def test_heterogeneity_test_keeps_its_level():
    rejected = sum(
        statistics.subgroup_comparison(
            *groups_of([8, 20, 12], [0.0, 0.0, 0.0], 1_000 + i), "micro", permutations=199
        ).heterogeneous
        for i in range(300)
    )
    assert 0.05 - 3 * math.sqrt(0.05 * 0.95 / 300) <= rejected / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_degenerate_groups():
    got = statistics.subgroup_comparison(np.ones(3), np.zeros(3), np.ones(3), ["a", "b", "c"], "macro")
    assert (got.heterogeneity_p, got.heterogeneous) == (None, False)
    assert [row.se for row in got.rows] == [None] * 3
    same = statistics.subgroup_comparison(np.ones(20), np.ones(20), np.ones(20), ["a", "b"] * 10, "macro")
    assert same.heterogeneity_p == 1.0
    with pytest.raises(HarnessError, match="labels"):
        statistics.subgroup_comparison(np.ones(3), np.zeros(3), np.ones(3), ["a"], "macro")
