"""The registry of metrics: names, one signature, what is undefined, and that nothing heavy is imported."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from harness import ConfigError, Dataset, Example, Message, Persona, Prompt, Protocol
from harness.benchmarks.devices import DEVICES
from harness.scoring import registry as metrics, text


def batch(replies, references, choices=(), **given):
    dataset = Dataset("d", (Persona("a"),), (), Protocol(choices=choices), ("accuracy",), schema=DEVICES)
    found = [
        Example(Prompt(f"a/{i}#0", "a", 0, (Message("user", "?"),)), reference)
        for i, reference in enumerate(references)
    ]
    return metrics.MetricBatch(dataset, found, replies, **given)


def test_a_typo_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'similarity'"):
        metrics.metric_named("similarty")
    with pytest.raises(ConfigError, match="did you mean 'actions'"):
        metrics.expand_metrics(["action"])


def test_a_group_expands_in_place_and_once():
    names = metrics.expand_metrics(["nll", "actions", "device_f1"])
    assert names[0] == "nll"
    assert names.count("device_f1") == 1
    assert len(names) == 1 + 12


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_every_metric_returns_its_columns_at_full_length(name):
    class Embedder:
        def embed(self, texts):
            return np.ones((len(texts), 384), dtype=np.float32)

    metric = metrics.metric_named(name)
    columns = metric.compute(
        batch(["1", "TV volume 30."], ["2", "TV volume 40."], embedder=Embedder(), nll=[(1.0, 2), (0.0, 1)])
    )
    assert set(metric.columns) <= set(columns)
    assert all(len(column) == 2 for column in columns.values())
    assert metric.pooled == (metric.figure is not None)
    metrics.value(name, columns)


def test_exact_match_forgives_white_space_only():
    assert text.exact_match(" a  b\n", "a b") == 1
    assert text.exact_match("A b", "a b") == 0
    assert text.exact_match("a b.", "a b") == 0


def test_accuracy_takes_the_most_probable_choice_and_mae_the_reply():
    log_probs = np.log([[0.1, 0.2, 0.7], [0.6, 0.2, 0.2]])
    scored = metrics.score_columns(
        ["accuracy", "mae"], batch(["2", "2"], ["3", "3"], ("1", "2", "3"), choice_log_probs=log_probs)
    )
    assert scored == {"accuracy": [1.0, 0.0], "mae": [1.0, 1.0]}


def test_accuracy_without_probabilities_compares_the_reply():
    assert metrics.score_columns(["accuracy"], batch(["3 ", "x"], ["3", "3"]))["accuracy"] == [1.0, 0.0]


def test_mae_punishes_an_unreadable_reply_with_the_worst_choice():
    assert text.absolute_error("four", "4", ("1", "2", "5")) == 3
    assert math.isnan(text.absolute_error("four", "4"))
    assert text.absolute_error(" 4.5", "4") == 0.5
    assert math.isnan(text.absolute_error("4", "nan"))


def test_nll_is_per_token_and_undefined_without_likelihood():
    assert metrics.score_columns(["nll"], batch(["a"], ["a"], nll=[(6.0, 4)]))["nll"] == [1.5]
    assert math.isnan(metrics.score_columns(["nll"], batch(["a"], ["a"]))["nll"][0])
    assert math.isnan(metrics.value("nll", {"nll": [math.nan]}))


def test_settings_exact_counts_where_the_reference_sets_something():
    scored = metrics.score_columns(
        ["settings_exact"],
        batch(
            ["TV volume 30.", "Volume up: TV volume 31.", "TV volume 9.", "Sure."],
            ["The TV volume is now at 30.", "TV volume 30.", "Sure.", "What volume?"],
        ),
    )["settings_exact"]
    assert scored[:2] == [1.0, 0.0]
    assert all(math.isnan(score) for score in scored[2:])
    assert metrics.value("settings_exact", {"settings_exact": scored}) == 0.5


def test_pooled_figures_follow_from_summed_counts():
    columns = metrics.score_columns(
        ["numeric_f1", "numeric_precision", "numeric_recall"],
        batch(["TV volume 30.", "AC to 22 degrees."], ["TV volume 30, brightness 5.", "AC to 23 degrees."]),
    )
    assert [columns[c] for c in metrics.metric_named("numeric_f1").columns] == [[1, 0], [0, 1], [1, 1]]
    assert metrics.value("numeric_precision", columns) == 1 / 2
    assert metrics.value("numeric_recall", columns) == 1 / 3
    assert metrics.value("numeric_f1", columns) == 2 / 5
    figure = metrics.metric_named("numeric_f1").figure
    assert figure is not None
    np.testing.assert_allclose(figure(np.array([[[1, 0, 1]], [[0, 0, 0]]])), [[2 / 3], [np.nan]])


def test_a_batch_of_unlike_lengths_is_refused():
    with pytest.raises(ValueError, match="replies"):
        batch(["a"], ["a", "b"])


def test_importing_the_registry_does_not_import_torch():
    code = (
        "import sys; from harness.scoring import METRICS; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
