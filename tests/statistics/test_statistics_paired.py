"""Estimands, clustered errors, sign flips and the paired comparison, against scipy and statsmodels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from harness import statistics
from harness.errors import HarnessError
from harness.statistics.flips import studentised

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "published"


def data(personas: int, effect: float = 0.01, seed: int = 1):
    rng = np.random.default_rng(seed)
    n = rng.integers(5, 50, personas)
    baseline = rng.normal(0.8, 0.05, personas)
    return (baseline + rng.normal(effect, 0.02, personas)) * n, baseline * n, n


def compared(method, baseline, n, estimand):
    """One method against the baseline: a family of one."""
    return statistics.family_comparison([method], baseline, n, estimand)[0]


def test_macro_is_the_one_sample_t_test():
    method, baseline, n = data(40)
    ours = compared(method, baseline, n, "macro")
    theirs: Any = stats.ttest_1samp((method - baseline) / n, 0)
    assert ours.delta / ours.se == pytest.approx(theirs.statistic, rel=1e-12)
    assert ours.df == theirs.df == 39
    assert ours.ci95 == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-12)


def test_micro_is_the_cluster_robust_regression_on_replies():
    rng = np.random.default_rng(2)
    n = rng.integers(3, 30, 25)
    persona = np.repeat(np.arange(25), n)
    d = rng.normal(0.01, 0.2, n.sum()) + rng.normal(0, 0.05, 25)[persona]
    fit = sm.OLS(d, np.ones_like(d)).fit(cov_type="cluster", cov_kwds={"groups": persona, "df_correction": True})
    ours = compared(np.bincount(persona, d), np.zeros(25), n, "micro")
    assert ours.delta == pytest.approx(fit.params[0], rel=1e-12)
    assert ours.se == pytest.approx(fit.bse[0], rel=1e-10)
    assert ours.delta == pytest.approx(d.mean(), rel=1e-12)


def test_seeds_are_averaged_before_personas():
    method, baseline, n = data(20)
    runs = np.stack([method - 0.3, method + 0.3])
    assert compared(runs, baseline, n, "micro").delta == pytest.approx(
        compared(method, baseline, n, "micro").delta, rel=1e-12
    )


@pytest.mark.parametrize("personas", [6, 9, 12])
@pytest.mark.parametrize("estimand", ["micro", "macro"])
def test_exact_flips_are_scipys_permutation_test(personas, estimand):
    method, baseline, n = data(personas, seed=personas)
    values = statistics.weights(n, estimand) * (method - baseline) / n
    theirs: Any = stats.permutation_test(
        (values, np.zeros(personas)),
        lambda x, y, axis: (x - y).sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=100_000,
    )
    ours = compared(method, baseline, n, estimand)
    assert ours.p_raw == pytest.approx(theirs.pvalue, abs=1e-12)


def test_sampled_flips_come_near_the_exact_ones_and_are_never_zero():
    d = np.random.default_rng(3).normal(0.3, 1, 15)
    exact = float(statistics.sign_flip_p(d, statistics.sign_matrix(15)))
    sampled_signs = np.random.default_rng(4).choice([-1.0, 1.0], (9_999, 15))
    assert float(statistics.sign_flip_p(d, sampled_signs)) == pytest.approx(exact, abs=0.02)
    assert float(statistics.sign_flip_p(np.ones(60), statistics.sign_matrix(60))) == 1 / 10_000


def test_flip_counts_tolerate_rounding():
    # 0.1 + 0.2 - 0.3 is not 0 in floats: patterns that tie with the observed sum must count all the same.
    d = np.array([0.1, 0.2, -0.3, 0.1, 0.2, -0.3])
    assert float(statistics.sign_flip_p(d, statistics.sign_matrix(6))) == 1.0
    equal = np.full(6, 0.1)
    assert float(statistics.sign_flip_p(equal, statistics.sign_matrix(6))) == 2 / 64


def test_sign_matrix_is_complete_up_to_15_and_seeded_beyond():
    assert len({tuple(row) for row in statistics.sign_matrix(10)}) == 1024
    assert statistics.sign_matrix(15).shape == (2**15, 15)
    again = statistics.sign_matrix(16, 99, seed=5)
    assert again.shape == (99, 16)
    assert (again == statistics.sign_matrix(16, 99, seed=5)).all()
    assert (again != statistics.sign_matrix(16, 99, seed=6)).any()


def test_studentised_flips_are_the_flipped_t_statistics():
    rng = np.random.default_rng(6)
    w = rng.integers(1, 9, 20).astype(float)
    d = rng.normal(size=(20, 3))
    centred = d - (w @ d) / w.sum()
    signs = statistics.sign_matrix(20, 50)
    mean, se = statistics.mean_and_se(signs[:, None, :] * centred.T[None], w)
    assert studentised(w[:, None] * centred, w, signs) == pytest.approx(np.abs(mean / se), rel=1e-9)


def test_identical_methods_have_no_difference_and_no_nan():
    method, _, n = data(20)
    result = compared(method, method + 1e-15, n, "micro")
    assert (result.delta, result.se, result.p_raw, result.ci95) == (0.0, 0.0, 1.0, (0.0, 0.0))


def test_one_persona_has_no_error():
    result = compared(np.array([8.0]), np.array([7.0]), np.array([10]), "macro")
    assert result.delta == pytest.approx(0.1)
    assert np.isnan(result.se)
    assert (result.ci95, result.p_raw) == (None, None)


def test_unknown_estimand_is_refused():
    with pytest.raises(HarnessError, match="'micro'"):
        statistics.weights(np.ones(3), "median")  # type: ignore[arg-type]


def published(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Summed similarity and replies per persona of a published result file; skips where it is missing."""
    path = PUBLISHED / f"{name}.json"
    if not path.exists():
        pytest.skip(f"published scores are not on this machine: {path} is missing")
    rows = json.loads(path.read_text("utf-8")).values()
    n = np.array([row["num_predictions"] for row in rows])
    return np.array([row["metrics"]["embedding_similarity"] for row in rows]) * n, n


def test_published_scores_are_reproduced():
    sums, n = published("unified")
    other, other_n = published("zero_shot")
    assert (n == other_n).all()
    micro, micro_se = statistics.score(sums, n, "micro")
    macro, macro_se = statistics.score(sums, n, "macro")
    assert (round(micro, 4), round(micro_se, 4)) == (0.8214, 0.0033)
    assert (round(macro, 4), round(macro_se, 4)) == (0.8185, 0.0032)
    difference = compared(sums, other, n, "macro")
    assert (round(difference.delta, 4), round(difference.se, 4)) == (0.1821, 0.0034)
    assert statistics.share_improved(statistics.differences(sums, other, n)).improved == 200


@pytest.mark.filterwarnings("ignore")
def test_a_mixed_model_of_the_replies_has_the_same_mean_and_error():
    """Sensitivity check: with equal n, REML with a random effect per persona is the macro comparison."""
    import pandas as pd
    import statsmodels.formula.api as smf

    rng = np.random.default_rng(4)
    personas, n = 40, 12
    d = 0.02 + rng.normal(0, 0.05, (personas, 1)) + rng.normal(0, 0.1, (personas, n))
    frame = pd.DataFrame({"d": d.ravel(), "persona": np.repeat(np.arange(personas), n)})
    model = smf.mixedlm("d ~ 1", frame, groups="persona").fit(reml=True)
    ours = compared(d.sum(1), np.zeros(personas), np.full(personas, n), "macro")
    assert ours.delta == pytest.approx(float(model.params["Intercept"]), abs=1e-9)
    assert ours.se == pytest.approx(float(model.bse["Intercept"]), rel=1e-4)
