"""Metrics by name: those of the core, one signature, what is undefined, and that nothing heavy is imported."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from harness import (
    ConfigError,
    Dataset,
    Example,
    Likelihood,
    Message,
    Metric,
    MetricBatch,
    Persona,
    PluginError,
    Prompt,
    Protocol,
)
from harness.benchmarks.devices import DEVICES
from harness.contract.metric import CORE_METRICS
from harness.scoring import registry as metrics
from harness.scoring.registry import score_columns, value
from harness.statistics import f1


def batch(replies, references, choices=(), **given):
    dataset = Dataset("d", (Persona("a"),), (), Protocol(choices=choices), ("accuracy",), schema=DEVICES)
    found = [
        Example(Prompt(f"a/{i}#0", "a", 0, (Message("user", "?"),)), reference)
        for i, reference in enumerate(references)
    ]
    return MetricBatch(dataset, found, replies, **given)


def of(*nats):
    """The likelihood of a reference of one character a token."""
    return Likelihood(np.array(nats), np.arange(1, len(nats) + 1))


def test_a_typo_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'similarity'"):
        metrics.metric_named("similarty")


def test_no_plugin_may_take_the_name_of_a_metric_of_the_core():
    assert set(metrics.CORE) == CORE_METRICS


@pytest.mark.parametrize("name", [line.name for line in metrics.list_metrics()])
def test_every_metric_returns_its_columns_at_full_length(name):
    class Embedder:
        def embed(self, texts):
            return np.ones((len(texts), 384), dtype=np.float32)

    metric = metrics.metric_named(name)
    columns = metric.compute(
        batch(["1", "TV volume 30."], ["2", "TV volume 40."], embedder=Embedder(), likelihoods=[of(0.5, 0.5), of(0.0)])
    )
    assert set(metric.columns) <= set(columns)
    assert all(len(column) == 2 for column in columns.values())
    assert metric.pooled == (metric.figure is not None)
    metrics.value(name, columns)


def test_exact_match_forgives_white_space_only():
    assert metrics.exact_match(" a  b\n", "a b") == 1
    assert metrics.exact_match("A b", "a b") == 0
    assert metrics.exact_match("a b.", "a b") == 0


def test_accuracy_takes_the_most_probable_choice_and_mae_the_reply():
    log_probs = np.log([[0.1, 0.2, 0.7], [0.6, 0.2, 0.2]])
    scored = metrics.score_columns(
        ["accuracy", "mae"], batch(["2", "2"], ["3", "3"], ("1", "2", "3"), choice_log_probs=log_probs)
    )
    assert scored == {"accuracy": [1.0, 0.0], "mae": [1.0, 1.0]}


def test_accuracy_without_probabilities_compares_the_reply():
    assert metrics.score_columns(["accuracy"], batch(["3 ", "x"], ["3", "3"]))["accuracy"] == [1.0, 0.0]


def test_mae_punishes_an_unreadable_reply_with_the_worst_choice():
    assert metrics.absolute_error("four", "4", ("1", "2", "5")) == 3
    assert math.isnan(metrics.absolute_error("four", "4"))
    assert metrics.absolute_error(" 4.5", "4") == 0.5
    assert math.isnan(metrics.absolute_error("4", "nan"))


def test_nll_is_per_token_and_undefined_without_likelihood():
    assert metrics.score_columns(["nll"], batch(["a"], ["a"], likelihoods=[of(1.0, 2.0, 0.5, 2.5)]))["nll"] == [1.5]
    assert math.isnan(metrics.score_columns(["nll"], batch(["a"], ["a"]))["nll"][0])
    assert math.isnan(metrics.value("nll", {"nll": [math.nan]}))


def test_a_token_belongs_to_the_part_of_a_reference_in_which_it_ends():
    """Of "Yes. I do", cut behind ". ": "Yes", ".", " I", " do" and the end of the turn; then with a token ". I"."""
    whole = Likelihood(np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.array([3, 4, 6, 9, 10]))
    assert whole.split(5) == ((3.0, 2), (28.0, 3))
    assert whole.whole == (31.0, 5)
    assert Likelihood(np.array([1.0, 2.0, 8.0]), np.array([3, 6, 10])).split(5) == ((1.0, 1), (10.0, 2))
    assert whole.split(0) == ((0.0, 0), (31.0, 5))


def test_a_batch_of_unlike_lengths_is_refused():
    with pytest.raises(ValueError, match="replies"):
        batch(["a"], ["a", "b"])


def test_importing_the_registry_does_not_import_torch():
    code = (
        "import sys; from harness.scoring import metric_named; metric_named('nll'); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_metric_returns_is_checked_before_it_is_used(monkeypatch):
    def brief(batch):
        return {"brief": [1.0]}

    monkeypatch.setitem(metrics.CORE, "brief", Metric("brief", "too short", brief))
    with pytest.raises(PluginError, match="1 values for column 'brief', wanted 2"):
        metrics.score_columns(["brief"], batch(["a", "b"], ["a", "b"]))
    monkeypatch.setitem(metrics.CORE, "brief", Metric("brief", "of another name", lambda batch: {"brie": [1.0, 1.0]}))
    with pytest.raises(PluginError, match="nothing for column 'brief'"):
        metrics.score_columns(["brief"], batch(["a", "b"], ["a", "b"]))
    counts = ("tp", "fp", "fn")
    for name in ("one", "two"):
        columns = {c: [1.0, 1.0] for c in counts}
        metric = Metric(name, "counts", lambda batch, c=columns: c, columns=counts, figure=f1)
        monkeypatch.setitem(metrics.CORE, name, metric)
    with pytest.raises(PluginError, match="another metric has a column 'tp' too"):
        metrics.score_columns(["one", "two"], batch(["a", "b"], ["a", "b"]))


# ---- what benchmarks of real people ask for ----


def batch_of(pairs, choices=()):
    people = [Persona("p")]
    examples = [Example(Prompt(f"p/{i}#0", "p", 0, ()), wanted) for i, (_, wanted) in enumerate(pairs)]
    dataset = Dataset("d", tuple(people), (), Protocol(choices=choices), ("macro_f1",))
    return MetricBatch(dataset, examples, [got for got, _ in pairs])


def test_macro_f1_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(0)
    choices = ("a", "b", "c", "d", "never")
    pairs = [(choices[generator.integers(4)], choices[generator.integers(3)]) for _ in range(60)]
    columns = score_columns(["macro_f1"], batch_of(pairs, choices))
    wanted = f1_score([w for _, w in pairs], [g for g, _ in pairs], average="macro", labels=list(choices[:4]))
    assert value("macro_f1", columns) == pytest.approx(wanted)


def test_rmse_and_rouge():
    columns = score_columns(["rmse", "mae"], batch_of([("1", "3"), ("4", "4"), ("?", "5")], ("1", "2", "3", "4", "5")))
    assert value("rmse", columns) == pytest.approx(np.sqrt((4 + 0 + 16) / 3))
    assert value("mae", columns) == pytest.approx(2.0)
    columns = score_columns(["rouge_1", "rouge_l"], batch_of([("the cat sat", "the cat"), ("b a", "a b"), ("", "x")]))
    assert columns["rouge_1"] == pytest.approx([0.8, 1.0, 0.0])
    assert columns["rouge_l"] == pytest.approx([0.8, 0.5, 0.0])
