"""Comparisons as files: markdown, CSV, LaTeX, JSON, pictures."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest


@pytest.fixture
def runs(put, tmp_path):
    """Two methods beside a baseline; one name is what no format may take for its own syntax."""
    put("base", [0.5 + i / 100 for i in range(12)])
    put("good", [0.6 + i / 90 for i in range(12)])
    put("a|b_$x$", [0.4 + i / 100 for i in range(12)], id="bad-x-0")
    return ["--runs-dir", tmp_path / "runs"]


COMPARE = ("compare", "base", "good", "a|b_$x$")


def test_a_comparison_as_csv_has_the_figures_of_the_json(harness, runs):
    code, out, err = harness(*COMPARE, *runs, "--format", "csv")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    found = json.loads(harness(*COMPARE, *runs, "--format", "json")[1])
    assert found == json.loads(harness(*COMPARE, *runs, "--json")[1])
    assert [row["method"] for row in rows] == ["good", "a|b_$x$", "base"]
    for row, method in zip(rows, found["methods"], strict=False):
        assert float(row["delta"]) == pytest.approx(method["delta_pts"])
        assert [float(row["sim_low"]), float(row["sim_high"])] == pytest.approx(method["sim_ci"])
        assert row["verdict_kind"] == method["verdict_kind"]
    assert (rows[-1]["kind"], rows[-1]["delta"]) == ("baseline", "")


def test_a_comparison_as_markdown_and_latex_has_the_cells_of_the_text(harness, runs):
    text = harness(*COMPARE, *runs)[1].splitlines()[2].split()
    markdown = harness(*COMPARE, *runs, "--format", "markdown")[1].splitlines()
    assert {line.replace("\\|", "").count("|") for line in markdown} == {12}
    assert set(text) <= set(re.split(r"[|\s]+", markdown[2].replace("\\", "").replace("&lt;", "<")))
    assert "better than base" in markdown[2]
    latex = harness(*COMPARE, *runs, "--format", "latex")[1]
    assert latex.startswith("\\begin{tabular}")
    assert "a|b\\_\\$x\\$" in latex


def test_a_diff_as_csv_has_the_examples_of_the_json(harness, runs):
    code, out, err = harness("diff", "base", "good", *runs, "--format", "csv", "--top", 4)
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    found = json.loads(harness("diff", "base", "good", *runs, "--json", "--top", 4)[1])
    assert [row["example"] for row in rows] == [x["id"] for x in found["examples"]]
    assert [float(row["difference"]) for row in rows] == pytest.approx([x["delta"] for x in found["examples"]])
    assert rows[0]["reply of " + found["runs"][0]] == found["examples"][0]["replies"][0]
    assert len(harness("diff", "base", "good", *runs, "--format", "markdown", "--top", 4)[1].splitlines()) == 6


@pytest.mark.parametrize("words", [COMPARE, ("diff", "base", "good")], ids=["compare", "diff"])
def test_a_plot_is_written_in_the_format_of_its_ending(harness, runs, tmp_path, words):
    code, _, err = harness(*words, *runs, "--plot", tmp_path / "plot.svg")
    assert code == 0, err
    svg = (tmp_path / "plot.svg").read_text("utf-8")
    texts = "".join(ElementTree.fromstring(svg).itertext())
    assert "base" in texts
    assert "similarity" in texts
    harness(*words, *runs, "--plot", tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text("utf-8") == svg, "the same bytes for the same runs"
    assert harness(*words, *runs, "--plot", tmp_path / "plot.PNG")[0] == 0
    assert (tmp_path / "plot.PNG").read_bytes().startswith(b"\x89PNG")
    code, out, err = harness(*words, *runs, "--plot", tmp_path / "plot.jpeg")
    assert (code, out) == (2, "")
    assert "endings .svg, .png, .pdf" in err
    code, _, err = harness(*words, *runs, "--plot", tmp_path / "none" / "plot.svg")
    assert (code, "cannot write" in err) == (2, True)


def test_files_on_stdout_stay_whole_on_a_narrow_terminal(harness, runs, monkeypatch):
    whole = harness(*COMPARE, *runs, "--format", "csv")[1]
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert harness(*COMPARE, *runs, "--format", "csv")[1] == whole
    assert json.loads(harness(*COMPARE, *runs, "--format", "json")[1])
