"""The guard: unlike runs are refused with what differs; like ones are grouped by everything but the seed."""

from __future__ import annotations

import numpy as np
import pytest

from harness.compare.guard import (
    Family,
    NotComparableError,
    check_comparable,
    comparison_rows,
    families,
    persona_scores,
)
from harness.runs.stored import StoredRun

BASE = np.linspace(0.7, 0.9, 24)


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("protocol", "protocol"),
        ("examples", "example sets"),
        ("split", "splits"),
        ("backbone", "backbones"),
        ("scorer", "scorers"),
    ],
)
def test_fair_01_unlike_runs_are_refused_with_what_differs(tmp_path, stored, which, words):
    a = stored(tmp_path, "base", BASE)
    b = stored(tmp_path, "other", BASE, hashes={which: "f" * 64})
    with pytest.raises(NotComparableError, match=words):
        check_comparable(a, b)


def test_fair_01_the_refusal_counts_both_sides_replies(tmp_path, stored):
    a = stored(tmp_path, "base", BASE, n=30)
    b = stored(tmp_path, "other", BASE, n=10, hashes={"examples": "f" * 64})
    with pytest.raises(NotComparableError) as caught:
        comparison_rows(Family("base", (a,)), [Family("other", (b,))])
    assert "720 replies" in str(caught.value)
    assert "240" in str(caught.value)


def test_fair_24_an_unfinished_run_is_refused(tmp_path, stored):
    a, b = stored(tmp_path, "base", BASE), stored(tmp_path, "other", BASE, status="incomplete")
    with pytest.raises(NotComparableError, match="incomplete"):
        check_comparable(a, b)
    assert [f.name for f in families([a, b])] == ["base"]


def test_fair_25_a_control_is_a_row_of_its_own(tmp_path, stored):
    a, b = stored(tmp_path, "m", BASE), stored(tmp_path, "m", BASE, control="global")
    assert [f.name for f in families([a, b])] == ["m", "m (control: global)"]
    assert b.record.row_name == "m (control: global)"


def test_seeds_of_one_configuration_are_one_family(tmp_path, stored):
    runs = [stored(tmp_path, "m", BASE + 0.001 * seed, seed=seed) for seed in (2, 0, 1)]
    (family,) = families(runs)
    assert [run.record.seed for run in family.runs] == [0, 1, 2]
    assert persona_scores(family, "similarity").sums.shape == (3, 24)


def test_rows_carry_delta_interval_and_verdict_in_points(tmp_path, stored):
    noise = np.random.default_rng(0).normal(0, 0.01, len(BASE))
    a, b = stored(tmp_path, "base", BASE), stored(tmp_path, "better", BASE + 0.03 + noise)
    own, (row,) = comparison_rows(Family("base", (a,)), [Family("better", (b,))])
    assert own.score_micro_pts == pytest.approx(80)
    assert row.delta_pts == pytest.approx(100 * (0.03 + noise.mean()))
    assert row.verdict.startswith("better than base by ")
    assert row.p_adj is not None
    assert row.p_adj < 0.05


def test_a_metric_that_was_not_scored_is_named(tmp_path, stored):
    with pytest.raises(NotComparableError, match="has no metric 'rouge'; it has similarity"):
        persona_scores(Family("m", (stored(tmp_path, "m", BASE),)), "rouge")


def test_a_margin_counts_when_every_run_stated_it_before(tmp_path, stored):
    noise = np.random.default_rng(0).normal(0, 0.001, len(BASE))
    base = Family("base", (stored(tmp_path, "base", BASE),))

    def family(name, margin):
        run = stored(tmp_path, name, BASE + noise)
        config = run.record.config.model_copy(update={"margin": margin})
        return Family(name, (StoredRun(run.path, run.record.amended(config=config)),))

    _, (row,) = comparison_rows(base, [family("same", 1.0)])
    assert (row.equivalent, row.equivalence_margin_pts) == (True, pytest.approx(1.0))
    assert "equivalent within +-1 pt" in row.verdict
    for others in ([family("same", None)], [family("same", 1.0), family("other", 2.0)]):
        assert all(row.equivalence_margin_pts is None for row in comparison_rows(base, others)[1])
    _, (afterwards,) = comparison_rows(base, [family("same", 1.0)], margin=0.02)
    assert afterwards.equivalence_margin_pts == pytest.approx(2.0)
