"""Metrics and kinds of adapters of plugins: loading, faults, names that are taken, and where they can stand."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from harness import Dataset, Example, Message, MetricBatch, Prompt, Protocol
from harness.contract import extensions_of, list_extensions, load_extensions, load_plugin
from harness.errors import ConfigError, PluginError
from harness.scoring import expand_metrics, list_metrics, metric_named, metric_sources
from harness.scoring.registry import score_columns

METRIC = """
from harness import Metric, hookimpl

def lengths(batch):
    return {"length": [float(len(reply)) for reply in batch.replies]}

@hookimpl
def metrics():
    return [Metric("length", "characters of the reply", lengths, unit="raw", higher_is_better=False)]
"""
ADAPTER = """
from dataclasses import dataclass
from harness import AdapterKind, hookimpl

@dataclass(frozen=True)
class Shift:
    size: int = 1

@dataclass
class Loose:
    size: int = 1

@hookimpl
def adapters():
    return [AdapterKind("shift", "a shift", Shift, print)]
"""
METHOD = """
from dataclasses import dataclass
from harness import MethodCard

@dataclass(frozen=True)
class Options:
    pass

@hookimpl
def card():
    return MethodCard("measures itself", Options)

@hookimpl
def fit(study):
    return study.bare()
"""


@pytest.fixture(autouse=True)
def no_other_files(monkeypatch):
    """What loose files of other tests have brought is not known here."""
    monkeypatch.setattr("harness.contract.extensions._loose", {})


def write(folder: Path, source: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path


def test_an_installed_metric_is_found_by_name_and_listed_with_its_source(site):
    file = site("words", METRIC, group="harness.metrics")
    assert metric_named("length").unit == "raw"
    (line,) = [line for line in list_metrics() if line.name == "length"]
    assert (line.distribution, line.version, line.file) == ("strange", "1.5", file)
    assert line.summary == "characters of the reply"
    assert metric_sources(["similarity", "length"]) == metric_sources(["length"])
    assert metric_sources(["similarity"]) == []


def test_a_metric_in_the_file_of_a_method_can_be_asked_for_once_the_file_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown metric 'length'.*A plugin that brings it must be installed"):
        metric_named("length")
    path = write(tmp_path, METRIC + METHOD)
    assert load_plugin("method", "mine", [path]).card.summary == "measures itself"
    assert not metric_named("length").higher_is_better
    before = metric_sources(["length"])
    path.write_text(path.read_text().replace("float(len(reply))", "len(reply) / 2"))
    load_extensions([path])
    assert metric_sources(["length"]) != before, "another code is another identity"


def test_a_file_may_bring_nothing_but_metrics_and_is_then_no_method(tmp_path):
    path = write(tmp_path, METRIC)
    load_extensions([path])
    assert metric_named("length")
    with pytest.raises(PluginError, match="there is no method 'mine'"):
        load_plugin("method", "mine", [path])


def test_a_kind_of_adapter_is_brought_in_the_same_way(site, tmp_path):
    file = site("shift", ADAPTER, group="harness.adapters")
    assert [(kind.item.name, kind.source.file) for kind in extensions_of("adapter")] == [("shift", file)]
    with pytest.raises(PluginError, match=r"the name 'shift' is taken by strange 1.5"):
        load_extensions([write(tmp_path, ADAPTER)])


def test_the_example_of_contributing_is_a_metric(tmp_path):
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    source = text.partition("begin: length_error.py -->\n```python\n")[2].partition("```")[0]
    load_extensions([write(tmp_path, source, "length_error.py")])
    prompts = [Prompt(f"d#{i}", "p", i, (Message("user", "?"),)) for i in range(2)]
    dataset = Dataset("d", (), (), Protocol(), ("length_error",))
    batch = MetricBatch(dataset, [Example(prompt, "four") for prompt in prompts], ["", "fours"])
    assert score_columns(["length_error"], batch) == {"length_error": [4.0, 1.0]}


def test_a_group_asks_for_its_metrics(tmp_path):
    second = ', group="size"), Metric("l2", "x", lambda b: {}, group="size")]'
    both = METRIC.replace(")]", second)
    load_extensions([write(tmp_path, both)])
    assert expand_metrics(["nll", "size"]) == ("nll", "length", "l2")


def test_two_files_with_one_name_are_refused_and_a_later_command_may_bring_another(tmp_path):
    one, two = write(tmp_path, METRIC), write(tmp_path / "other", METRIC.replace("characters", "letters"))
    with pytest.raises(PluginError, match=r"two files bring the metric 'length': .*mine.py and .*other"):
        load_extensions([one, two])
    load_extensions([one])
    load_extensions([two])
    assert metric_named("length").summary == "letters of the reply"


def test_two_distributions_with_one_name_are_both_refused_and_say_so(site):
    site("words", METRIC, distribution="strange", group="harness.metrics")
    site("words", METRIC, distribution="odd", group="harness.metrics")
    errors = [line.error for line in list_extensions("metric") if line.error]
    assert len(errors) == 2
    assert "the metric 'length' is also brought by" in errors[0]
    with pytest.raises(ConfigError, match=r"unknown metric 'length'(.|\n)*is also brought by (odd|strange) 1.5"):
        metric_named("length")
    assert metric_named("device_f1"), "others are not touched"


def test_a_broken_plugin_is_listed_and_named_where_a_metric_is_missing(site):
    file = site("words", "raise RuntimeError('not today')", group="harness.metrics")
    (line,) = [line for line in list_metrics() if line.error]
    assert line.file == file
    assert metric_named("similarity")
    with pytest.raises(ConfigError, match=r"unknown metric 'length'(.|\n)*not today"):
        metric_named("length")


METRICS = {
    "nothing": ("return None", r"metrics\(\) returned nothing; it must return a list of harness.Metric"),
    "one metric": ('return Metric("a", "b", lengths)', "returned a Metric; it must return a list"),
    "a name of the core": ('return [Metric("nll", "b", lengths)]', "the name 'nll' is taken by the harness"),
    "a name twice": ('return [Metric("a", "b", lengths)] * 2', "names 'a' twice"),
    "a name with a blank": ('return [Metric("a b", "b", lengths)]', "use letters, digits"),
    "no summary": ('return [Metric("a", "", lengths)]', "one line of text"),
    "unit": ('return [Metric("a", "b", lengths, unit="%")]', "unit is '%'; known: pt, raw, nats"),
    "needs": ('return [Metric("a", "b", lengths, needs=("embeder",))]', "did you mean 'embedder'"),
    "no function": ('return [Metric("a", "b", None)]', "must be functions"),
    "columns of a mean": ('return [Metric("a", "b", lengths, columns=("x",))]', "one column of its own name"),
    "group": ('return [Metric("a", "b", lengths, group="a")]', "no metric's name"),
}


@pytest.mark.parametrize("fault", METRICS)
def test_faults_of_metrics_are_errors_at_load(tmp_path, fault):
    body, message = METRICS[fault]
    path = write(tmp_path, METRIC.partition("    return [Metric")[0] + f"    {body}\n")
    with pytest.raises(PluginError, match=message) as caught:
        load_extensions([path])
    assert str(path) in str(caught.value)


ADAPTERS = {
    "nothing": ("return []", "it must return a list of harness.AdapterKind"),
    "a name of the core": ('return [AdapterKind("lora", "b", Shift, print)]', "the name 'lora' is taken"),
    "a spec that is no dataclass": ('return [AdapterKind("a", "b", dict, print)]', "spec must be a dataclass"),
    "a spec that can be changed": ('return [AdapterKind("a", "b", Loose, print)]', "Loose can be changed"),
    "create": ('return [AdapterKind("a", "b", Shift, None)]', "create must be a function"),
    "when": ('return [AdapterKind("a", "b", Shift, print, {"width": 1})]', "has no field 'width'"),
}


@pytest.mark.parametrize("fault", ADAPTERS)
def test_faults_of_kinds_of_adapters_are_errors_at_load(tmp_path, fault):
    body, message = ADAPTERS[fault]
    path = write(tmp_path, ADAPTER.partition("    return [AdapterKind")[0] + f"    {body}\n")
    with pytest.raises(PluginError, match=message):
        load_extensions([path])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (METRIC.replace("def metrics()", "def metric()"), r"unknown hook 'metric' .*did you mean 'metrics'"),
        (METRIC.replace("def metrics()", "def metric()") + METHOD, r"unknown hook 'metric' .*did you mean 'metrics'"),
        (METRIC.replace("@hookimpl\ndef metrics()", "def metrics()"), "no hooks found"),
        (METRIC.replace("def metrics()", "def metrics(study)"), "unknown argument 'study'; it takes none"),
        (
            METRIC + METHOD.replace("def fit(study)", "def load(options)"),
            "returned a MethodCard, not BenchmarkC",
        ),
        (METRIC + METHOD.replace("def fit(study)", "def fti(study)"), "unknown hook 'fti'"),
    ],
)
def test_hooks_that_pluggy_would_pass_over_are_errors_here_too(tmp_path, source, message):
    with pytest.raises(PluginError, match=message):
        load_plugin("method", "mine", [write(tmp_path, source)])
