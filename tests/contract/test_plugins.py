"""Loading plugins: entry points of made-up distributions, loose files, every silent gap of pluggy."""

from __future__ import annotations

import hashlib
import sys
import textwrap
from pathlib import Path

import pytest

from harness.contract.data import Message, Prompt
from harness.contract.plugins import Benchmark, Method, list_plugins, load_benchmark, load_file, load_method
from harness.errors import PluginError

HEAD = """
from dataclasses import dataclass
from harness import BenchmarkCard, MethodCard, hookimpl

@dataclass(frozen=True)
class Options:
    strength: float = 1.0
"""
CARD = """
@hookimpl
def card():
    return MethodCard(summary="says the same to everybody", options=Options)
"""
FIT = """
@hookimpl
def fit(study):
    return "fitted"
"""
PREDICT = """
@hookimpl
def predict(study, fitted, prompts):
    return ["same" for _ in prompts]
"""
METHOD = HEAD + CARD + FIT + PREDICT
PROMPTS = [Prompt(f"d{i}#0", "p", 0, (Message("user", "hello"),)) for i in range(3)]


def write(folder: Path, *parts: str, name: str = "echo.py") -> Path:
    path = folder / name
    path.write_text("\n".join(textwrap.dedent(part) for part in parts))
    return path


def test_entry_point_of_a_stranger_is_found_with_its_source(site):
    file = site("echo", METHOD)
    method = load_method("echo")
    assert method.card.summary == "says the same to everybody"
    assert method.fit(None) == "fitted"  # pyright: ignore[reportArgumentType]
    assert method.predict(None, None, PROMPTS) == ["same"] * 3  # pyright: ignore[reportArgumentType]
    assert (method.source.distribution, method.source.version, method.source.file) == ("strange", "1.5", file)
    assert method.source.sha256 == hashlib.sha256(Path(file).read_bytes()).hexdigest()


def test_loose_file_is_named_by_its_stem_and_stays_out_of_the_way(tmp_path):
    path = write(tmp_path, METHOD, name="json.py")
    method = load_method("json", [path])
    assert isinstance(method, Method)
    assert method.name == "json"
    assert method.source.distribution is None
    assert sys.modules["json"].__name__ == "json"  # the standard library's is untouched
    assert "dumps" in dir(sys.modules["json"])
    assert [item.name for item in tmp_path.iterdir()] == ["json.py"]  # no cache folder beside it


def test_a_changed_loose_file_is_loaded_anew_and_an_unchanged_one_is_the_same_module(tmp_path):
    path = write(tmp_path, METHOD)
    first, again = load_file(path), load_file(path)
    assert first.card.options is again.card.options
    path.write_text(path.read_text().replace("to everybody", "to nobody"))
    changed = load_file(path)
    assert changed.card.summary == "says the same to nobody"
    assert changed.source.sha256 != first.source.sha256


def test_hooks_may_take_fewer_arguments_in_any_order(tmp_path):
    path = write(
        tmp_path,
        HEAD,
        CARD,
        FIT.replace("study", ""),
        PREDICT.replace("study, fitted, prompts", "prompts, study"),
    )
    method = load_file(path)
    assert isinstance(method, Method)
    assert method.predict("s", "f", PROMPTS) == ["same"] * 3  # pyright: ignore[reportArgumentType]


def test_benchmark_in_a_loose_file(tmp_path):
    source = """
        from harness import Dataset, Protocol

        @hookimpl
        def card():
            return BenchmarkCard(summary="empty", options=Options)

        @hookimpl
        def load(options):
            return Dataset("mine", (), (), Protocol(), ("similarity",)) if options.strength else None
        """
    path = write(tmp_path, HEAD, source, name="mine.py")
    benchmark = load_benchmark("mine", [path])
    assert isinstance(benchmark, Benchmark)
    assert benchmark.load(benchmark.card.options()).name == "mine"
    with pytest.raises(PluginError, match="load returned NoneType, not a Dataset"):
        benchmark.load(benchmark.card.options(strength=0.0))
    with pytest.raises(PluginError, match="there is no method 'mine'"):
        load_method("mine", [path])


GAPS = {
    "misspelt hook": (
        PREDICT.replace("predict", "perdict"),
        r"unknown hook 'perdict' \(line \d+\); did you mean 'predict'",
    ),
    "unmarked hook": (PREDICT.replace("@hookimpl", ""), r"function 'predict' \(line \d+\) is not marked"),
    "unmarked and misspelt": (
        PREDICT.replace("@hookimpl", "").replace("predict", "predicts"),
        r"no hook 'predict.*did you mean your function 'predicts'",
    ),
    "argument with a default": (
        PREDICT.replace("prompts):", "prompts=()):"),
        "argument 'prompts' has a default",
    ),
    "wrong argument": (
        PREDICT.replace("(study, fitted, prompts)", "(study, fited, prompts)"),
        "did you mean 'fitted'",
    ),
    "keyword-only argument": (PREDICT.replace("(study, fitted, ", "(study, fitted, *, "), "is never filled"),
    "star arguments": (PREDICT.replace("(study, fitted, prompts)", "(*args)"), r"'\*args' is never filled"),
    "generator": (PREDICT.replace("return [", "yield ["), "coroutine or generator"),
    "wrapper": (PREDICT.replace("@hookimpl", "@hookimpl(wrapper=True)"), "is a wrapper"),
    "not a function": (
        "import functools\npredict = hookimpl(functools.partial(max))",
        "is a partial, not a function",
    ),
    "specname": (PREDICT.replace("@hookimpl", "@hookimpl(specname='predcit')"), "did you mean 'predict'"),
}


@pytest.mark.parametrize("gap", GAPS)
def test_what_pluggy_passes_over_is_an_error_at_load(tmp_path, gap):
    replacement, message = GAPS[gap]
    path = write(tmp_path, HEAD, CARD, FIT, replacement)
    with pytest.raises(PluginError, match=message) as caught:
        load_file(path)
    assert str(path) in str(caught.value)


def test_a_method_needs_fit_and_may_leave_predict_to_the_study(tmp_path):
    class Echo:
        def generate(self, fitted, prompts):
            return [f"{fitted} {prompt.id}" for prompt in prompts]

    method = load_file(write(tmp_path, HEAD, CARD, FIT, "def helper(prompts):\n    return prompts\n"))
    assert isinstance(method, Method)
    assert method.predict(Echo(), "said", PROMPTS) == ["said d0#0", "said d1#0", "said d2#0"]  # pyright: ignore[reportArgumentType]
    with pytest.raises(PluginError, match=r"missing hook 'fit\(study\)'"):
        load_file(write(tmp_path, HEAD, CARD, PREDICT, name="other.py"))


def test_all_faults_of_a_plugin_come_together(tmp_path):
    path = write(tmp_path, HEAD, CARD, FIT.replace("(study)", "(study=None)"), PREDICT.replace("predict", "predcit"))
    with pytest.raises(PluginError) as caught:
        load_file(path)
    assert "'study' has a default" in str(caught.value)
    assert "'predcit'" in str(caught.value)


CARDS = {
    "a dict": ('{"summary": "x"}', "returned a dict, not MethodCard"),
    "nothing": ("None", "returned nothing, not MethodCard"),
    "the wrong card": ('BenchmarkCard("x", Options)', "returned a BenchmarkCard"),
    "an instance of options": ('MethodCard("x", Options())', "give the dataclass itself"),
    "options without dataclass": ('MethodCard("x", dict)', "dict is not a dataclass"),
    "an option without default": ('MethodCard("x", Bare)', "option 'size' of Bare has no default"),
    "an option of odd type": ('MethodCard("x", Odd)', "option 'thing' of Odd"),
    "an option of unknown type": ('MethodCard("x", Lost)', "cannot be resolved"),
    "requires without comma": ('MethodCard("x", Options, requires="base")', r"write requires=\('base',\)"),
    "requires itself": ('MethodCard("x", Options, requires=("echo",))', "names 'echo' itself"),
    "shares": ('MethodCard("x", Options, shares="all of them")', "known: persona, cluster, all"),
    "no summary": ('MethodCard(" ", Options)', "one line"),
    "two lines": ('MethodCard("a\\nb", Options)', "one line"),
    "trials": ('MethodCard("x", Options, trials=0)', "whole number from 1"),
    "validation": ('MethodCard("x", Options, validation="testing")', "known: early_stopping, selection, training"),
    "a failing card": ("1 / 0", r"echo.py:\d+: ZeroDivisionError"),
}


@pytest.mark.parametrize("fault", CARDS)
def test_card_is_checked(tmp_path, fault):
    card, message = CARDS[fault]
    odd = """
    class Thing: pass
    @dataclass
    class Bare:
        size: int
    @dataclass
    class Odd:
        thing: Thing = Thing()
    @dataclass
    class Lost:
        size: "Nowhere" = 1
    """
    path = write(
        tmp_path,
        HEAD,
        odd.replace("= Thing()", "= None"),
        f"@hookimpl\ndef card():\n    return {card}",
        FIT,
        PREDICT,
    )
    with pytest.raises(PluginError, match=message):
        load_file(path)


IMPORTS = {
    "an exception": ("x = 1\nraise ValueError('no luck')", r"echo.py:2: ValueError: no luck"),
    "a missing package": ("import nowhere_to_be_found", r"echo.py:1: ModuleNotFoundError"),
    "a syntax error": ("\n\ndef fit(:\n", r"echo.py:3: SyntaxError"),
    "an exit": ("raise SystemExit(0)", r"echo.py:1: SystemExit"),
}


@pytest.mark.parametrize("problem", IMPORTS)
def test_import_faults_name_file_and_line(tmp_path, problem):
    source, message = IMPORTS[problem]
    with pytest.raises(PluginError, match=message):
        load_file(write(tmp_path, source))


def test_import_faults_of_entry_points_name_distribution_file_and_line(site):
    file = site("echo", "import os\nos.nothing_here()")
    with pytest.raises(PluginError, match=r"method 'echo' of strange 1.5") as caught:
        load_method("echo")
    assert f"{file}:2: AttributeError" in str(caught.value)


def test_a_broken_plugin_is_listed_with_its_error_and_does_not_end_the_list(site, tmp_path):
    site("broken", "raise RuntimeError('not today')")
    site("echo", METHOD)
    loose = write(tmp_path, METHOD, name="third.py")
    listed = {item.name: item for item in list_plugins("method", [loose])}
    assert "not today" in (listed["broken"].error or "")
    assert listed["broken"].distribution == "strange"
    assert listed["echo"].error is None
    assert listed["echo"].summary == "says the same to everybody"
    assert listed["third"].file == str(loose)
    assert "third" not in {item.name for item in list_plugins("benchmark", [loose])}


def test_two_distributions_with_one_name_are_refused(site):
    site("echo", METHOD, distribution="strange")
    site("echo", METHOD, distribution="stranger")
    with pytest.raises(PluginError, match=r"registered twice, by strange.* 1.5 and strange.* 1.5"):
        load_method("echo")
    assert all(item.error for item in list_plugins("method") if item.name == "echo")


def test_loose_file_with_a_taken_name_is_refused(site, tmp_path):
    site("echo", METHOD)
    with pytest.raises(PluginError, match=r"the name 'echo' is taken by strange 1.5; rename the file"):
        load_file(write(tmp_path, METHOD))


def test_two_loose_files_with_one_name_are_refused_but_one_given_twice_is_not(tmp_path):
    (tmp_path / "other").mkdir()
    one, two = write(tmp_path, METHOD), write(tmp_path / "other", METHOD)
    assert load_method("echo", [one, str(one)]).name == "echo"
    with pytest.raises(PluginError, match="two files are named 'echo'"):
        load_method("echo", [one, two])


def test_a_class_is_refused_and_an_instance_is_not(site):
    bodies = (CARD + FIT + PREDICT).replace("def card()", "def card(self)")
    bodies = bodies.replace("(study", "(self, study")
    source = HEAD + "class Echo:\n" + textwrap.indent(bodies, "    ") + "\necho = Echo()\n"
    file = Path(site("echo", source))
    points = file.parent / "strange-1.5.dist-info" / "entry_points.txt"
    points.write_text("[harness.methods]\necho = strange_echo:echo\nbare = strange_echo:Echo\n")
    assert load_method("echo").predict(None, None, PROMPTS) == ["same"] * 3  # pyright: ignore[reportArgumentType]
    with pytest.raises(PluginError, match="Echo is a class"):
        load_method("bare")


def test_a_package_is_hashed_with_its_helpers(site):
    file = Path(site("echo", METHOD))
    package = file.with_suffix("")
    package.mkdir()
    file.rename(package / "__init__.py")
    (package / "helper.py").write_text("a = 1\n")
    before = load_method("echo").source.sha256
    (package / "helper.py").write_text("a = 2\n")
    assert load_method("echo").source.sha256 != before


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return ['a']", "1 replies to 3 prompts"),
        ("return 'abc'", "predict returned str"),
        ("return None", "predict returned NoneType"),
        ("return ['a', 2, 'c']", "replied int to prompt 'd1#0'"),
    ],
)
def test_replies_are_checked_at_the_border(tmp_path, body, message):
    predict = f"@hookimpl\ndef predict(prompts):\n    {body}\n"
    method = load_file(write(tmp_path, HEAD, CARD, FIT.replace('return "fitted"', "pass"), predict))
    assert isinstance(method, Method)
    with pytest.raises(PluginError, match=message):
        method.predict(None, None, PROMPTS)  # pyright: ignore[reportArgumentType]
    with pytest.raises(PluginError, match="fit returned nothing"):
        method.fit(None)  # pyright: ignore[reportArgumentType]


def test_unknown_names_and_files_get_a_suggestion(site, tmp_path):
    site("echo", METHOD)
    write(tmp_path, METHOD, name="mine.py")
    with pytest.raises(PluginError, match=r"there is no method 'ecko'; did you mean 'echo'"):
        load_method("ecko")
    with pytest.raises(PluginError, match=r"mnie.py does not exist; did you mean 'mine.py'"):
        load_file(tmp_path / "mnie.py")
    with pytest.raises(PluginError, match="is not a Python file"):
        load_file(tmp_path)
    with pytest.raises(PluginError, match="no hooks found"):
        load_file(write(tmp_path, "x = 1", name="empty.py"))


def test_a_plugin_that_prints_leaves_stdout_clean(tmp_path, capsys):
    load_file(write(tmp_path, "print('noise')", METHOD))
    assert capsys.readouterr().out == ""
