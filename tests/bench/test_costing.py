"""A dry run: it counts what the run then does, fits nothing, and stores nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from harness.cli import main
from harness.runs.stored import all_runs

WORLD = [
    "--personas",
    "6",
    "--set",
    "dialogues=3,1,1",
    "--set",
    "unified.train.patience=0",
    "--set",
    "unified.epochs=2",
]


def asked(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    return out


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("persona_prefix", ["method.epochs=3", "method.patience=0"]),
        pytest.param("hierarchical_prefix", [], marks=pytest.mark.long),
        pytest.param("zero_shot", [], marks=pytest.mark.long),
    ],
)
def test_what_is_counted_is_what_the_run_does(tmp_path, capsys, method, options):
    words = ["run", "--method", method, *WORLD, "--runs-dir", str(tmp_path / "runs"), "-q", "--json"]
    for option in options:
        words += ["--set", option]
    planned = json.loads(asked(capsys, *words, "--dry-run"))
    assert planned["config"]["method"] == method
    assert not all_runs(tmp_path / "runs")
    asked(capsys, *words)
    records = {run.record.method: run.record for run in all_runs(tmp_path / "runs")}
    costs: Any = {name: record.cost for name, record in records.items()}
    own = [fit for fit in planned["fits"] if fit["method"] == method]
    assert sum(fit["parameters"] for fit in own) == costs[method].trainable_parameters
    assert len(own) == (costs[method].fits or 0)
    if options:  # without early stopping it is the same to the token
        assert sum(fit["tokens"] for fit in own) == costs[method].tokens
        assert sum(fit["steps"] for fit in own) == costs[method].steps
    base = next(fit for fit in planned["fits"] if fit["method"] == "unified")
    assert (base["tokens"], base["steps"]) == (costs["unified"].tokens, costs["unified"].steps)
    assert planned["replies"] == 2 * records[method].n_replies
    assert planned["seconds"] > 0
    assert planned["memory_bytes"] > 1e8


def test_the_text_says_that_nothing_was_fitted(tmp_path, capsys):
    out = asked(capsys, "run", "--method", "persona_prefix", *WORLD, "--dry-run", "--runs-dir", str(tmp_path), "-q")
    assert re.search(r"about .+ in all, [0-9.]+ GB at the peak; nothing was fitted", out)
    assert "6 x SoftPrompt" in out
    assert out.startswith("method: persona_prefix\n")
    assert "\n  method.train.epochs: " in out


def test_a_backbone_out_of_reach_is_costed_by_its_shape(tmp_path, capsys, monkeypatch):
    """The shape of the catalogue with few layers, so that the test is quick."""
    from dataclasses import replace

    from harness.bench import costing
    from harness.model import backbone, catalogue, sources

    known = catalogue()["qwen2.5-0.5b"]
    small = replace(known, shape={**known.shape, "num_hidden_layers": 1, "vocab_size": 2048})
    for module in (sources, backbone, costing):
        monkeypatch.setattr(module, "catalogue", lambda: {known.name: small})
    monkeypatch.setattr(sources, "_hub_fault", lambda name: "no connection")
    words = ["run", "--method", "unified", *WORLD, "--backbone", known.hub, "--runs-dir", str(tmp_path), "-q"]
    out = asked(capsys, *words, "--dry-run")
    assert "Qwen/Qwen2.5-0.5B-Instruct is not reachable: a model of its shape with random weights is used" in out
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
