"""The leaderboard as CSV, JSON, LaTeX and markdown: what is in each, hostile text, what --output means."""

from __future__ import annotations

import csv
import io
import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.leaderboard import board_of, render
from harness.leaderboard.rows import Board
from harness.leaderboard.tables import as_csv, as_latex, rows_as_json
from harness.leaderboard.text import short
from harness.runs.learning import learning_of
from harness.runs.making import flags_of as flags_of_run
from harness.runs.record import DivergedAdapters, EmptyReplies, FlagPart, Rewaved, SomeAdapters
from harness.statistics.verdicts import FLAGS
from harness.text import markdown as md, terminal

BASE = np.linspace(0.7, 0.9, 24)
NOISE = np.random.default_rng(1).normal(0, 0.01, len(BASE))
EVIL = '=1+1<script>alert(1)</script> | $x_{ & "q", \\input{/etc/passwd} %\n\n# head\u202e https://evil.example'
REFERENCE = {"score": 82.14, "se": 0.33, "source": "published & said", "aggregation": "micro", "note": ""}
CEILINGS = [{"name": "oracle", "knows": "all", "scores": {"similarity": 0.95}}]


@pytest.fixture
def board(tmp_path, stored) -> Board:
    more = {"reference": REFERENCE, "ceilings": CEILINGS}
    return board_of(
        [
            stored(tmp_path, "base", BASE, **more),
            stored(tmp_path, "good", BASE + 0.03 + NOISE, flags=[EmptyReplies(share=0.08)], **more),
            stored(tmp_path, EVIL, BASE - 0.03 + NOISE, id="evil-run", **more),
            stored(tmp_path, "other_base", BASE, hashes={"examples": "f" * 64}),
            stored(tmp_path, "half", BASE, status="incomplete", error="killed"),
        ]
    )


def rows_of(board: Board) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(board))))


def test_csv_has_every_row_with_its_group_and_what_it_is(board):
    rows = rows_of(board)
    assert [(r["group"], r["kind"], r["rank"]) for r in rows] == [
        ("1", "method", "1"),
        ("1", "baseline", "2"),
        ("1", "method", "3"),
        ("1", "ceiling", ""),
        ("1", "reference", ""),
        ("", "not comparable", ""),
    ]
    assert (rows[3]["score"], rows[4]["score"], rows[4]["se"]) == ("95", "82.14", "0.33")
    assert rows[0]["flags"] == "8% empty replies; one-seed"
    assert "example sets differ" in rows[5]["note"]


def test_csv_says_the_numbers_of_the_json(board):
    for row, full in zip(rows_of(board), rows_as_json(board)[:3], strict=False):
        assert float(row["score"]) == pytest.approx(full["score"], rel=1e-9)
        if not full["is_baseline"]:
            assert float(row["delta"]) == pytest.approx(full["delta_pts"], rel=1e-9)
            assert float(row["sim_low"]) == pytest.approx(full["sim_ci_pts"][0], rel=1e-9)
            assert row["verdict"] == full["verdict"]


def test_csv_cells_are_no_formulas_and_stay_on_their_line(board):
    evil = rows_of(board)[2]["method"]
    assert evil.startswith("'=1+1<script>")
    assert "\n" not in evil
    assert "\u202e" not in evil
    for row in csv.reader(io.StringIO(as_csv(board))):
        for cell in row:
            assert not cell.startswith(("=", "+", "@"))
            assert not cell.startswith("-") or float(cell) < 0
    assert len(as_csv(board).splitlines()) == 7


def test_latex_is_one_table_with_escaped_cells(board):
    text = as_latex(board)
    lines = text.splitlines()
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 1 + 3 + 2
    for line in body:
        assert len(re.findall(r"(?<!\\)&", line)) == 10, line
        assert not re.search(r"(?<!\\)[#$%_]", line), line
    assert r"\input{" not in text
    assert r"\textbackslash{}input\{" in text or r"\textbackslash input\{" in text
    for comment in lines:
        if comment.startswith("%"):
            assert "\n" not in comment
    assert "not comparable with any group, and not shown: 1" in text
    assert text.index(r"\begin{tabular}") < text.index(r"\end{tabular}")


def test_latex_has_a_rule_between_groups(tmp_path, stored):
    runs = [
        stored(tmp_path, name, BASE + shift + NOISE, id=f"{name}-{world}", hashes={"examples": world * 64})
        for world in "ab"
        for name, shift in (("base", 0), ("m", 0.1))
    ]
    text = as_latex(board_of(runs))
    assert text.count(r"\midrule") == 2  # one below the head
    assert as_latex(board_of([])).startswith("%")


def test_same_runs_same_bytes_in_any_order(tmp_path, stored):
    runs = [stored(tmp_path, name, BASE + i * NOISE) for i, name in enumerate(("base", "a", "b", "c"))]
    for form in (as_csv, as_latex):
        assert form(board_of(runs)) == form(board_of(runs[::-1]))


def test_markdown_names_are_inert(board):
    text = render(board_of([]))
    assert "No complete runs" in text
    assert "<script" not in md(EVIL)
    assert "\n" not in md(EVIL)
    assert "https://" not in md(EVIL), "GitHub makes links of bare addresses"
    assert "\u202e" not in md(EVIL)
    assert md("www.evil.example") == "www&#46;evil.example"


def test_every_flag_that_occurs_is_explained_once(tmp_path, stored):
    runs = [
        stored(tmp_path, "base", BASE),
        stored(tmp_path, "a", BASE + 0.03 + NOISE, flags=[DivergedAdapters(count=2, of=9), Rewaved()]),
        stored(tmp_path, "b", BASE + 0.02 + NOISE, flags=[DivergedAdapters(count=1, of=9)]),
    ]
    _, _, flags = render(board_of(runs)).partition("### Flags")
    flags, _, _ = flags.partition("\n### ")
    assert "a: 2 of 9 adapters: diverged, rewaved, one-seed" in flags
    assert flags.count("*adapters: diverged*") == 1
    assert "*one-seed*: one training seed each" in flags
    assert "*rewaved*: memory ran out" in flags


def test_flags_of_later_seeds_are_shown_too(tmp_path, stored):
    runs = [stored(tmp_path, "base", BASE, seed=s) for s in (0, 1)]
    runs += [stored(tmp_path, "m", BASE + NOISE, seed=s, flags=[Rewaved()] * s) for s in (0, 1)]
    row = next(r for r in rows_as_json(board_of(runs)) if r["method"] == "m")
    assert "rewaved" in row["flags"]


def test_no_flag_of_the_harness_lacks_a_meaning():
    spiked = {"train_loss": [7.1, 0.57, 2.2], "start_validation_loss": None, "validation_loss": [2.0, 1.0]}
    nothing = {"train_loss": [], "start_validation_loss": None, "validation_loss": []}
    adapters = {
        "a": {"status": "diverged", **nothing},
        "b": {"status": "no data", **nothing},
        "c": {"status": "ok", **spiked},
    }
    report = {"adapters": adapters, "rewaved": True, "hidden": 3}
    fitted: Any = SimpleNamespace(report=report, adds_text=True)
    raised = {type(flag) for flag in flags_of_run(fitted, ["", "x"], learning=learning_of(report))}
    kinds = {kind for kind in (*FlagPart.__subclasses__(), *SomeAdapters.__subclasses__()) if hasattr(kind, "name")}
    assert {kind.__name__ for kind in kinds} - {kind.__name__ for kind in raised} == {"Imported", "ChangedGlobalState"}
    assert all(kind.name and kind.meaning for kind in kinds)
    assert all(FLAGS.values())


def test_two_configurations_of_one_method_have_two_names(tmp_path, stored):
    runs = [
        stored(tmp_path, "base", BASE),
        *(stored(tmp_path, "m", BASE + NOISE, id=f"m-{k}", method_options={"k": k}) for k in (1, 2)),
    ]
    assert {row["method"] for row in rows_as_json(board_of(runs))} == {"base", "m (k=1)", "m (k=2)"}
    assert r"m \(k=1\)" in render(board_of(runs))


def test_visible_and_short():
    assert terminal("a\x00b\x1bc\ud800d") == r"a\x00b\x1bc\ud800d"
    assert short("日本語" * 10, 10) == "日本語日…"
    assert short("as it is", 8) == "as it is"


@pytest.fixture
def runs_dir(put, tmp_path):
    put("base", BASE)
    put("good", BASE + 0.03 + NOISE)
    return tmp_path / "runs"


@pytest.mark.parametrize("form", ["csv", "json", "latex"])
def test_a_table_goes_to_stdout_and_nothing_else_is_written(harness, runs_dir, tmp_path, monkeypatch, form):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, out, err = harness("leaderboard", "--runs-dir", runs_dir, "--format", form)
    assert (code, err) == (0, "")
    assert "good" in out
    assert not list((tmp_path / "empty").iterdir())


def test_the_ending_of_output_chooses_the_format(harness, runs_dir, tmp_path):
    for name, start in (("t.csv", "group,"), ("t.tex", "% Made"), ("t.json", "[")):
        code, out, err = harness("leaderboard", "--runs-dir", runs_dir, "--output", tmp_path / "out" / name)
        assert code == 0, err
        assert (tmp_path / "out" / name).read_text().startswith(start)
        assert name in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"t.csv", "t.tex", "t.json"}
    code, out, _ = harness("leaderboard", "--runs-dir", runs_dir, "--output", "-")
    assert out.startswith("# Leaderboard")


def test_json_flag_and_json_format_say_the_same(harness, runs_dir, tmp_path):
    _, flag, _ = harness("leaderboard", "--runs-dir", runs_dir, "--output", tmp_path / "README.md", "--json")
    _, form, _ = harness("leaderboard", "--runs-dir", runs_dir, "--format", "json")
    assert json.loads(flag) == json.loads(form)
    assert (tmp_path / "README.md").is_file()


def test_the_markdown_cannot_take_the_pages_name(harness, runs_dir, tmp_path):
    code, _, err = harness("leaderboard", "--runs-dir", runs_dir, "--output", tmp_path / "x.html")
    assert code == 2
    assert "x.md" in err
    assert not (tmp_path / "x.html").exists()


def test_people_who_were_held_out_have_a_column_in_csv(tmp_path, stored):
    held = {"n_personas": 2, "n_replies": 20, "scores": {"similarity": 0.4321}}
    rows = rows_of(board_of([stored(tmp_path, "base", BASE), stored(tmp_path, "m", BASE + NOISE, unseen=held)]))
    assert {row["method"]: row["unseen_score"] for row in rows} == {"base": "", "m": "43.21"}


def test_an_unknown_format_is_a_helpful_line(harness, runs_dir):
    code, out, err = harness("leaderboard", "--runs-dir", runs_dir, "--format", "latx")
    assert (code, out) == (2, "")
    assert "did you mean 'latex'?" in err
