"""`compare` and the wording of verdicts: what a reader of the leaderboard sees."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from harness.contract.data import ReferenceScore
from harness.errors import HarnessError
from harness.statistics.rows import ComparisonRow, score_row
from harness.statistics.scores import PersonaScores
from harness.statistics.table import compare
from harness.statistics.verdicts import FLAGS, quantity, verdict


def scores(personas: int, effect: float = 0.0, seed: int = 0, seeds: int = 1, noise: float = 0.02, level=0.8):
    """Scores that share personas and n for one `personas`; `seed` is the method's own noise."""
    common = np.random.default_rng(99)
    n = common.integers(10, 50, personas)
    base = common.normal(level, 0.05, personas)
    own = np.random.default_rng(seed).normal(effect, noise, (seeds, personas)) if noise else effect
    ids = tuple(f"p{i:03d}" for i in range(personas))
    return PersonaScores(ids, tuple(range(seeds)), np.broadcast_to((base + own) * n, (seeds, personas)), n)


def one(personas: int, effect: float, **options) -> ComparisonRow:
    options.setdefault("baseline_name", "B")
    return compare(scores(personas, seed=1), {"m": scores(personas, effect, seed=2)}, "micro", **options)[0]


def test_better_worse_and_inconclusive_are_worded_as_agreed():
    better = one(100, 0.02)
    low, high = better.sim_ci_pts  # type: ignore[misc]
    assert better.verdict_kind == "better"
    assert better.verdict == (
        f"better than B by {better.delta_pts:.2f} pt (95 % simultaneous CI {low:.2f} to {high:.2f}), "
        "conditional on one training seed"
    )
    worse = one(100, -0.02)
    assert worse.verdict.startswith(f"worse than B by {-worse.delta_pts:.2f} pt (95 % simultaneous CI -")
    unclear = one(20, 0.0)
    assert unclear.verdict_kind == "inconclusive"
    assert unclear.verdict == (
        f"inconclusive (could detect >= {unclear.mde80_adj_pts:.2f} pt), conditional on one training seed"
    )


def test_equivalence_stands_beside_better_and_alone_only_where_nothing_is_shown():
    beside = one(150, 0.012, margin=0.05)
    assert beside.verdict_kind == "better"
    assert ", equivalent within +-5 pt, conditional" in beside.verdict
    alone = one(150, 0.0, margin=0.05)
    assert (alone.verdict_kind, alone.equivalent) == ("equivalent", True)
    assert alone.verdict == "equivalent within +-5 pt, conditional on one training seed"
    assert one(150, 0.0, margin=0.0001).verdict_kind == "inconclusive"
    assert one(150, 0.0).equivalent is None


def test_several_seeds_drop_the_condition_and_widen_the_error():
    baseline, method = scores(60, seed=1, seeds=3), scores(60, 0.02, seed=2, seeds=3)
    luck = np.array([[-0.01], [0.0], [0.01]]) * method.n
    method = PersonaScores(method.personas, method.seeds, method.sums + luck, method.n)
    row = compare(baseline, {"m": method}, "micro")[0]
    averaged = compare(
        PersonaScores(baseline.personas, (0,), baseline.sums.mean(0), baseline.n),
        {"m": PersonaScores(method.personas, (0,), method.sums.mean(0), method.n)},
        "micro",
    )[0]
    assert "conditional" not in row.verdict
    assert "one-seed" not in row.flags
    assert "one-seed" in averaged.flags
    assert row.delta_pts == pytest.approx(averaged.delta_pts)
    assert row.se_pts > 1.5 * averaged.se_pts  # type: ignore[operator]
    assert row.df < 59
    assert (row.seeds, row.baseline_seeds) == ((0, 1, 2), (0, 1, 2))


@pytest.mark.parametrize("personas", [1, 2, 5])
def test_below_six_personas_nothing_is_tested(personas):
    row = one(personas, 0.5, margin=0.01, reference=ReferenceScore(82.14, "micro", "paper"))
    assert (row.verdict_kind, row.verdict, row.flags) == (
        "insufficient",
        "insufficient personas",
        ("descriptive",),
    )
    for name in (
        "p_raw",
        "p_adj",
        "p_holm",
        "ci95_pts",
        "sim_ci_pts",
        "equivalent",
        "reference",
        "mde80_pts",
    ):
        assert getattr(row, name) is None, name
    assert row.delta_pts == pytest.approx(50, abs=5)


def test_six_to_nine_personas_are_flagged():
    assert "few-personas" in one(9, 0.02).flags
    assert "few-personas" not in one(10, 0.02).flags


def test_skewed_differences_of_few_personas_are_flagged():
    baseline = scores(30, seed=1, noise=0)
    jump = np.where(np.arange(30) == 0, 0.5, 0.001) * baseline.n
    skewed = PersonaScores(baseline.personas, (0,), baseline.sums + jump, baseline.n)
    assert "skewed" in compare(baseline, {"m": skewed}, "macro")[0].flags
    assert "skewed" not in one(30, 0.02).flags


def test_rounding_is_not_skewed():
    """Everybody's difference is the same number in decimals, not in binary: no spread, so no shape of it."""
    baseline = scores(10, seed=1)
    shifted = PersonaScores(baseline.personas, (0,), (baseline.sums / baseline.n + 0.05) * baseline.n, baseline.n)
    for estimand in ("micro", "macro"):
        row = compare(baseline, {"m": shifted}, estimand)[0]
        assert row.se_pts == 0
        assert "no-spread" in row.flags
        assert "skewed" not in row.flags


def test_identical_scores():
    row = compare(scores(30, seed=1), {"m": scores(30, seed=1)}, "micro")[0]
    assert (row.verdict_kind, row.verdict) == ("identical", "identical")
    assert (row.delta_pts, row.p_raw, row.p_adj) == (0.0, 1.0, 1.0)
    assert (row.share_improved, row.tied_personas) == (0.5, 30)


def test_weighting_sensitive_when_micro_and_macro_disagree():
    n = np.array([1000] * 5 + [10] * 25)
    d = np.where(n == 1000, -0.001, 0.02) + np.random.default_rng(0).normal(0, 0.002, 30)
    ids = tuple(map(str, range(30)))
    row = compare(PersonaScores(ids, (0,), 0.8 * n, n), {"m": PersonaScores(ids, (0,), (0.8 + d) * n, n)}, "macro")[0]
    assert row.verdict_kind == "better"
    assert "weighting-sensitive" in row.flags
    assert row.delta_micro_pts < 0.5 * row.delta_macro_pts
    assert row.delta_pts == row.delta_macro_pts
    assert "weighting-sensitive" not in one(100, 0.02).flags


def test_lower_is_better_in_the_metrics_own_unit():
    baseline = scores(50, seed=1, level=1.2)
    row = compare(
        baseline,
        {"m": scores(50, -0.05, seed=2, level=1.2)},
        "macro",
        baseline_name="B",
        unit="raw",
        higher_is_better=False,
    )[0]
    assert row.delta_pts == pytest.approx(-0.05, abs=0.01)
    assert row.verdict.startswith(f"better than B by {quantity(-row.delta_pts, 'raw')} (95 % simultaneous CI -")
    assert "pt" not in row.verdict
    assert row.share_improved > 0.8
    nats = compare(baseline, {"m": scores(50, 0.5, seed=2, level=1.2)}, "macro", unit="nats", higher_is_better=False)[0]
    assert nats.verdict_kind == "worse"
    assert " nats (" in nats.verdict


def test_a_row_survives_strict_json():
    for personas in (1, 4, 6, 9, 40):
        for alpha in (0.05, 0.001):
            rows = compare(
                scores(personas, seed=1),
                {"a": scores(personas, 0.02, seed=2), "same": scores(personas, seed=1)},
                "micro",
                ReferenceScore(82.14, "micro", "paper", se=0.33),
                margin=0.01,
                alpha=alpha,
            )
            for row in rows:
                assert json.loads(json.dumps(dataclasses.asdict(row), allow_nan=False))["method"] == row.method
                assert set(row.flags) <= set(FLAGS)


def test_order_of_methods_and_personas_does_not_matter():
    baseline = scores(30, seed=1)
    methods = {f"m{k}": scores(30, 0.005 * k, seed=k) for k in (2, 3, 4)}
    rows = {row.method: row for row in compare(baseline, methods, "micro")}
    turned = tuple(reversed(baseline.personas))
    again = compare(baseline.restricted_to(turned), {name: methods[name] for name in ("m4", "m2", "m3")}, "micro")
    assert [row.method for row in again] == ["m4", "m2", "m3"]
    for row in again:
        assert row.p_adj == rows[row.method].p_adj
        assert row.sim_ci_pts == pytest.approx(rows[row.method].sim_ci_pts)
        assert row.family_size == 3


def test_unlike_personas_or_replies_are_refused_by_name():
    baseline = scores(10)
    fewer = baseline.restricted_to(baseline.personas[:8])
    with pytest.raises(HarnessError, match=r"mine .*different personas \(8 and 10.*'p008'"):
        compare(baseline, {"mine": fewer}, "micro")
    other = PersonaScores(baseline.personas, (0,), baseline.sums, baseline.n + (np.arange(10) == 3))
    with pytest.raises(HarnessError, match=r"mine .*different replies: persona 'p003'"):
        compare(baseline, {"mine": other}, "micro")
    with pytest.raises(HarnessError, match="estimand"):
        compare(baseline, {}, "mean")  # type: ignore[arg-type]


def test_persona_scores_refuse_what_is_no_score():
    n = np.array([3, 4])
    good = PersonaScores(("a", "b"), (0,), np.array([1.0, 2.0]), n)
    assert good.sums.shape == (1, 2)
    for bad in (
        lambda: PersonaScores(("a", "a"), (0,), np.ones(2), n),
        lambda: PersonaScores(("a", "b"), (0, 1), np.ones(2), n),
        lambda: PersonaScores(("a", "b"), (0,), np.array([np.nan, 1]), n),
        lambda: PersonaScores(("a", "b"), (0,), np.ones(2), np.array([0, 3])),
        lambda: PersonaScores(("a", "b"), (0, 1), np.ones((2, 2)), np.array([[3, 4], [3, 5]])),
        lambda: PersonaScores((), (0,), np.ones((1, 0)), np.ones(0)),
        lambda: good.restricted_to(["a", "c"]),
    ):
        with pytest.raises(HarnessError):
            bad()


def test_reference_of_another_aggregation_is_refused():
    baseline, reference = scores(20), ReferenceScore(82.14, "micro", "paper")
    with pytest.raises(HarnessError, match=r"(?s)82\.14 \(paper\) is a micro mean.*macro"):
        compare(baseline, {"m": scores(20, seed=3)}, "macro", reference)


def test_baselines_own_row_and_its_reference():
    row = score_row("b", scores(40), "micro", ReferenceScore(82.14, "micro", "paper"))
    assert row.reference is not None
    assert row.reference.delta_pts == pytest.approx(row.score_micro_pts - 82.14)
    assert row.reference.t == pytest.approx(row.reference.delta_pts / row.se_micro_pts)  # type: ignore[operator]
    assert "tests a constant" in row.reference.caveat
    assert row.n_replies == scores(40).n.sum()


def test_small_numbers_keep_their_digits():
    assert quantity(1.957) == "1.96 pt"
    assert quantity(0.0123) == "0.012 pt"
    assert quantity(0.0, "raw") == "0.00"
    assert quantity(-0.0, "raw") == "0.00"
    assert quantity(-0.25, "nats") == "-0.25 nats"


def test_not_comparable_wins_and_nothing_is_called_no_difference():
    kind, sentence = verdict("B", 2.0, (1.0, 3.0), p_adj=0.01, n_personas=50, not_comparable="example sets differ")
    assert (kind, sentence) == ("not comparable", "not comparable (example sets differ)")
    assert verdict("B", 0.0, (-1.0, 1.0), p_adj=0.9, n_personas=50)[1] == "inconclusive"
    assert "99 % simultaneous" in verdict("B", 2.0, (1.0, 3.0), p_adj=0.001, n_personas=50, alpha=0.01)[1]
