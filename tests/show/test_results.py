"""From Python: the same results as the commands', typed, as data frames, as HTML and as pictures."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness as house
from harness.commands import app
from harness.commands.python import _texts, settings_of

TERMINAL_ONLY = {"as_json", "form", "plot", "only_cost", "output", "examples", "publish", "metric", "top", "samples"}


def png(figure: Any) -> bytes:
    """As a notebook asks for it."""
    return figure._repr_png_()


@pytest.fixture
def folder(put, tmp_path, rng_scores):
    put("base", rng_scores)
    put("other", rng_scores + 0.1)
    put("worse", rng_scores - 0.2)
    return tmp_path / "runs"


@pytest.fixture
def rng_scores():
    return np.random.default_rng(0).uniform(0.3, 0.7, size=(12, 10))


def test_a_comparison_is_the_commands(folder, harness):
    found = house.compare("base", "other", "worse", runs_dir=folder)
    code, out, _ = harness("compare", "base", "other", "worse", "--runs-dir", str(folder), "--json")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(found.as_dict()))
    assert str(found) == harness("compare", "base", "other", "worse", "--runs-dir", str(folder))[1].rstrip("\n")
    assert found.verdicts == {"other": "better", "worse": "worse"}
    assert found.metric == "similarity"
    assert found.baseline.method == "base"
    table = found.to_pandas()
    assert list(table.method) == ["other", "worse", "base"]
    assert table.delta[0] == pytest.approx(10)
    assert table.delta[1] == pytest.approx(-20)
    assert table.sim_low[1] <= table.delta[1] <= table.sim_high[1]
    assert repr(found) == "<Comparison with base by similarity: other better, worse worse>"


def test_faults_are_the_commands_lines(folder, tmp_path):
    with pytest.raises(house.StoreError, match="did you mean 'other'"):
        house.compare("base", "othr", runs_dir=folder)
    with pytest.raises(house.HarnessError, match="name a baseline"):
        house.compare(runs_dir=folder)
    with pytest.raises(house.HarnessError, match="micro or macro, not 'mean'"):
        house.compare("base", "other", runs_dir=folder, estimand="mean")
    with pytest.raises(house.StoreError, match="there is no runs folder"):
        house.load_run("other", runs_dir=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(house.StoreError, match="nothing to rank"):
        house.leaderboard(tmp_path / "empty")
    with pytest.raises(house.ConfigError, match="did you mean 'persona_prefix'"):
        house.run(method="persona_prefx", quiet=True)
    with pytest.raises(house.HarnessError, match="is no number, text, list or mapping"):
        house.run(method="persona_prefix", set={"tokens": object()}, quiet=True)


def test_a_stored_run_has_fields_replies_and_pictures(folder):
    run = house.load_run("other", folder)
    assert (run.id, run.method, run.metric) == ("other-x-0", "other", "similarity")
    assert run.score == run.scores["similarity"]
    assert run.score == pytest.approx(100 * float(run.record.scores["similarity"] or 0))
    replies = run.to_pandas()
    assert len(replies) == run.record.n_replies == 120
    assert 100 * replies.score_similarity.mean() == pytest.approx(run.score)
    assert len(run.view().personas) == 12
    assert "other-x-0" in str(run)
    assert "<td>similarity" in run._repr_html_()
    assert png(run.plot()).startswith(b"\x89PNG")


def test_a_run_whose_record_is_damaged_has_no_score(folder):
    path = folder / "other-x-0" / "run.json"
    path.write_text("{")
    run = house.load_run("other", folder)
    assert (run.score, run.scores) == (None, {})
    assert "cannot read" in str(run)


@pytest.mark.parametrize("metrics", [["hits"], ["hits", "similarity"]], ids=" ".join)
def test_a_run_is_shown_whose_first_metric_is_counted_over_all_replies(put, tmp_path, rng_scores, harness, metrics):
    run = put("counted", rng_scores)
    path = run.path / "run.json"
    fields = json.loads(path.read_text())
    sums = fields["per_persona"]["metrics"]
    sums["hits"] = {"unit": "pt", "higher_is_better": True, "counts": {"right": [1.0] * 12, "asked": [2.0] * 12}}
    fields["per_persona"]["metrics"] = {name: sums[name] for name in metrics}
    path.write_text(json.dumps({**fields, "metrics": metrics, "scores": dict.fromkeys(metrics, 0.5)}))
    code, out, err = harness("show", "counted", "--runs-dir", tmp_path / "runs")
    assert (code, err) == (0, "")
    assert out.rstrip("\n") == str(house.load_run("counted", tmp_path / "runs"))
    assert "hits" in out
    assert "reply:" in out
    assert ("p000/d0#0  similarity" in out) == (len(metrics) > 1)
    code, out, _ = harness("show", "counted", "--runs-dir", tmp_path / "runs", "--json")
    assert (code, bool(json.loads(out)["view"]), len(json.loads(out)["samples"])) == (0, len(metrics) > 1, 5)


def test_what_stands_in_records_is_escaped_in_a_notebook(put, tmp_path, rng_scores):
    put("base", rng_scores)
    put("<script>alert(1)</script>", rng_scores, id="evil")
    text = house.compare("base", "evil", runs_dir=tmp_path / "runs")._repr_html_()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_pictures_draw_what_is_said(folder):
    """One point and two intervals for each method; a picture shows itself without pyplot."""
    figure = house.compare("base", "other", "worse", runs_dir=folder).plot()
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["other", "worse"]
    points = [float(np.asarray(line.get_xdata())[0]) for line in axes.lines if line.get_marker() == "o"]
    assert points == pytest.approx([10, -20])
    assert png(figure).startswith(b"\x89PNG")


def test_the_leaderboard_is_the_commands(folder, harness):
    board = house.leaderboard(folder)
    _, out, _ = harness("leaderboard", "--runs-dir", str(folder), "--format", "json")
    assert json.loads(out) == json.loads(json.dumps(board.as_dicts()))
    assert len(board.sections) == 1
    assert set(board.to_pandas().method.dropna()) >= {"base", "other", "worse"}
    assert board._repr_html_().count("<tr>") == 4
    assert len(board.plot().axes) == 1
    with pytest.raises(house.HarnessError, match="there is no section 2; the leaderboard has 1"):
        board.plot(2)


@pytest.mark.parametrize("name", ["run", "compare", "show", "leaderboard"])
def test_arguments_have_the_flags_names_and_defaults(name):
    functions = {"show": "load_run"}
    module = importlib.import_module("harness.commands.python")
    function = inspect.signature(getattr(module, functions.get(name) or name)).parameters
    command = next(one.callback for one in app.registered_commands if one.name == name)
    assert command
    flags = inspect.signature(command).parameters
    renamed = {"sets": "set"}
    known = {renamed.get(flag, flag): value.default for flag, value in flags.items() if flag not in TERMINAL_ONLY}
    own = {arg: value.default for arg, value in function.items() if value.kind is not value.VAR_POSITIONAL}
    if name == "compare":
        known = {arg: default for arg, default in known.items() if arg != "names"} | {"metric": None}
    if name == "leaderboard":
        own.pop("records")  # the command's are beside its output
    assert own.keys() == known.keys()
    for arg, default in known.items():
        assert own[arg] == default or not (own[arg] or default), arg


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"personas": 8, "seed": 3}, {"personas": 8, "seed": 3}),
        ({"persona": ["persona_000", "persona_002"]}, {"persona": ("persona_000", "persona_002")}),
        ({"runs_dir": Path("here")}, {"runs_dir": Path("here")}),
        ({"slurm": {"partition": "gpu", "time": 120}}, {"slurm": ("partition=gpu", "time=120")}),
    ],
)
def test_values_may_be_python_s(given, wanted):
    config = settings_of({"method": "unified", **given}, None, [], [])
    assert {name: getattr(config, name) for name in wanted} == wanted


def test_options_from_python_have_the_values_that_were_given():
    asked = {"system": 'Say "yes" \N{GRINNING FACE}', "turns": "last", "choices": ["one", "\N{GRINNING FACE}"]}
    given = {"prompt": {"init": "random"}, "train": {"learning_rate": 1e-5}, "protocol": asked}
    config = settings_of({"method": "persona_prefix"}, None, _texts(given), [])
    assert config.method_options.prompt.init == "random"
    assert config.method_options.train.learning_rate == 1e-5
    assert config.protocol == {**asked, "choices": ("one", "\N{GRINNING FACE}")}


def test_rooms_that_share_a_functions_name_stay_rooms():
    """Whatever is imported first: a room can be called, and a function's room can be imported."""
    code = """
import inspect, sys
FIRST
import harness
import harness.compare as compare_room, harness.leaderboard as leaderboard_room
from harness import compare, leaderboard
from harness.compare import Joint
assert compare_room.Joint is Joint and leaderboard_room.board_of
assert "estimand" in inspect.signature(compare).parameters
assert "runs_dir" in inspect.signature(leaderboard).parameters
try:
    compare("a", "b", runs_dir="nowhere")
except harness.StoreError as error:
    assert "no runs folder" in str(error)
else:
    raise SystemExit(3)
assert "torch" not in sys.modules
"""
    for first in ("import harness", "import harness.compare", "import harness; harness.run"):
        text = code.replace("FIRST", first)
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_without_pandas_it_is_said_how_to_get_it(folder, monkeypatch):
    run = house.load_run("other", folder)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(house.HarnessError, match=r"pip install 'peft-personalisation-harness\[pandas\]'"):
        run.to_pandas()
