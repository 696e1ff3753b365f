"""The calibration targets of the statistics, fast version: 500 experiments each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness import statistics
from harness.statistics import calibration


def test_every_target_is_met():
    said: list[tuple[int, int, str]] = []
    rows = calibration.run_calibration(500, lambda *now: said.append(now), flips=999)
    assert [row for row in rows if not row["ok"]] == []
    assert len({now for _, _, now in said}) >= 10
    done = [done for done, _, _ in said]
    assert done == sorted(done)
    assert said[-1][0] == said[-1][1], "the estimate ends where the work does"
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
    assert_documented([row["what"] for row in rows])


def assert_documented(names: list[str]) -> None:
    """docs/statistics.md has these rows with the full run's targets, and each of its figures meets its own."""
    text = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    block = text.partition("<!-- begin: calibration -->")[2].partition("<!-- end: calibration -->")[0]
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.split("\n") if line]
    assert head == ["what", "target", "measured", "ok", "experiments", "first"]
    assert [line[0] for line in lines] == names
    for what, target, measured, ok, experiments, first in lines:
        kind = max((kind for kind in calibration.TARGETS if what.startswith(f"{kind}, ")), key=len)
        assert (target, ok) == (calibration.target(kind, 2_000), "True")
        low, high = calibration.limits(kind, 2_000)
        assert low is None or float(measured) >= low, what
        assert high is None or float(measured) <= high, what
        assert int(experiments) == (20_000 if first else 2_000)


def test_a_target_names_no_share_outside_0_and_1():
    for what, (low, high, _) in calibration.TARGETS.items():
        for experiments in (100, 500, 1_999, 2_000):
            ends = calibration.limits(what, experiments)
            assert all(end is None or 0 < end < 1 or (what == "verdicts given" and end == 0) for end in ends), what
            assert "-" not in calibration.target(what, experiments)
        assert calibration.limits(what, 2_000) == (low, high)
    assert calibration.target("false positives", 100) == "<= 0.115"


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

    def unlucky(experiments: int, name: str, step, **_) -> list[dict]:
        calls.append((experiments, name))
        measured = 0.5 if len(calls) == 1 else 0.05
        return [calibration._row("false positives", "w", measured, experiments)]

    for part in ("false_positives", "no_verdict", "naive", "family_wise", "seeds_as_factor"):
        monkeypatch.setattr(calibration, part, unlucky)
    rows = calibration.run_calibration(2_000)
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


def test_bench_statistics_prints_rows_alone_and_its_exit_code_tells_a_miss(harness, monkeypatch):
    small = ("bench", "statistics", "--experiments", "100", "--flips", "199")
    rows = [calibration._row("verdicts given", "G = 5", 0.0, 100)]
    asked = []

    def run(experiments, progress, *, flips):
        asked.append((experiments, flips))
        progress(1, 2, "five personas")
        return rows

    monkeypatch.setattr(calibration, "run_calibration", run)
    code, out, _ = harness(*small, "--json", "--quiet")
    assert (code, json.loads(out), asked) == (0, rows, [(100, 199)])
    code, out, _ = harness(*small, "--markdown")
    assert code == 0
    assert out.splitlines()[2].startswith("| verdicts given, G = 5 | <= 0 ")
    rows.append(calibration._row("verdicts given", "G = 4", 0.5, 100))
    code, out, err = harness(*small, "--json")
    assert (code, len(json.loads(out))) == (2, 2)
    assert "missed: verdicts given, G = 4" in err
