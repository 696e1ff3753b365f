"""`harness import`: scores made elsewhere are read strictly, kept apart by label, and never taken for a run."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from harness.compare.guard import NotComparableError, check_comparable
from harness.compare.joint_tables import joint
from harness.compare.run_view import view
from harness.errors import DataError, StoreError
from harness.leaderboard import board_of, publish_records, published, render, rows_as_json
from harness.runs.importing import Source, import_scores
from harness.runs.score_file import read_scores
from harness.runs.stored import all_runs
from harness.store.disk import Store

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "published"
HEAD = "persona,n,score\n"


def load(folder: Path, text: str, method: str = "m", label: str = "all", name: str = "", **changes):
    path = folder / (name or f"{method}.csv")
    path.write_text(text, encoding="utf-8")
    metric = changes.pop("metric", "similarity")
    source = Source(path, method, "toy", metric, label, **{"baseline": "base", **changes})
    return import_scores(source, Store(folder / "runs"))


def personas(scale: float = 1.0, shift: float = 0.0, n: int = 10) -> str:
    rows = [f"p{i:02d},{n},{scale * (0.5 + 0.01 * i + shift * (1 + 0.1 * (i % 3)))}" for i in range(12)]
    return HEAD + "\n".join(rows) + "\n"


def test_both_forms_and_both_formats_give_the_same_sums(tmp_path):
    per_persona = read_scores(Path("x"), b"persona,n,score\na,2,0.5\nb,1,0.2\n", "share")
    per_reply = read_scores(Path("x"), b"persona,example,score\na,1,0.4\na,2,0.6\nb,1,0.2\n", "share")
    lines = '{"persona":"a","n":2,"score":50}\n{"persona":"b","n":1,"score":20}\n'
    as_json = read_scores(Path("x"), b"\xef\xbb\xbf" + lines.encode(), "pt")

    def total(found):
        return [f(x for x in found if x.persona == p) for p in "ab" for f in (count, summed)]

    def count(lines):
        return sum(x.n for x in lines)

    def summed(lines):
        return sum(x.n * x.score for x in lines)

    assert total(per_reply) == pytest.approx(total(per_persona))
    assert total(as_json) == pytest.approx(total(per_persona))


def test_an_import_is_a_run_without_adapters_that_list_and_show_know(tmp_path, harness):
    run, new = load(tmp_path, personas())
    assert new
    assert run.record.imported is not None
    assert len(run.record.imported.sha256) == 64
    assert not (run.path / "adapters").exists()
    again, new = load(tmp_path, personas())
    assert (again.id, new) == (run.id, False)
    code, out, _ = harness("list", "runs", "--runs-dir", tmp_path / "runs", "--json")
    assert code == 0
    assert json.loads(out)[0]["replies"] == 120
    code, out, err = harness("show", run.id, "--runs-dir", tmp_path / "runs")
    assert code == 0, err
    assert "imported from m.csv" in out


def test_imports_are_compared_with_imports_of_the_same_label_only(tmp_path, stored):
    load(tmp_path, personas(), "base")
    good, _ = load(tmp_path, personas(shift=0.05), "good")
    other, _ = load(tmp_path, personas(), "other", label="last turn")
    known = all_runs(tmp_path / "runs")
    assert joint(known, "base", ["good"]).rows[0].verdict_kind == "better"
    with pytest.raises(NotComparableError, match=r"'all' .* and 'last turn'"):
        joint(known, "base", ["other"])
    made = stored(tmp_path, "made", [0.5] * 12, benchmark={"name": "toy", "options": {}, "facts": {}, "sha256": ""})
    for pair in ((good, made), (made, good)):
        with pytest.raises(NotComparableError, match="imports of the same label only"):
            check_comparable(*pair)
    with pytest.raises(NotComparableError):
        check_comparable(good, other)


def test_a_second_file_under_the_same_name_is_refused_and_another_seed_is_not(tmp_path):
    load(tmp_path, personas())
    with pytest.raises(StoreError, match="choose another --seed or --method"):
        load(tmp_path, personas(shift=0.01))
    second, _ = load(tmp_path, personas(shift=0.01), seed=1)
    assert second.record.seed == 1
    assert len(all_runs(tmp_path / "runs")) == 2


def test_all_faults_of_a_file_are_named_with_their_lines(tmp_path):
    text = HEAD + "a,10,0.5\nb,0,0.5\nc,3,nan\nd,3,82.1\ne,2.5,0.1\na,10,0.4\n,1,0.5\nf,3\ng,3,abc\n"
    with pytest.raises(DataError) as caught:
        load(tmp_path, text)
    found = str(caught.value).splitlines()
    path = tmp_path / "m.csv"
    for line, words in (
        (3, "'n' must be a whole number"),
        (4, "finite number, not 'nan'"),
        (5, "need --unit pt"),
        (6, "'n' must be a whole number"),
        (7, "persona 'a' was in line 2 already"),
        (8, "'persona' must be a name"),
        (9, "2 values for 3 columns"),
        (10, "not 'abc'"),
    ):
        assert any(x.startswith(f"{path}:{line}: ") and words in x for x in found), words
    assert len(found) == 8
    assert not list((tmp_path / "runs").glob("*/run.json"))


def test_the_head_of_a_csv_file_may_have_capitals(tmp_path):
    run, _ = load(tmp_path, "Persona,Example,SCORE,Comment\na,1,0.5,x\nb,1,0.25,y\n")
    assert run.record.scores == {run.record.metric: 0.375}
    with pytest.raises(DataError, match="the column 'score' stands there twice"):
        load(tmp_path, "persona,n,score,Score\na,1,0.5,0.5\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("persona,n,scor\na,1,1\n", "1: the column 'score' is missing; did you mean 'scor'?"),
        ("persona,score\na,1\n", "1: needs 'example'"),
        ("persona,n,example,score\na,1,1,1\n", "both are there"),
        ("persona,n,score\n", "no scores below its header"),
        ("", "empty"),
        ('{"persona":"a","n":1,"score":true}\n', "1: 'score' must be a finite number, not True"),
        ('{"persona":"a","n":1,"score":NaN}\n', "1: 'score' must be a finite number"),
        ('{"persona":"a","n":1,"score":1}\n{"persona":"b","example":"x","score":1}\n', "2: has 'example'"),
        ('{"persona":"a","n":1,"score":1}\n[1]\n{"n"\n', "2: holds no JSON object"),
        ("persona,example,score\na,1,1\na,1,1\n", "3: example '1' of persona 'a' was in line 2 already"),
        ('persona,n,score\n"a,1,1\n', "not CSV"),
        ("persona;n;score\na;1;1\n", "1: the columns are separated by semicolons"),
        ("persona\tn\tscore\na\t1\t1\n", "1: the columns are separated by tabs"),
        ('[{"persona":"a","n":1,"score":1}]', "is a JSON array; write JSON lines"),
        ('{"persona":"a","n":1,"score":1,"persona":"b"}\n', "1: not JSON: the key 'persona' stands there twice"),
        ("persona,n,score\na,1e300,1\n", "2: 'n' must be 1,000,000,000 replies or fewer"),
        ("persona,n,score\na,-3,1\n", "2: 'n' must be a whole number"),
        ('persona,n,score\n"a\nb",1,1\n', "cannot be printed"),
        ('{"persona":"a\\ud800","n":1,"score":1}\n', "1: 'persona' 'a\\ud800' holds characters that cannot be printed"),
        ('{"persona":"\\u001b[2J","n":1,"score":1}\n', "cannot be printed"),
    ],
)
def test_malformed_files(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        load(tmp_path, text)
    assert words in str(caught.value)
    assert str(tmp_path / "m.csv") in str(caught.value)


def test_a_packed_file_is_named_for_what_it_is(tmp_path):
    path = tmp_path / "m.csv.gz"
    path.write_bytes(gzip.compress(personas().encode()))
    with pytest.raises(DataError, match=r"m\.csv\.gz: is packed with gzip; unpack it"):
        import_scores(Source(path, "m", "toy", "similarity", "all"), Store(tmp_path / "runs"))


def test_shares_taken_for_points_are_pointed_out_and_points_are_not(tmp_path, harness):
    for name, text in (("shares", personas()), ("points", personas(scale=100))):
        path = tmp_path / f"{name}.csv"
        path.write_text(text)
        flags = ["--method", name, "--benchmark", "toy", "--metric", "similarity", "--example-set", "all"]
        code, out, err = harness("import", path, *flags, "--unit", "pt", "--runs-dir", tmp_path / "runs", "--json")
        assert code == 0
        assert json.loads(out)["method"] == name
        assert ("--unit share" in err) == (name == "shares")


def test_one_label_on_other_replies_is_refused_with_both_counts(tmp_path):
    load(tmp_path, personas(), "base")
    load(tmp_path, personas(n=4), "short")
    load(tmp_path, personas().replace("p00", "q00"), "stranger")
    known = all_runs(tmp_path / "runs")
    for name, words in (("short", "12 personas have other numbers of replies"), ("stranger", "personas differ")):
        with pytest.raises(NotComparableError, match=words) as caught:
            joint(known, "base", [name])
        count = 120 if name == "stranger" else 48
        assert f"base has 120 replies of 12 personas, {name} {count} replies of 12 personas" in str(caught.value)


def replies(first: int = 0, shift: float = 0.0) -> str:
    rows = [
        f"p{i:02d},{k},{0.5 + 0.01 * i + 0.02 * (k % 3) + shift}" for i in range(12) for k in range(first, first + 5)
    ]
    return "persona,example,score\n" + "\n".join(rows) + "\n"


def test_one_label_on_other_examples_is_refused_though_their_numbers_agree(tmp_path, harness):
    load(tmp_path, replies(), "base")
    load(tmp_path, replies(shift=0.1), "alike")
    load(tmp_path, replies(first=2, shift=0.1), "other")
    means = "persona,n,score\n" + "".join(f"p{i:02d},5,0.6\n" for i in range(12))
    load(tmp_path, means, "means")
    known = all_runs(tmp_path / "runs")
    assert joint(known, "base", ["alike", "means"]).rows[0].delta_pts == pytest.approx(10)
    code, _, err = harness("compare", "base", "other", "--runs-dir", tmp_path / "runs")
    assert code == 2
    assert "'all' names other examples in each file; base has 60 replies of 12 personas, other 60 replies" in err
    assert "36 examples in both, 24 only in base, 24 only in other" in err
    rows = {row["method"]: row for row in rows_as_json(board_of(known))}
    assert "not comparable" in rows["other"]["verdict"]
    assert "better than base" in rows["alike"]["verdict"]


def test_seeds_on_other_examples_are_no_seeds_of_one_row(tmp_path):
    load(tmp_path, replies(), "base")
    load(tmp_path, replies(first=2), "base", seed=1)
    with pytest.raises(StoreError, match="'base' means 2 different things"):
        joint(all_runs(tmp_path / "runs"), "base", ["base"])


def test_the_metric_says_which_import_of_a_method_is_meant(tmp_path, harness):
    for metric in ("similarity", "exact_match"):
        load(tmp_path, personas(), "base", metric=metric)
        load(tmp_path, personas(shift=0.05), "good", metric=metric)
    code, out, _ = harness("compare", "--runs-dir", tmp_path / "runs", "--baseline", "base", "good",
                           "--metric", "exact_match", "--estimand", "macro", "--json")  # fmt: skip
    assert (code, json.loads(out)["metric"]) == (0, "exact_match")
    code, _, err = harness("compare", "--runs-dir", tmp_path / "runs", "base", "good")
    assert code == 2
    assert "means 2 different things" in err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": "simlarity"}, "did you mean 'similarity'?"),
        ({"metric": "simlarity"}, "give --unit, and --higher-is-better or --lower-is-better"),
        ({"metric": "simlarity", "unit": "pt"}, "give --unit, and --higher-is-better or --lower-is-better"),
        ({"metric": "simlarity", "higher-is-better": None}, "did you mean 'similarity'?"),
        ({"metric": "my metric", "unit": "pt", "higher-is-better": None}, "--metric 'my metric': use letters"),
        ({"metric": "actions", "unit": "pt", "higher-is-better": None}, "is a group of metrics; import one of"),
        ({"lower-is-better": None}, "--lower-is-better does not fit similarity; use --higher-is-better or neither"),
        ({"metric": "mae", "higher-is-better": None}, "--higher-is-better does not fit mae; use --lower-is-better"),
        ({"metric": "device_f1"}, "counts over all replies"),
        ({"metric": "mae", "unit": "pt"}, "--unit pt does not fit mae"),
        ({"method": "../evil"}, "letters, digits"),
        ({"example-set": " "}, "label"),
        ({"seed": "-1"}, "--seed"),
    ],
)
def test_faults_of_the_command_line(tmp_path, harness, changes, words):
    path = tmp_path / "m.csv"
    path.write_text(personas())
    options = {"method": "m", "benchmark": "toy", "metric": "similarity", "example-set": "all", **changes}
    flags = [text for name, value in options.items() for text in (f"--{name}", value) if text is not None]
    code, out, err = harness("import", path, *flags, "--runs-dir", tmp_path / "runs")
    assert (code, out) == (2, "")
    assert words in err
    assert not (tmp_path / "runs").exists()


def give(harness, folder: Path, method: str, text: str, *flags: str) -> tuple[int, str, str]:
    """`harness import` of `politeness`, which no plugin brings; the lower the better, and not in points."""
    path = folder / f"{method}.csv"
    path.write_text(text)
    named = ("--method", method, "--benchmark", "toy", "--metric", "politeness", "--example-set", "all")
    flags = flags or ("--unit", "raw", "--lower-is-better")
    return harness("import", path, *named, *flags, "--baseline", "base", "--runs-dir", folder / "runs")


def test_scores_of_an_unknown_metric_are_compared_shown_and_ranked_by_its_unit_and_direction(tmp_path, harness):
    for method, shift in (("base", 0.0), ("low", -0.05), ("high", 0.05)):
        code, out, err = give(harness, tmp_path, method, personas(scale=10, shift=shift))
        assert code == 0, err
        assert "120 replies, politeness " in out
    runs = ("--runs-dir", tmp_path / "runs")
    code, out, err = harness("compare", "base", "low", "high", *runs, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["metric"], found["unit"], found["higher_is_better"]) == ("politeness", "raw", False)
    verdicts = [row["comparison"]["verdict_kind"] for row in found["methods"]]
    assert verdicts == ["better", "worse"]
    assert found["methods"][0]["comparison"]["delta_pts"] == pytest.approx(-0.55), "in its own unit, not x 100"
    (low,) = (path.name for path in (tmp_path / "runs").glob("low-*"))
    code, out, err = harness("show", low, *runs)
    assert code == 0, err
    best = out.index("p00"), out.index("p11")
    assert best[0] < best[1], "the persona with the lowest score is the best"
    board = render(board_of(all_runs(tmp_path / "runs")))
    assert "Decided by **politeness** in raw (lower is better): scores made elsewhere." in board
    places = [board.index(f"| {name} ") for name in ("low", "**base**", "high")]
    assert places == sorted(places)
    again = "harness import low.csv --method low --benchmark toy --metric politeness --example-set all"
    assert f"{again} --unit raw --lower-is-better" in board


def test_shares_of_an_unknown_metric_are_shown_in_points(tmp_path, harness):
    code, out, err = give(harness, tmp_path, "m", personas(), "--unit", "share", "--higher-is-better")
    assert (code, "politeness 55.50" in out) == (0, True), (out, err)
    metric = all_runs(tmp_path / "runs")[0].record.metric_sums("politeness")
    assert (metric.unit, metric.higher_is_better) == ("pt", True)


def test_imports_that_disagree_on_the_unit_or_direction_of_a_metric_are_not_compared(tmp_path, harness):
    give(harness, tmp_path, "base", personas())
    give(harness, tmp_path, "up", personas(), "--unit", "raw", "--higher-is-better")
    give(harness, tmp_path, "points", personas(), "--unit", "share", "--lower-is-better")
    code, _, err = give(harness, tmp_path, "base", personas(), "--unit", "raw", "--higher-is-better")
    assert (code, "or another unit or direction" in err) == (2, True)
    known = all_runs(tmp_path / "runs")
    for name, words in (("up", "higher_is_better False and True"), ("points", "unit 'raw' and 'pt'")):
        with pytest.raises(NotComparableError, match=words):
            joint(known, "base", [name])


def test_flags_that_agree_with_a_known_metric_change_nothing(tmp_path):
    plain, _ = load(tmp_path, personas())
    again, new = load(tmp_path, personas(), unit="share", higher_is_better=True)
    assert (again.id, new) == (plain.id, False)


def test_imports_have_rows_on_the_leaderboard_and_records(tmp_path):
    load(tmp_path, personas(), "base")
    load(tmp_path, personas(shift=0.05), "good")
    load(tmp_path, personas(n=4), "short", label="last turn")
    runs = all_runs(tmp_path / "runs")
    rows = {row["method"]: row for row in rows_as_json(board_of(runs))}
    assert rows["good"]["verdict"].startswith("better than base")
    assert rows["short"]["verdict"].startswith(
        "not comparable (no run of base on the same replies: example sets differ"
    )
    text = render(board_of(runs))
    assert "harness import good.csv --method good" in text
    assert "### Cost" not in text
    publish_records(runs, tmp_path / "records")
    assert render(board_of(published(tmp_path / "records"))) == text


# ---- the published study ----


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three published methods, imported. Skips aloud where the data are not beside the checkout."""
    if not PUBLISHED.is_dir():
        pytest.skip(f"the published scores are not at {PUBLISHED}")
    folder = tmp_path_factory.mktemp("published")
    for name, label in (
        ("unified", "from the third turn"),
        ("zero_shot", "from the third turn"),
        ("persona_lora", "last"),
    ):
        data = json.loads((PUBLISHED / f"{name}.json").read_text())
        if "per_persona_metrics" in data:
            rows = [(x["persona_id"], 10, x["embedding_similarity"]) for x in data["per_persona_metrics"]]
        else:
            rows = [(p, x["num_predictions"], x["metrics"]["embedding_similarity"]) for p, x in data.items()]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("persona", "n", "score"), *rows])
        source = Source(folder / f"{name}.csv", name, "edgewise", "similarity", label)
        import_scores(source, Store(folder / "runs"))
    return all_runs(folder / "runs")


def test_the_published_figures_are_reproduced(study):
    micro = joint(study, "zero_shot", ["unified"])
    macro = joint(study, "zero_shot", ["unified"], estimand="macro")
    row = micro.rows[0]
    assert row.n_replies == 5936
    assert round(row.score_micro_pts, 2) == 82.14
    assert round(row.score_macro_pts, 2) == 81.85
    assert (round(row.se_micro_pts or 0, 2), round(row.se_macro_pts or 0, 2)) == (0.33, 0.32)
    assert round(macro.rows[0].delta_pts, 2) == 18.21
    assert round(macro.rows[0].se_pts or 0, 2) == 0.34
    assert row.share_improved == 1
    assert row.verdict_kind == "better"


def test_unified_against_persona_lora_is_refused_with_both_counts(study):
    with pytest.raises(NotComparableError) as caught:
        joint(study, "unified", ["persona_lora"])
    assert "example sets differ" in str(caught.value)
    assert "5936 replies of 200 personas" in str(caught.value)
    assert "2000 replies of 200 personas" in str(caught.value)


def test_persona_means_without_replies_get_no_interval(study):
    seen = view(next(run for run in study if run.record.method == "unified"))
    assert all(row.estimate is None for row in seen.personas)
    assert "no scores per reply" in seen.notes[0]
