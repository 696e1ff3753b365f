"""Runs whose metrics come from a plugin that is no longer there: listed, shown and compared from the record alone."""

from __future__ import annotations

import json
import re

import pytest

from harness.contract import load_extensions
from harness.errors import ConfigError
from harness.runs import read_record
from harness.scoring import metric_named

METRICS = """
from harness import Metric, hookimpl

def lengths(batch):
    return {"length": [float(len(reply)) for reply in batch.replies]}

def hits(batch):
    right = [float(reply == reference) for reply, reference in batch.pairs()]
    return {"right": right, "asked": [1.0] * len(right)}

def share(counts):
    return counts[..., 0] / counts[..., 1]

@hookimpl
def metrics():
    return [
        Metric("length", "characters of the reply", lengths, unit="raw", higher_is_better=False),
        Metric("hits", "share of right replies", hits, columns=("right", "asked"), figure=share),
    ]
"""


@pytest.fixture
def runs(sweep_lab, harness, monkeypatch):
    """The folder with runs of two guessers, scored by a file of metrics that this process then forgets."""
    monkeypatch.setattr("harness.contract.extensions._loose", {})
    for name, right in (("often", 0.9), ("seldom", 0.2)):
        sweep_lab.method(name, right)
    metrics = sweep_lab.folder / "lengths.py"
    metrics.write_text(METRICS)
    plugins = [word for path in (*sweep_lab.plugins, metrics) for word in ("--plugin", path)]
    options = (f"data={sweep_lab.folder / 'data.jsonl'}", "metrics=length,hits", "splits=1/1/23")
    sets = [word for option in options for word in ("--set", option)]
    code, _, err = harness("run", "--method", "often", "--baseline", "seldom", "--benchmark", "jsonl", *sets, *plugins,
                           "--runs-dir", sweep_lab.runs, "--quiet")  # fmt: skip
    assert code == 0, err
    monkeypatch.setattr("harness.contract.extensions._loose", {})
    with pytest.raises(ConfigError, match="unknown metric 'length'"):
        metric_named("length")
    return sweep_lab.runs


def test_runs_are_listed_shown_compared_and_ranked_without_the_plugin_of_their_metrics(runs, harness):
    code, out, err = harness("list", "runs", "--runs-dir", runs, "--json")
    assert code == 0, err
    (often,) = [row for row in json.loads(out) if row["method"] == "often"]
    assert (often["metric"], often["error"]) == ("length", None)
    code, out, err = harness("show", often["run"], "--runs-dir", runs)
    assert code == 0, err
    assert "hits" in out
    code, out, err = harness("compare", "--baseline", "seldom", "often", "--runs-dir", runs, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["metric"], found["unit"], found["higher_is_better"]) == ("length", "raw", False)
    assert found["methods"][0]["comparison"]["verdict"].startswith("worse"), "right replies are longer than 'no'"
    code, out, err = harness("diff", *(path.name for path in runs.glob("*-*")), "--runs-dir", runs)
    assert code == 0, err
    code, out, err = harness("power", "--method", "often", "--baseline", "seldom", "--runs-dir", runs,
                             "--personas", "20", "--json")  # fmt: skip
    assert (code, json.loads(out)["unit"]) == (0, "raw"), err
    code, out, err = harness("leaderboard", "--runs-dir", runs, "--output", runs.parent / "board.md")
    assert code == 0, err
    board = (runs.parent / "board.md").read_text()
    assert "Decided by **length** in raw (lower is better): characters of the reply." in board
    ranked = re.findall(r"^\|.*?\b(seldom|often)\b", board, re.MULTILINE)
    assert ranked[:2] == ["seldom", "often"], "shorter is better, so it comes first"


def test_a_pooled_metric_is_compared_alike_with_and_without_its_plugin(runs, harness):
    asked = ("compare", "--baseline", "seldom", "often", "--metric", "hits", "--runs-dir", runs, "--json")
    code, out, err = harness(*asked)
    assert code == 0, err
    (row,) = json.loads(out)["methods"]
    records = [read_record(path) for path in runs.glob("*/run.json")]
    scores = {record.method: record.scores["hits"] or 0.0 for record in records}
    assert row["comparison"]["delta_pts"] == pytest.approx(100 * (scores["often"] - scores["seldom"]))
    assert row["comparison"]["verdict"].startswith("better")
    load_extensions([runs.parent / "lengths.py"])
    assert harness(*asked)[1] == out


def test_an_older_record_is_completed_where_the_plugin_is_there_and_says_what_is_missing_where_not(
    put, changed_sums, tmp_path, harness, monkeypatch
):
    monkeypatch.setattr("harness.contract.extensions._loose", {})
    counts = {"asked": [4] * 12, "right": [1, 2, 3] * 4}
    for name in ("base", "other"):
        run = put(name, [0.5] * 12, metrics=["similarity", "hits"])
        with changed_sums(run) as sums:
            del sums["metrics"]["similarity"]["summary"]
            sums["metrics"]["hits"] = {"unit": "pt", "higher_is_better": True, "counts": counts}
    before = read_record(run.path / "run.json")
    assert before.metric_sums("similarity").summary == metric_named("similarity").summary
    assert (before.metric_sums("hits").summary, before.metric_sums("hits").values) == (None, None)
    asked = ("compare", "base", "other", "--metric", "hits", "--runs-dir", tmp_path / "runs")
    code, _, err = harness(*asked)
    assert code == 2
    assert "of an earlier harness, and the metric's plugin is missing" in err
    assert harness("show", run.id, "--runs-dir", tmp_path / "runs")[0] == 0
    plugin = tmp_path / "lengths.py"
    plugin.write_text(METRICS)
    load_extensions([plugin])
    assert read_record(run.path / "run.json").metric_sums("hits").values == pytest.approx([0.25, 0.5, 0.75] * 4)
    assert harness(*asked)[0] == 0
