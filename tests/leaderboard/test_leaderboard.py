"""The leaderboard: same runs same bytes, ranked only among the comparable, nothing from data is markup."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.leaderboard import board_of, publish_records, read_runs, render, rows_as_json
from harness.leaderboard.remake import command
from harness.text import markdown as md

ROOT = Path(__file__).parents[2]
BASE = np.linspace(0.7, 0.9, 24)
NOISE = np.random.default_rng(1).normal(0, 0.01, len(BASE))


@pytest.fixture
def runs(tmp_path, stored):
    return [
        stored(tmp_path, "base", BASE),
        stored(tmp_path, "good", BASE + 0.03 + NOISE),
        stored(tmp_path, "bad", BASE - 0.03 + NOISE),
        stored(tmp_path, "elsewhere", BASE, hashes={"examples": "f" * 64}),
        stored(tmp_path, "half", BASE, status="incomplete", error="killed"),
    ]


def test_same_runs_same_bytes_in_any_order(runs):
    assert render(board_of(runs)) == render(board_of(list(reversed(runs))))


def test_rows_are_ranked_within_comparable_groups_only(runs):
    rows = rows_as_json(board_of(runs))
    assert [(r["group"], r["rank"], r["method"]) for r in rows] == [
        (1, 1, "good"),
        (1, 2, "base"),
        (1, 3, "bad"),
        (None, None, "elsewhere"),
    ]
    by_name = {r["method"]: r for r in rows}
    assert by_name["good"]["verdict"].startswith("better than base")
    assert by_name["bad"]["verdict"].startswith("worse than base")
    assert "delta_pts" not in by_name["elsewhere"]
    assert by_name["elsewhere"]["verdict"].startswith("not comparable (")


def test_what_cannot_be_compared_stands_below_with_the_reason(runs):
    tables, _, below = render(board_of(runs)).partition("## Not comparable")
    assert "elsewhere" not in tables
    assert "example sets differ" in below
    assert "elsewhere" in below


def test_one_unlike_run_does_not_take_the_table_down(tmp_path, stored):
    """Equal hashes and other personas: an imported label is only a word."""
    runs = [stored(tmp_path, "base", BASE), stored(tmp_path, "good", BASE + 0.03 + NOISE)]
    short = stored(tmp_path, "short", BASE[:20])
    more = stored(tmp_path, "more", BASE, n=12)
    rows = {r["method"]: r for r in rows_as_json(board_of([*runs, short, more]))}
    assert rows["good"]["verdict"].startswith("better than base")
    assert "personas differ (24 and 20" in rows["short"]["reason"]
    assert "other numbers of replies" in rows["more"]["reason"]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [((2.6, 2.5), "base (epochs=8)"), ((2.5, 2.6), "base (epochs=3)"), ((None, None), "base (epochs=3)")],
)
def test_of_two_baselines_the_one_that_learnt_best_is_the_baseline_whatever_it_scores(
    tmp_path, stored, losses, expected
):
    three, eight = ({"method_options": {"epochs": k}, "changed": {"method": {"epochs": k}}} for k in (3, 8))
    seeds = [stored(tmp_path, "base", BASE, seed=s, cost={"validation_loss": losses[0]}, **three) for s in (0, 1)]
    worse = stored(tmp_path, "base", BASE - 0.1, id="base-8", cost={"validation_loss": losses[1]}, **eight)
    good = stored(tmp_path, "good", BASE + 0.03 + NOISE)
    (group,) = board_of([*seeds, worse, good]).groups
    assert [line.name for line in group.lines if line.is_baseline] == [expected]


def test_runs_whose_baseline_is_nowhere_keep_a_section(tmp_path, stored):
    runs = [stored(tmp_path, "a", BASE), stored(tmp_path, "b", BASE + NOISE)]
    found = [(r["group"], r["method"]) for r in rows_as_json(board_of(runs))]
    assert found in (
        [(1, "a"), (1, "b")],
        [(1, "b"), (1, "a")],
    )
    assert "No run of the baseline is stored" in render(board_of(runs))


def test_fair_24_unfinished_runs_are_listed_with_the_reason_and_not_ranked(runs):
    text = render(board_of(runs))
    tables, _, rest = text.partition("## Not in the tables")
    assert "half" not in tables
    assert "killed" in rest


def test_text_from_data_is_inert(tmp_path, stored):
    evil = "<script>alert(1)</script> | [x](javascript:y) `z` **b**\n# head"
    run = stored(
        tmp_path, "m", BASE, summary=evil, benchmark={"name": evil, "options": {}, "facts": {evil: evil}, "sha256": ""}
    )
    text = render(board_of([run]))
    assert "<script>" not in text
    assert "\n# head" not in text
    assert "[x](javascript" not in text
    assert md("a|b") == r"a\|b"


def test_published_records_give_the_same_leaderboard_and_are_small(runs, tmp_path):
    complete = [run for run in runs if run.complete]
    for path in publish_records(complete, tmp_path / "records"):
        assert path.stat().st_size <= 100_000
    again = read_runs(None, tmp_path / "records", tmp_path / "nothing")
    assert render(board_of(again)) == render(board_of(complete))


def test_the_committed_leaderboard_comes_from_the_committed_records_to_the_byte(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no runs of the developer's own
    board = ROOT / "leaderboard"
    records = board / "records"
    assert list(records.glob("*.json")), "the committed leaderboard has records behind it"
    assert all(path.stat().st_size <= 100_000 for path in records.glob("*.json"))
    (tmp_path / "leaderboard").mkdir()
    (tmp_path / "leaderboard" / "records").symlink_to(records)
    with pytest.raises(SystemExit) as ended:
        main(["leaderboard"])
    assert not ended.value.code
    made = tmp_path / "leaderboard"
    names = ["README.md", "index.html", *(f"plots/{path.name}" for path in sorted((board / "plots").iterdir()))]
    assert len(names) > 2
    assert {path.name for path in (made / "plots").iterdir()} == {name[6:] for name in names if "/" in name}
    for name in names:
        assert (made / name).read_bytes() == (board / name).read_bytes(), f"{name}: run `harness leaderboard`"


def test_every_row_says_how_to_make_it_again(runs):
    text = render(board_of(runs))
    for run in runs:
        if run.complete:
            assert f"harness run --method {run.record.method}" in text
            assert run.id in text


def test_json_is_strict(runs):
    text = json.dumps(rows_as_json(board_of(runs)), allow_nan=False)
    rows = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {row["method"] for row in rows} >= {run.record.method for run in runs if run.complete}
    assert all(row["rank"] is None or isinstance(row["rank"], int) for row in rows)


def test_people_who_were_held_out_have_a_column_of_their_own(tmp_path, stored):
    held = {"n_personas": 2, "n_replies": 20, "scores": {"similarity": 0.4321}}
    runs = [stored(tmp_path, "base", [0.5, 0.6] * 6), stored(tmp_path, "m", [0.6, 0.7] * 6, unseen=held)]
    assert "unseen personas" not in render(board_of(runs[:1]))
    text = render(board_of(runs))
    assert "unseen personas" in text
    row = next(line for line in text.splitlines() if "| m " in line)
    assert "43.21" in row
    widths = {line.count("|") for line in text.split("\n\n")[3].splitlines()}
    assert len(widths) == 1, "every row has every column"


def test_a_tuned_run_is_made_again_with_its_plugins(stored, tmp_path):
    tuning = {
        "study": "mine", "id": "1", "trials": 3, "sampler": "grid", "pruner": "median", "space": {}, "personas": 4,
        "apart": True,
    }  # fmt: skip
    run = stored(tmp_path, "m", BASE, tuning=tuning, plugin_files=["m.py", "other dir/metric.py"])
    assert command(run.record) == "harness tune mine --plugin m.py --plugin 'other dir/metric.py'"
