"""Cards that another process has read: the same options, and no file in the wrong process."""

from __future__ import annotations

import pytest

from harness.contract import option_types, plain
from harness.contract.plugins import load_method
from harness.errors import PluginError
from harness.workers.cards import files_for, read_card, trusted_files

METHOD = """
import dataclasses, pathlib
from harness import MethodCard, hookimpl

@dataclasses.dataclass(frozen=True)
class Options:
    place: pathlib.Path = pathlib.Path("here")

@hookimpl
def card():
    return MethodCard(summary="m", options=Options)

@hookimpl
def fit(study):
    return study.bare()
"""
BENCHMARK = """
import dataclasses
from harness import BenchmarkCard, hookimpl

@dataclasses.dataclass(frozen=True)
class Options:
    pass

@hookimpl
def card():
    return BenchmarkCard(summary="b", options=Options)

@hookimpl
def load(options):
    raise NotImplementedError
"""
METRIC = """
from harness import Metric, hookimpl

@hookimpl
def metrics():
    return [Metric(name="letters", summary="s", unit="raw", compute=lambda batch: {})]
"""


@pytest.mark.parametrize("name", ["hierarchical_prefix", "retrieval"])
def test_a_card_is_the_same_in_another_process(name):
    real, read = load_method(name), read_card(name)
    assert (read.source, read.hooks) == (real.source, None)
    options = read.card.options()
    assert plain(options) == plain(real.card.options())
    assert list(option_types(read.card.options)) == list(option_types(real.card.options))
    assert read.requires(options) == real.requires(real.card.options())


def test_each_process_imports_the_files_that_it_needs(tmp_path):
    texts = {"one": METHOD, "two": METHOD, "world": BENCHMARK, "counts": METRIC}
    files = []
    for name, text in texts.items():
        files.append(tmp_path / f"{name}.py")
        files[-1].write_text(text)
    one, _, world, counts = map(str, files)
    assert files_for(["one"], files) == (one, counts)
    assert trusted_files(files) == (world, counts)
    assert read_card("one", files).source.file == one
    assert plain(read_card("one", files).card.options()) == {"place": "here"}
    files[0].with_name("both.py").write_text(METHOD + METRIC)
    with pytest.raises(PluginError, match="has a method and the metric 'letters'"):
        trusted_files([files[0].with_name("both.py")])


def test_what_is_wrong_with_a_plugin_is_said_as_ever(tmp_path):
    (tmp_path / "ends.py").write_text("import os; os._exit(3)")
    with pytest.raises(PluginError, match=r"ends\.py cannot be read: its process ended with exit code 3"):
        read_card("ends", [tmp_path / "ends.py"])
    with pytest.raises(PluginError, match="there is no method 'persona_prefx'; did you mean 'persona_prefix'"):
        read_card("persona_prefx")
