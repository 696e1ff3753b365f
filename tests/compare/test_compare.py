"""`harness compare`: names -> families, unlike runs refused, figures in points; `show`, `diff`, `power`."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet
import pytest
from scipy import stats

from harness.compare.guard import NotComparableError, families, persona_scores
from harness.compare.joint_tables import as_json, joint
from harness.compare.planning import Spread, plan, spread_of
from harness.compare.run_view import diff, view
from harness.compare.selection import select
from harness.errors import HarnessError, StoreError
from harness.runs.record import EmptyReplies, StillLearning
from harness.runs.stored import all_runs, write_run
from harness.statistics.power import mde
from harness.store.disk import Store

RNG = np.random.default_rng(3)
BASE = np.linspace(0.7, 0.9, 24)
GOOD = BASE + 0.03 + RNG.normal(0, 0.01, 24)
BAD = BASE - 0.03 + RNG.normal(0, 0.01, 24)
PROMISED = {"delta_pts", "se", "df", "ci95", "sim_ci", "p_raw", "p_adj", "verdict", "flags"}


@pytest.fixture
def runs(put, tmp_path):
    put("base", BASE)
    put("good", GOOD)
    put("bad", BAD)
    return tmp_path / "runs"


def compare(harness, runs, *arguments):
    code, out, err = harness("compare", "--runs-dir", runs, "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize(
    "changes",
    [
        {"hardware": {"processor": "another", "cores": 2}},
        {"numerics": {"threads": "4", "dtype": "float32"}},
        {"numerics": {"threads": "2", "dtype": "float32", "device": "cuda"}},
    ],
)
def test_what_rounds_otherwise_is_compared_and_flagged(harness, put, tmp_path, changes):
    put("base", BASE)
    put("good", GOOD)
    put("bad", BAD, **changes)
    good, bad = compare(harness, tmp_path / "runs", "--baseline", "base", "good", "bad")["methods"]
    assert "not-computed-alike" not in good["flags"]
    assert "not-computed-alike" in bad["flags"]
    assert bad["verdict"].startswith("worse than base by")


@pytest.mark.parametrize("which", ["base", "good"])
def test_a_baseline_that_was_still_learning_flags_every_comparison_with_it(harness, put, tmp_path, which):
    for name, scores in (("base", BASE), ("good", GOOD), ("bad", BAD)):
        put(name, scores, flags=[StillLearning(fall=0.013)] * (name == which))
    good, bad = compare(harness, tmp_path / "runs", "--baseline", "base", "good", "bad")["methods"]
    for row in (good, bad):
        assert ("baseline-still-learning" in row["flags"]) == (which == "base")
    assert ("still learning (1.3% less loss in the last epoch)" in good["flags"]) == (which == "good")


def test_all_methods_are_tested_jointly_and_in_points(harness, runs):
    found = compare(harness, runs, "--baseline", "base", "good", "bad")
    assert [row["method"] for row in found["methods"]] == ["good", "bad"]
    good, bad = found["methods"]
    assert set(good) >= PROMISED
    assert good["delta_pts"] == pytest.approx(100 * (GOOD - BASE).mean())
    assert good["se"] == pytest.approx(100 * (GOOD - BASE).std(ddof=1) / np.sqrt(24))
    assert good["df"] == 23
    assert good["verdict"].startswith("better than base by")
    assert bad["verdict"].startswith("worse than base by")
    assert good["comparison"]["family_size"] == 2
    alone = compare(harness, runs, "base", "good")["methods"][0]
    assert alone["comparison"]["family_size"] == 1
    assert alone["delta_pts"] == good["delta_pts"]
    assert alone["sim_ci"][1] < good["sim_ci"][1], "two methods at once pay for being two"


def test_the_table_says_what_the_json_says(harness, runs):
    code, out, _ = harness("compare", "base", "good", "--runs-dir", runs)
    assert code == 0
    assert f"+{100 * (GOOD - BASE).mean():.2f}" in out
    assert "good: better than base" in out
    assert "24 personas, 240 replies; micro: mean over replies" in out


def test_macro_weighs_personas_alike_and_says_that_the_reference_is_left_out(put, tmp_path, harness, changed_sums):
    reference = {"score": 82.14, "aggregation": "micro", "source": "s", "se": None, "note": ""}
    for name, scores in (("base", BASE), ("good", GOOD)):
        with changed_sums(put(name, scores, reference=reference)) as sums:
            entry = sums["metrics"]["similarity"]
            n = list(range(1, 25))  # unequal numbers of replies: micro and macro part
            sums["replies"], entry["n"], entry["sum"] = n, n, [float(s * k) for s, k in zip(scores, n, strict=True)]
    micro = compare(harness, tmp_path / "runs", "base", "good")
    macro = compare(harness, tmp_path / "runs", "base", "good", "--estimand", "macro")
    assert macro["methods"][0]["delta_pts"] == pytest.approx(100 * (GOOD - BASE).mean())
    assert micro["methods"][0]["delta_pts"] == pytest.approx(100 * np.average(GOOD - BASE, weights=range(1, 25)))
    assert micro["baseline"]["reference"]["score_pts"] == 82.14
    assert macro["baseline"]["reference"] is None
    assert "82.14 is a micro mean" in macro["notes"][0]


def test_a_published_score_is_tested_with_and_without_its_own_error_and_never_without_the_caveat(
    put, tmp_path, harness
):
    reference = {"score": 79.0, "aggregation": "micro", "source": "s", "se": 3.0, "note": ""}
    for name, scores in (("base", BASE), ("good", GOOD)):
        put(name, scores, reference=reference)
    found = compare(harness, tmp_path / "runs", "base", "good")["methods"][0]["comparison"]["reference"]
    mean, se = 100 * GOOD.mean(), 100 * GOOD.std(ddof=1) / np.sqrt(24)
    for key, error in (("p", se), ("p_with_se", np.hypot(se, 3.0))):
        assert found[key] == pytest.approx(2 * stats.t.sf(abs(mean - 79) / error, 23))
    code, out, _ = harness("compare", "base", "good", "--runs-dir", tmp_path / "runs")
    assert code == 0
    assert (
        f"good {mean - 79:+.2f} (p {found['p']:.3f}, including the published standard error {found['p_with_se']:.3f})"
        in out
    )
    assert "so it is not evidence of beating the published system" in out


def test_a_margin_is_in_points_and_noted(harness, runs, put):
    put("same", BASE + RNG.normal(0, 0.002, 24))
    (row,) = compare(harness, runs, "base", "same", "--margin", "1")["methods"]
    assert row["verdict"].startswith("equivalent within +-1 pt")
    assert row["comparison"]["equivalence_margin_pts"] == pytest.approx(1)
    assert compare(harness, runs, "base", "same", "--margin", "0.001")["methods"][0]["verdict_kind"] == "inconclusive"
    assert harness("compare", "base", "same", "--margin", "-1", "--runs-dir", runs)[0] == 2


def test_seeds_of_a_method_are_one_family(put, tmp_path, harness):
    for seed in range(3):
        put("base", BASE + 0.001 * seed, seed=seed)
        put("good", GOOD - 0.001 * seed, seed=seed)
    found = compare(harness, tmp_path / "runs", "base", "good")
    assert found["methods"][0]["seeds"] == [0, 1, 2]
    assert found["methods"][0]["delta_pts"] == pytest.approx(100 * ((GOOD - BASE).mean() - 0.002))
    assert "conditional on one training seed" not in found["methods"][0]["verdict"]
    one = compare(harness, tmp_path / "runs", "base-x-0", "good-x-1")
    assert one["methods"][0]["seeds"] == [1]
    two = compare(harness, tmp_path / "runs", "base", "good-x-0,good-x-2")
    assert two["methods"][0]["runs"] == ["good-x-0", "good-x-2"]


def test_an_ambiguous_name_is_refused_with_what_differs(put, tmp_path, harness):
    put("base", BASE)
    put("good", GOOD, id="good-a", method_options={"tokens": 10})
    put("good", GOOD, id="good-b", method_options={"tokens": 20})
    code, out, err = harness("compare", "base", "good", "--runs-dir", tmp_path / "runs")
    assert (code, out) == (2, "")
    assert "good-a: option.tokens 10" in err
    assert "good-b: option.tokens 20" in err
    assert compare(harness, tmp_path / "runs", "base", "good-b")["methods"][0]["runs"] == ["good-b"]
    with pytest.raises(StoreError, match="differ in more than the seed"):
        select(all_runs(tmp_path / "runs"), "good-a,good-b")


def test_controls_have_a_name_of_their_own(put, tmp_path):
    put("good", GOOD)
    put("good", BAD, control="swapped")
    known = all_runs(tmp_path / "runs")
    assert select(known, "good").first.id == "good-x-0"
    assert select(known, "good-swapped").first.id == "good-swapped-0"
    assert select(known, "good (control: swapped)").first.id == "good-swapped-0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["base", "god"], "did you mean 'good'?"),
        (["base"], "at least one more stored method; stored beside base: bad, good"),
        (["--baseline", "base"], "at least one more stored method"),
        ([], "nothing to compare: name a baseline"),
        (["base", "base"], "the same run"),
        (["base", "good", "--metric", "simlarity"], "did you mean 'similarity'?"),
        (["base", "half"], "killed"),
        (["base", "good", "--estimand", "median"], "median"),
        (["base", "good", "--runs-dir", "no_such_folder"], "no_such_folder"),
    ],
)
def test_mistakes_get_a_helpful_line(harness, runs, put, arguments, words):
    put("half", BASE, status="failed", error="killed")
    code, out, err = harness("compare", "--runs-dir", runs, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_unlike_runs_are_refused_with_all_that_differs(put, tmp_path, harness):
    put("base", BASE)
    protocol = {"system": "", "turns": "last"}
    put("good", GOOD, n=4, protocol=protocol, hashes={"examples": "f" * 64, "protocol": "0" * 64})
    code, _, err = harness("compare", "base", "good", "--runs-dir", tmp_path / "runs")
    assert code == 2
    for words in (
        "turns 'all' and 'last'",
        "base has 240 replies of 24 personas, good 96 replies of 24 personas",
        "96 examples in both, 144 only in base, 0 only in good",
    ):
        assert words in err


def test_a_rows_name_may_hold_commas(put, tmp_path, harness):
    """The names that tables show and that refusals suggest can be given back."""
    put("base", BASE)
    put("good", GOOD, changed={"below": {"rank": 4, "train.epochs": 2}})
    put("good", BAD, id="plain")
    name = "good (below.rank=4, below.train.epochs=2)"
    assert select(all_runs(tmp_path / "runs"), name).first.id == "good-x-0"
    code, out, err = harness("compare", "base", name, "--runs-dir", tmp_path / "runs")
    assert code == 0, err
    assert f"{name}: better than base" in out


def test_two_runs_of_one_method_are_told_apart_by_their_ids(put, tmp_path, harness):
    put("m", BASE, id="m-one")
    put("m", GOOD, id="m-two", n=4, hashes={"examples": "f" * 64})
    for command in ("compare", "diff"):
        code, _, err = harness(command, "m-one", "m-two", "--runs-dir", tmp_path / "runs")
        assert code == 2
        assert "not comparable: m-one and m-two: example sets differ" in err
        assert "m-one has 240 replies of 24 personas, m-two 96 replies" in err
        assert "144 only in m-one" in err


def test_one_label_with_other_replies_is_refused(put, tmp_path):
    put("base", BASE)
    put("good", GOOD, n=8)
    with pytest.raises(NotComparableError, match=r"24 personas have other numbers of replies \(p000: 10 and 8\)"):
        joint(all_runs(tmp_path / "runs"), "base", ["good"])


def test_unequal_tuning_is_flagged(put, tmp_path):
    put("base", BASE, trials=1)
    put("good", GOOD, trials=9, flags=[EmptyReplies(share=0.07)])
    (row,) = as_json(joint(all_runs(tmp_path / "runs"), "base", ["good"]))["methods"]
    assert "tuned with 9 trials, the baseline with 1" in row["flags"]
    assert "7% empty replies" in row["flags"]


def test_clusters_are_shown_behind_a_test_of_whether_they_differ(put, tmp_path, harness):
    put("base", BASE)
    put("even", BASE + np.where(np.arange(24) % 2, 0.0, 0.05) + RNG.normal(0, 0.01, 24))
    put("flat", GOOD)
    found = compare(harness, tmp_path / "runs", "base", "even", "flat", "--clusters")
    even, flat = (row["clusters"] for row in found["methods"])
    assert even["heterogeneity_p"] < 0.05
    assert [row["cluster"] for row in even["rows"]] == ["0", "1"]
    assert even["rows"][0]["sim_ci"][0] > 0
    assert flat["heterogeneity_p"] > 0.05
    assert [row["sim_ci"] for row in flat["rows"]] == [None, None]


def test_a_pooled_metric_is_compared_by_the_jackknife(put, tmp_path, changed_sums):
    counts = {}
    for name, errors in (("base", 6), ("good", 2)):
        run = put(name, BASE, metrics=["similarity", "device_f1"])
        rng = np.random.default_rng(errors)
        table = np.stack([rng.integers(20, 40, 24), rng.poisson(errors, 24), rng.poisson(errors, 24)], 1)
        columns = dict(zip(("device_tp", "device_fp", "device_fn"), table.T.tolist(), strict=True))
        with changed_sums(run) as sums:
            sums["metrics"]["device_f1"] = {"unit": "pt", "higher_is_better": True, "counts": columns}
        counts[name] = table.astype(float)
    (row,) = as_json(joint(all_runs(tmp_path / "runs"), "base", ["good"], metric="device_f1"))["methods"]

    def f1(c):
        return 2 * c[..., 0] / (2 * c[..., 0] + c[..., 1] + c[..., 2])

    known = all_runs(tmp_path / "runs")
    groups = joint(known, "base", ["good"], metric="device_f1", by_cluster=True).clusters["good"].rows
    assert [(g.n_personas, g.n_replies) for g in groups] == [(12, 120), (12, 120)], "replies, not values"
    good, base = counts["good"], counts["base"]
    assert row["delta_pts"] == pytest.approx(100 * (f1(good.sum(0)) - f1(base.sum(0))))
    left_out = f1(good.sum(0) - good) - f1(base.sum(0) - base)
    assert row["se"] == pytest.approx(100 * np.sqrt(23) * np.std(left_out))  # a persona leaves both at once


def test_seeds_whose_personas_stand_in_another_order_are_matched_by_name(put, tmp_path, changed_sums):
    put("m", BASE)
    other = put("m", BASE + 0.01, seed=1)
    with changed_sums(other) as sums:
        for values in (sums["personas"], sums["metrics"]["similarity"]["sum"]):
            values.reverse()
    (family,) = families(all_runs(tmp_path / "runs"))
    scores = persona_scores(family, "similarity")
    assert scores.sums[1] - scores.sums[0] == pytest.approx(np.full(24, 0.1))


# ---- show and diff ----


def noisy(spread: float, noise: float, n: int = 10) -> np.ndarray:
    rng = np.random.default_rng(8)
    return 0.7 + spread * rng.standard_normal((60, 1)) + noise * rng.standard_normal((60, n))


def test_show_ranks_by_shrunken_estimates_with_intervals(put, harness, tmp_path):
    run = put("m", noisy(0.05, 0.2))
    seen = view(run)
    assert seen.spread == pytest.approx(5, abs=2)
    assert seen.noise == pytest.approx(100 * 0.2 / np.sqrt(10), rel=0.2)
    estimates = [row.estimate for row in seen.personas if row.estimate is not None]
    assert len(estimates) == 60
    assert estimates == sorted(estimates, reverse=True)
    assert np.std(estimates) < 0.8 * np.std([row.mean for row in seen.personas])
    assert all((row.low or 0) < (row.estimate or 0) < (row.high or 0) for row in seen.personas)
    assert [(c.cluster, c.n_personas) for c in seen.clusters] == [("0", 30), ("1", 30)]
    code, out, _ = harness("show", run.id, "--runs-dir", tmp_path / "runs", "--top", "2", "--samples", "2")
    assert code == 0
    assert "the best 2 and the worst 2 of 60 personas" in out
    assert seen.personas[0].persona in out
    assert seen.personas[30].persona not in out.split("replies:")[0].split("worst 2")[1]
    shown = json.loads(harness("show", run.id, "--runs-dir", tmp_path / "runs", "--json")[1])
    assert shown["id"] == run.id
    assert len(shown["view"]["personas"]) == 60
    assert len({sample["persona"] for sample in shown["samples"]}) == 5
    everything = json.loads(harness("show", run.id, "--runs-dir", tmp_path / "runs", "--samples", "10000", "--json")[1])
    assert len({sample["id"] for sample in everything["samples"]}) == run.record.n_replies


def test_show_names_nobody_best_where_all_spread_is_noise(put):
    scores = noisy(0.0, 0.2)
    seen = view(put("m", scores - scores.mean(1, keepdims=True) + 0.7))
    assert seen.spread == 0
    assert "no persona can be called better or worse" in seen.notes[0]


def test_show_knows_costs_that_a_method_does_not_have(put, harness, tmp_path):
    run = put("m", noisy(0.05, 0.2), cost={"trainable_parameters": 0, "fit_seconds": 1234.5, "validation_loss": None})
    code, out, err = harness("show", run.id, "--runs-dir", tmp_path / "runs")
    assert code == 0, err
    costs = dict(line.split() for line in out.splitlines() if line.startswith(("fit_seconds", "validation_loss")))
    assert costs == {"fit_seconds": "1,234.5", "validation_loss": "-"}


def test_show_says_that_a_folder_is_missing_not_empty(harness, tmp_path):
    code, out, err = harness("show", "m", "--runs-dir", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "there is no runs folder" in err
    (tmp_path / "empty").mkdir()
    code, out, err = harness("show", "nothing", "--runs-dir", tmp_path / "empty")
    assert (code, out) == (2, "")
    assert "no run 'nothing'" in err


def test_nats_keep_three_digits(put, tmp_path, harness, changed_sums):
    for name, shift in (("base", 0.0), ("good", -0.0123)):
        with changed_sums(put(name, BASE, metrics=["nll"])) as sums:
            sums["metrics"] = {"nll": {**sums["metrics"]["similarity"], "unit": "nats", "higher_is_better": False}}
            sums["metrics"]["nll"]["sum"] = [10 * (s + shift * (1 + 0.1 * (i % 3))) for i, s in enumerate(BASE)]
    code, out, err = harness("compare", "base", "good", "--runs-dir", tmp_path / "runs")
    assert code == 0, err
    assert "-0.014" in out.splitlines()[2]
    assert "good: better than base by 0.014 nats" in out


def test_few_personas_are_described_only(put):
    seen = view(put("m", noisy(0.05, 0.2)[:5]))
    assert all(row.estimate is None for row in seen.personas)
    assert all(cluster.ci95 is None for cluster in seen.clusters)
    assert "too few" in seen.notes[0]


def test_diff_shows_where_two_runs_differ_most(put, harness, tmp_path):
    a = noisy(0.05, 0.1)
    b = a.copy()
    b[7, 3] += 0.5
    b[9, 0] -= 0.3
    put("a", a)
    put("b", b)
    found = json.loads(harness("diff", "a", "b", "--runs-dir", tmp_path / "runs", "--top", "2", "--json")[1])
    assert [(x["id"], round(x["delta"])) for x in found["examples"]] == [("p007/d1#1", 50), ("p009/d0#0", -30)]
    assert (found["higher"], found["lower"], found["equal"], found["same_replies"]) == (1, 1, 598, 598)
    code, out, _ = harness("diff", "a", "b", "--runs-dir", tmp_path / "runs")
    assert code == 0
    assert out.count("p0") == 4, "examples that do not differ are not shown"
    put("c", b, hashes={"examples": "f" * 64})
    code, _, err = harness("diff", "a", "c", "--runs-dir", tmp_path / "runs")
    assert code == 2
    assert "example sets differ" in err


def with_replies(run, table):
    """The run again with another replies.parquet, None: with none."""

    def fill(folder):
        if table is not None:
            pyarrow.parquet.write_table(table, folder / "replies.parquet")

    return write_run(Store(run.path.parent), run.record, fill)


def test_diff_needs_the_same_examples(put):
    a, b = put("a", noisy(0.05, 0.1)), put("b", noisy(0.05, 0.1))
    b = with_replies(b, pyarrow.parquet.read_table(b.path / "replies.parquet").slice(1))
    with pytest.raises(NotComparableError, match="has no example 'p000/d0#0'"):
        diff(a, b)
    with pytest.raises(HarnessError, match="no metric 'nll'"):
        diff(a, b, "nll")


def test_show_and_diff_print_what_was_asked_and_the_reply_that_the_person_got(put, tmp_path, harness):
    a = noisy(0.05, 0.1)
    b = a.copy()
    b[7, 3] += 0.5
    put("a", a, texts=("dim \x1b[31m it", "done, 30 %", "said"))
    put("b", b, texts=("dim \x1b[31m it", "done, 30 %", "said"))
    code, out, _ = harness("diff", "a", "b", "--runs-dir", tmp_path / "runs")
    assert code == 0
    shown = out.partition("p007/d1#1")[2].splitlines()[1:5]
    heads = [line.split(":")[0].strip() for line in shown]
    assert heads == ["prompt", "reference", f"a-x-0 ({100 * a[7, 3]:.2f})", f"b-x-0 ({100 * b[7, 3]:.2f})"]
    assert shown[0].endswith("user: dim \\x1b[31m it 3"), "nothing moves the cursor"
    assert shown[1].endswith("done, 30 % 3")
    assert shown[3].endswith(f"said {b[7, 3]:.3f}")
    found = json.loads(harness("diff", "a", "b", "--runs-dir", tmp_path / "runs", "--json")[1])["examples"][0]
    assert (found["prompt"], found["reference"]) == ("user: dim \x1b[31m it 3", "done, 30 % 3")
    code, out, _ = harness("show", "a", "--runs-dir", tmp_path / "runs", "--samples", "2")
    assert code == 0
    assert out.count("reference: done, 30 %") == 2
    assert "\x1b" not in out


def test_diff_says_how_many_examples_have_no_value(put, tmp_path, harness):
    a = noisy(0.05, 0.1)
    b = a + 0.1
    run = put("a", a)
    put("b", b)
    table = pyarrow.parquet.read_table(run.path / "replies.parquet")
    scores = [None if i < 3 else score for i, score in enumerate(table["score_similarity"].to_pylist())]
    place = table.column_names.index("score_similarity")
    with_replies(run, table.set_column(place, "score_similarity", [scores]))
    code, out, _ = harness("diff", "a", "b", "--runs-dir", tmp_path / "runs")
    assert code == 0
    assert "on 597 examples" in out
    assert "3 further examples are left out: similarity is undefined in one of the runs" in out
    found = json.loads(harness("diff", "a", "b", "--runs-dir", tmp_path / "runs", "--json")[1])
    assert (found["n"], found["undefined"]) == (597, 3)


# ---- power ----


def test_power_from_stored_runs_splits_spread_and_noise(put, tmp_path, harness):
    rng = np.random.default_rng(2)
    a = 0.7 + 0.2 * rng.standard_normal((200, 10))
    b = a + 0.04 * rng.standard_normal((200, 1)) + 0.1 * rng.standard_normal((200, 10))
    put("a", a)
    put("b", b)
    spread, unit = spread_of(all_runs(tmp_path / "runs"), "b", "a")
    assert unit == "pt"
    assert spread.sd == pytest.approx(100 * (b - a).mean(1).std(ddof=1))
    assert spread.true_sd == pytest.approx(4, rel=0.2)
    assert spread.reply_sd == pytest.approx(10, rel=0.1)
    assert spread.with_replies(1000).sd == pytest.approx(spread.true_sd, rel=0.01)
    arguments = ["power", "--method", "b", "--baseline", "a", "--runs-dir", tmp_path / "runs", "--difference", "1"]
    found = json.loads(harness(*arguments, "--json")[1])
    assert found["personas"] == 200
    assert found["mde"] == pytest.approx(mde(spread.sd / np.sqrt(200), 199))
    more = json.loads(harness(*arguments, "--replies", "40", "--json")[1])
    assert more["personas_needed"] < found["personas_needed"]


def test_power_plans_for_the_estimand(put, tmp_path, harness, changed_sums):
    for name, scores in (("a", BASE), ("b", GOOD)):
        run = with_replies(put(name, scores), None)
        with changed_sums(run) as sums:
            n = list(range(1, 25))
            entry = sums["metrics"]["similarity"]
            sums["replies"], entry["n"], entry["sum"] = n, n, [float(s * k) for s, k in zip(scores, n, strict=True)]
    arguments = ["power", "--method", "b", "--baseline", "a", "--runs-dir", tmp_path / "runs", "--json", "--estimand"]
    macro, micro = (json.loads(harness(*arguments, kind)[1])["spread"]["sd"] for kind in ("macro", "micro"))
    assert macro == pytest.approx(100 * (GOOD - BASE).std(ddof=1))
    assert micro != pytest.approx(macro, rel=0.01)


def test_power_from_a_stated_spread():
    found = plan(Spread(3.0), personas=50, difference=1.0)
    assert found.mde == pytest.approx(mde(3 / np.sqrt(50), 49))
    assert found.power_at is not None
    assert found.power_at < 0.8
    enough = plan(Spread(3.0), personas=found.personas_needed, difference=1.0)
    assert (enough.power_at or 0) >= 0.8
    assert (plan(Spread(3.0), personas=50, family_size=8).mde or 0) > (found.mde or 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--sd"),
        (["--sd", "3"], "nothing to plan"),
        (["--sd", "3", "--personas", "5"], "no verdict"),
        (["--sd", "-3", "--personas", "50"], "--sd must be a positive"),
        (["--sd", "3", "--reply-sd", "20", "--personas", "50"], "--replies"),
        (["--sd", "3", "--personas", "50", "--power", "1"], "--power"),
        (["--sd", "3", "--method", "m", "--personas", "50"], "not both"),
        (["--method", "m", "--baseline", "b", "--reply-sd", "20"], "--reply-sd goes with --sd"),
    ],
)
def test_plans_that_make_no_sense(harness, arguments, words):
    code, out, err = harness("power", *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_runs_that_are_named_by_their_ids_are_the_only_ones_that_are_read(put, harness, tmp_path, monkeypatch):
    import harness.runs.stored as stored

    for seed in range(2):
        put("base", BASE + seed / 100, seed=seed, id=f"base-x-{seed}-end")
        put("good", GOOD + seed / 100, seed=seed, id=f"good-x-{seed}-end")
    put("base", BASE, id="base-y-0", method_options={"rank": 2})
    read = []
    head = stored.parse_head
    monkeypatch.setattr(stored, "parse_head", lambda text, path: read.append(path.parent.name) or head(text, path))
    ids = ["base-x-0-end,base-x-1-end", "good-x-0-end, good-x-1-end"]
    few = compare(harness, tmp_path / "runs", *ids)
    assert sorted(read) == [f"{name}-x-{seed}-end" for name in ("base", "good") for seed in range(2)]
    by_beginnings = compare(harness, tmp_path / "runs", *(name.replace("-end", "") for name in ids))
    assert by_beginnings == few
    assert "base-y-0" in read
