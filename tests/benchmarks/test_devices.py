"""The metrics of device settings, found as a stranger's are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from harness import ConfigError, Dataset, Example, Message, MetricBatch, Persona, Prompt, Protocol
from harness.benchmarks.devices import DEVICES
from harness.scoring import expand_metrics, metric_named, registry as metrics


def batch(replies, references):
    dataset = Dataset("d", (Persona("a"),), (), Protocol(), ("settings_exact",), schema=DEVICES)
    prompts = [Prompt(f"a/{i}#0", "a", 0, (Message("user", "?"),)) for i in range(len(replies))]
    return MetricBatch(dataset, [Example(*pair) for pair in zip(prompts, references, strict=True)], replies)


def test_a_group_expands_in_place_and_once():
    names = expand_metrics(["nll", "actions", "device_f1"])
    assert names[0] == "nll"
    assert names.count("device_f1") == 1
    assert len(names) == 1 + 12
    with pytest.raises(ConfigError, match="did you mean 'actions'"):
        expand_metrics(["action"])


def test_another_schema_is_refused_in_words():
    other = batch(["TV volume 30."], ["TV volume 30."])
    other = replace(other, dataset=replace(other.dataset, schema={"tv": ["volume"]}))
    with pytest.raises(ConfigError, match="need a tuple of Device as schema"):
        metric_named("settings_exact").compute(other)


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
    assert [columns[c] for c in metric_named("numeric_f1").columns] == [[1, 0], [0, 1], [1, 1]]
    assert metrics.value("numeric_precision", columns) == 1 / 2
    assert metrics.value("numeric_recall", columns) == 1 / 3
    assert metrics.value("numeric_f1", columns) == 2 / 5
    figure = metric_named("numeric_f1").figure
    assert figure is not None
    np.testing.assert_allclose(figure(np.array([[[1, 0, 1]], [[0, 0, 0]]])), [[2 / 3], [np.nan]])
