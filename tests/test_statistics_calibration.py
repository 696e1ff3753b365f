"""The calibration targets of the statistics, fast version: 500 experiments each."""

from __future__ import annotations

import numpy as np
import pytest

from harness import statistics
from harness.statistics import calibration


def test_every_target_is_met():
    said: list[str] = []
    rows = calibration.run(500, said.append, flips=999)
    assert [row for row in rows if not row["ok"]] == []
    assert len(said) >= 10
    what = " | ".join(row["what"] for row in rows)
    for part in (
        "G = 10",
        "G = 24",
        "G = 200",
        "G = 5",
        "reply-level",
        "global null",
        "null half",
        "3 seeds",
    ):
        assert part in what


@pytest.mark.parametrize("estimand", ["micro", "macro"])
def test_the_vectorised_decision_is_the_real_one(estimand):
    rng = calibration.rng_for("the vectorised decision is the real one")
    d, n = calibration.simulate_family(rng, 5, 24, 3, 0.02)
    signs = statistics.sign_matrix(24, 499, seed=1)
    delta, se, p, _ = calibration.decide(d, n, estimand, signs)
    for e in range(5):
        rows = statistics.family_comparison(list(d[e] * n[e]), np.zeros(24), n[e], estimand, signs=signs)
        assert delta[e] == pytest.approx([row.delta for row in rows])
        assert se[e] == pytest.approx([row.se for row in rows])
        assert p[e].tolist() == [row.p_adj for row in rows]


def test_a_broken_standard_error_would_be_seen(monkeypatch):
    real = calibration.mean_and_se
    monkeypatch.setattr(calibration, "mean_and_se", lambda d, w: (real(d, w)[0], real(d, w)[1] * 0.8))
    rows = calibration.false_positives(500, "broken", personas=24, estimand="micro", flips=999)
    assert not any(row["ok"] for row in rows)


def test_a_missed_limit_is_measured_again_and_both_figures_are_shown(monkeypatch):
    calls = []

    def unlucky(experiments: int, name: str, **_) -> list[dict]:
        calls.append((experiments, name))
        measured = 0.5 if len(calls) == 1 else 0.05
        return [calibration._row("w", measured, experiments, 0.035, 0.065, 0.05)]

    for part in ("false_positives", "no_verdict", "naive", "family_wise", "seeds_as_factor"):
        monkeypatch.setattr(calibration, part, unlucky)
    rows = calibration.run(2_000)
    assert (rows[0]["first"], rows[0]["measured"], rows[0]["ok"], rows[0]["experiments"]) == (
        0.5,
        0.05,
        True,
        20_000,
    )
    assert all(row["first"] is None for row in rows[1:])
    assert [c[0] for c in calls[:3]] == [2_000, 20_000, 2_000]


def test_simulated_scores_have_the_stated_spread():
    rng = calibration.rng_for("simulated scores have the stated spread")
    sizes = calibration.dialogue_sizes(rng, 200, 200)
    assert sizes.sum(-1).mean() == pytest.approx(30, rel=0.02)
    fixed = np.full((400, 200, 10), 3)
    means = calibration.method_sums(rng, fixed) / 30
    assert means.std() == pytest.approx(np.sqrt(0.025**2 + 0.05**2 / 10 + 0.21**2 / 30), rel=0.02)
