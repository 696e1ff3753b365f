"""Plugins that end the process, hang, or leave it changed; values and files that are not what they should be.

Each has one line with exit code 2, or no effect on anybody else.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.contract import changes, count_changes, load_with_required, undisturbed
from harness.contract.plugins import load_file
from harness.study import Study, fit_method
from harness.testkit import tiny_trial
from harness.testkit.lab import Lab
from harness.testkit.tiny_world import tiny_backbone

HEAD = """
import math, os, random, signal, sys, threading, time, warnings
from dataclasses import dataclass, field
from harness import *
from harness.adapters import Bank

class Odd(BaseException):
    pass

@dataclass(frozen=True)
class Options:
    size: int = 1
"""
METHOD = {
    "card": 'return MethodCard("a test", Options)',
    "fit(study)": "return study.bare()",
    "predict(study, prompts)": 'return ["it is " + p.messages[-1].text.split()[-1] for p in prompts]',
}
BENCHMARK = {
    "card": 'return BenchmarkCard("a test", Options)',
    "load(options)": """
        people = tuple(Persona(f"p{i}") for i in range(3))
        say = lambda i: (Message("user", f"say {i}"), Message("assistant", f"it is {i}"))
        dialogues = tuple(
            Dialogue(f"{p.id}/{s}{i}", p.id, s, say(i)) for p in people for s in ("train", "validation", "test")
            for i in range(2)
        )
        return Dataset("mine", people, dialogues, Protocol(max_new_tokens=4), ("exact_match",), **FUNCTIONS)
    """,
}
WAYS = {
    "an exit": ("sys.exit(0)", "SystemExit: 0"),
    "an odd end": ("raise Odd('enough')", "Odd: enough"),
    "a generator's end": ("raise GeneratorExit", "GeneratorExit"),
    "an exception": ("1 / 0", "ZeroDivisionError: division by zero"),
    "no end": ("again = lambda: again()\nagain()", "RecursionError: maximum recursion depth exceeded"),
}


def source(hooks: dict[str, str], **changed: str) -> str:
    """A plugin's text; `changed`: the body of a hook in place of its own."""
    parts = [HEAD, "FUNCTIONS = {}"]
    for head, body in hooks.items():
        name = head.partition("(")[0]
        body = textwrap.dedent(changed.get(name, body)).strip("\n")
        parts.append(f"@hookimpl\ndef {head if '(' in head else head + '()'}:\n{textwrap.indent(body, '    ')}")
    return "\n".join(parts) + "\n"


@pytest.fixture
def data(tmp_path) -> Path:
    """A small file of data."""
    lines = [
        {"persona_id": f"p{p}", "prompt": f"say {p * 9 + i}", "reply": f"it is {p * 9 + i}"}
        for p in range(3)
        for i in range(6)
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def run(harness, data, tmp_path):
    """run(plugin text, *more) -> (exit code, stdout, stderr) of `harness run` with the plugin `sample` on the data."""

    def call(text: str, *more: str, method: str = "sample", metric: str = "exact_match"):
        path = tmp_path / "sample.py"
        path.write_text(text)
        return harness(
            "run", "--method", method, "--baseline", method, "--plugin", path, "--benchmark", "jsonl", "--quiet",
            "--set", f"data={data}", "--set", f"metrics={metric}", "--runs-dir", tmp_path / "runs", *more,
        )  # fmt: skip

    return call


def line_of(text: str, words: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


def one_line(code: int, err: str, *words: str) -> str:
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("harness: ")
    for word in words:
        assert word in err
    return err


# ---- ends of the process ----


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("hook", ["card", "fit", "predict"])
def test_however_a_method_ends_its_hook_it_is_one_line_with_plugin_hook_file_and_line(run, hook, way):
    statement, said = WAYS[way]
    text = source(METHOD, **{hook: statement})
    code, out, err = run(text)
    where = f"sample.py:{line_of(text, statement.splitlines()[-1].strip())}: " if way != "no end" else "sample.py:"
    one_line(code, err, "method 'sample'", hook if hook != "card" else "cannot be loaded", where, said)
    assert not out


@pytest.mark.parametrize("place", ["module", "class body", "options", "default"])
def test_an_exit_while_a_plugin_is_loaded_is_one_line_too(run, place):
    text = source(METHOD)
    text = {
        "module": text + "sys.exit(0)\n",
        "class body": text + "class Never:\n    sys.exit(0)\n",
        "options": text.replace("size: int = 1", "size: int = 1\n    def __post_init__(self):\n        sys.exit(0)"),
        "default": text.replace("size: int = 1", "size: int = field(default_factory=lambda: sys.exit(0))"),
    }[place]
    code, _, err = run(text)
    one_line(code, err, "sample", f"sample.py:{line_of(text, 'sys.exit(0)')}: SystemExit: 0")


def test_an_exit_for_some_values_of_an_option_is_told_with_the_option(run):
    body = "    size: int = 1\n    def __post_init__(self):\n        if self.size > 1: sys.exit(0)"
    code, _, err = run(source(METHOD).replace("    size: int = 1", body), "--set", "size=2")
    one_line(code, err, "options of method", "sample.py:", "SystemExit: 0")


@pytest.mark.parametrize("hook", ["load", "ceilings", "yardsticks", "write"])
def test_a_benchmark_that_ends_the_process_is_told(harness, tmp_path, hook):
    text = source(BENCHMARK, **({"load": "sys.exit(0)"} if hook == "load" else {}))
    if hook != "load":
        text = text.replace("FUNCTIONS = {}", f"FUNCTIONS = {{'{hook}': lambda *_: sys.exit(0)}}")
    path = tmp_path / "mine.py"
    path.write_text(text)
    (tmp_path / "sample.py").write_text(source(METHOD))
    if hook == "write":
        code, _, err = harness("data", "write", tmp_path / "out", "--benchmark", "mine", "--plugin", path)
    else:
        code, _, err = harness(
            "run", "--method", "sample", "--baseline", "sample", "--benchmark", "mine", "--plugin", path, "--quiet",
            "--plugin", tmp_path / "sample.py", "--runs-dir", tmp_path / "runs",
        )  # fmt: skip
    one_line(code, err, f"benchmark 'mine', {hook}: mine.py:{line_of(text, 'sys.exit(0)')}: SystemExit: 0")


METRIC = """
def compute(batch):
    {compute}

def figure(counts):
    {figure}

@hookimpl
def metrics():
    {metrics}
    return [Metric("own", "a test", compute, columns=("own:a",), figure=figure)]
"""
FINE = {
    "compute": 'return {"own:a": [1.0] * len(batch.examples)}',
    "figure": "return counts[..., 0]",
    "metrics": "pass",
}


@pytest.mark.parametrize("hook", FINE)
def test_a_metric_that_ends_the_process_is_told(run, hook):
    text = source(METHOD) + METRIC.format(**{**FINE, hook: "sys.exit(0)"})
    code, _, err = run(text, metric="own")
    one_line(code, err, "sample", f"sample.py:{line_of(text, 'sys.exit(0)')}: SystemExit: 0", hook.rstrip("s"))


@pytest.mark.parametrize("hook", ["adapters", "create"])
def test_a_kind_of_adapter_that_ends_the_process_is_told(run, hook):
    bodies = {"adapters": "pass", "create": "pass", hook: "sys.exit(0)"}
    text = source(METHOD, fit="return study.fit_adapters(Shape(), study.by_persona(), None, TrainOptions(epochs=1))")
    text += f"""
@dataclass(frozen=True)
class Shape:
    size: int = 1

def create(backbone, spec, count, seeds):
    {bodies["create"]}

@hookimpl
def adapters():
    {bodies["adapters"]}
    return [AdapterKind("odd", "a test", Shape, create)]
"""
    code, _, err = run(text)
    one_line(code, err, "sample", f"sample.py:{line_of(text, 'sys.exit(0)')}: SystemExit: 0")


def test_an_interruption_is_still_one(run):
    code, _, err = run(source(METHOD, fit="raise KeyboardInterrupt"))
    assert code == 130
    assert err.startswith("interrupted")


def test_the_run_is_stored_as_failed_with_the_line_and_without_a_folder(run, tmp_path):
    run(source(METHOD, fit="sys.exit(0)"))
    (fields,) = (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/run.json"))
    assert fields["status"] == "failed"
    assert re.search(r"fit: sample\.py:\d+: SystemExit", fields["error"])
    assert str(tmp_path) not in json.dumps(fields["error"])


def test_an_exit_that_no_hook_has_called_is_told_too(harness, monkeypatch):
    def ends(*_, **__):
        sys.exit(0)

    monkeypatch.setattr("harness.cli.app", ends)
    one_line(*harness("list")[::2], "something ended the process (SystemExit: 0)")


@pytest.mark.parametrize("hook", ["fit", pytest.param("predict", marks=pytest.mark.attack)])
def test_the_check_reports_an_exit(harness, tmp_path, hook):
    path = tmp_path / "sample.py"
    path.write_text(source(METHOD, **{hook: "sys.exit(0)"}))
    code, out, _ = harness("check", "sample", "--plugin", path)
    assert code == 2
    assert re.search(rf"failed +method 'sample', {hook}: sample.py:\d+: SystemExit: 0", out)


# ---- hooks that do not end ----


def check(folder: Path, text: str, *more: str) -> subprocess.CompletedProcess[str]:
    path = folder / "sample.py"
    path.write_text(text)
    command = [sys.executable, "-m", "harness", "check", "sample", "--plugin", str(path), "--timeout", "2", *more]
    (folder / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(folder / "tmp")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=env)
    assert not list((folder / "tmp").glob("harness-check-*"))
    return done


STUCK = {
    "a loop": "while True: pass",
    "a loop that catches all": "while True:\n    try: time.sleep(1)\n    except BaseException: pass",
    "a regular expression": "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')",
    "a lock": "lock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "a thread that is waited for": "t = threading.Thread(target=time.sleep, args=(1e6,))\nt.start()\nt.join()",
}


@pytest.mark.parametrize("how", ["a loop", *(pytest.param(how, marks=pytest.mark.attack) for how in list(STUCK)[1:])])
def test_a_hook_that_hangs_ends_the_check_with_one_line(tmp_path, how):
    text = source(METHOD, fit=STUCK[how])
    done = check(tmp_path, text)
    one_line(done.returncode, done.stderr, "method 'sample', fit: ", "sample.py:", "has not ended after 2 s")
    assert re.search(r"^fits +failed .*sample\.py:\d+: has not ended after 2 s", done.stdout, re.MULTILINE)


@pytest.mark.attack
@pytest.mark.parametrize("hook", ["card", "predict", "module"])
def test_so_it_does_wherever_it_hangs(tmp_path, hook):
    text = source(METHOD, **{hook: "time.sleep(1e6)"}) + ("time.sleep(1e6)\n" if hook == "module" else "")
    done = check(tmp_path, text)
    one_line(done.returncode, done.stderr, "sample", f"sample.py:{line_of(text, '1e6')}: has not ended after 2 s")


@pytest.mark.attack
def test_a_thread_that_is_left_running_is_told_and_not_waited_for(tmp_path):
    left = "threading.Thread(target=time.sleep, args=(1e6,)).start()\nreturn study.bare()"
    done = check(tmp_path, source(METHOD, fit=left))
    assert done.returncode == 2, done.stderr
    assert re.search(r"process_unchanged +failed +left changed: fit: threads left running", done.stdout)


# ---- what is left changed ----

SETTINGS = {
    "current folder": ("os.chdir('/')", os.getcwd),
    "environment": ("os.environ['HARNESS_TEST'] = '1'", lambda: os.environ.get("HARNESS_TEST")),
    "warning filters": ("warnings.simplefilter('error')", lambda: list(warnings.filters)),
    "import path": ("sys.path.insert(0, '/nowhere')", lambda: list(sys.path)),
    "recursion limit": ("sys.setrecursionlimit(5000)", sys.getrecursionlimit),
    "denormal numbers": ("import torch; torch.set_flush_denormal(True)", lambda: 5e-324 * float("1") != 0),
    "random numbers of Python": ("random.random()", random.getstate),
    "random numbers of numpy": ("import numpy; numpy.random.seed(1)", lambda: np.random.get_state()[1].tolist()),  # pyright: ignore
    "numpy errors": ("import numpy; numpy.seterr(all='raise')", np.geterr),
    "random numbers of torch": ("import torch; torch.rand(1)", lambda: torch.get_rng_state().tolist()),
    "threads of torch": ("import torch; torch.set_num_threads(torch.get_num_threads() + 1)", torch.get_num_threads),
    "default dtype": ("import torch; torch.set_default_dtype(torch.float64)", torch.get_default_dtype),
    "default device": ("import torch; torch.set_default_device('meta')", lambda: str(torch.get_default_device())),
    "deterministic algorithms": (
        "import torch; torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())",
        torch.are_deterministic_algorithms_enabled,
    ),
    "precision of products": (
        "import torch; torch.set_float32_matmul_precision('medium')",
        torch.get_float32_matmul_precision,
    ),
    "gradient mode": ("import torch; torch.set_grad_enabled(False)", torch.is_grad_enabled),
    "hooks on all modules": (
        "import torch; torch.nn.modules.module.register_module_forward_hook(print)",
        lambda: len(torch.nn.modules.module._global_forward_hooks),
    ),
    "signal handlers": (
        "signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        lambda: __import__("signal").getsignal(__import__("signal").SIGUSR1),
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_a_hook_changes_is_put_back_and_named(tmp_path, name):
    statement, value = SETTINGS[name]
    path = tmp_path / "sample.py"
    path.write_text(source(METHOD, fit=f"{statement}\nreturn 'fitted'"))
    method, earlier, before = load_file(path), count_changes(), value()
    assert method.fit(None) == "fitted"  # pyright: ignore
    assert value() == before
    assert [change.what for change in changes(earlier)] == [name]


@pytest.mark.parametrize("name", ["default dtype", "current folder", "random numbers of numpy"])
def test_so_is_what_an_import_changes_and_that_decides_on_results(tmp_path, name):
    statement, value = SETTINGS[name]
    path = tmp_path / "sample.py"
    path.write_text(source(METHOD) + statement + "\n")
    earlier, before = count_changes(), value()
    load_file(path)
    assert value() == before
    assert [(change.hook, change.what) for change in changes(earlier)] == [("import", name)]


def test_an_import_may_set_the_path_for_its_own_later_imports(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "helper_of_a_test.py").write_text("answer = 42\n")
    path = tmp_path / "sample.py"
    path.write_text(
        source(METHOD, fit="import helper_of_a_test\nreturn helper_of_a_test.answer")
        + (f"sys.path.insert(0, {str(tmp_path / 'beside')!r})\n")
    )
    assert load_file(path).fit(None) == 42  # pyright: ignore


BACKBONE = {
    "hooks on the backbone": (
        "study.backbone.model.register_forward_hook(lambda *_: None)",
        lambda model: len(model._forward_hooks),
    ),
    "mode of the backbone": ("study.backbone.model.train()", lambda model: any(m.training for m in model.modules())),
    "gradients of the backbone": (
        "next(study.backbone.model.parameters()).requires_grad_(True)",
        lambda model: any(p.requires_grad for p in model.parameters()),
    ),
}


@pytest.mark.parametrize("name", [*BACKBONE, "another forward"])
def test_what_a_hook_leaves_on_the_backbone_is_taken_away_and_named(tmp_path, name):
    statement, value = BACKBONE.get(name, ("study.backbone.model.forward = print", lambda m: "forward" in vars(m)))
    path = tmp_path / "sample.py"
    path.write_text(source(METHOD, fit=f"{statement}\nreturn study.bare()"))
    trial = tiny_trial("sample", tmp_path / "store", [path])
    assert not value(trial.study.backbone.model)
    assert trial.changed == [name if name in BACKBONE else "hooks on the backbone"]


def test_what_a_hook_leaves_on_a_base_that_it_has_made_itself_is_taken_away(tmp_path):
    base = tmp_path / "below.py"
    base.write_text(
        source(METHOD, fit="return study.fit_adapters(LoRA(2), study.for_all(), None, TrainOptions(epochs=1))")
    )
    path = tmp_path / "sample.py"
    hooked = 'study.fitted("below").base().model.register_forward_hook(print)\nreturn study.bare()'
    path.write_text(source(METHOD, fit=hooked).replace('test", Options', 'test", Options, requires=("below",)'))
    methods = load_with_required("sample", [path, base])
    lab = Lab(methods, "sample", tmp_path / "store")
    study = lab._study(methods["below"], None, tiny_backbone(), 0, {}, methods["below"].card.options(), Study, "one")
    below = fit_method(methods["below"], study)
    own = lab._study(
        methods["sample"], None, study.backbone, 0, {"below": below}, methods["sample"].card.options(), Study, "one"
    )
    earlier = count_changes()
    fit_method(methods["sample"], own)
    assert not below.base().model._forward_hooks
    assert [change.what for change in changes(earlier)] == ["hooks on the backbone"]


def test_what_a_service_imports_hides_nothing(tmp_path):
    (tmp_path / "lazy_part_of_a_test.py").write_text("")
    path = tmp_path / "sample.py"
    path.write_text(source(METHOD, fit="os.environ['HARNESS_TEST'] = '1'\nstudy.serve()\nreturn 'fitted'"))

    class Imports:
        @undisturbed()
        def serve(self) -> None:
            assert "HARNESS_TEST" not in os.environ
            sys.modules["lazy_part_of_a_test"] = sys

    earlier = count_changes()
    load_file(path).fit(Imports())  # pyright: ignore
    del sys.modules["lazy_part_of_a_test"]
    assert [change.what for change in changes(earlier)] == ["environment"]


FITTING = source(
    {**METHOD, "predict(study, fitted, prompts)": "return study.generate(fitted, prompts)"},
    fit="""
        import torch, numpy
        DISTURB
        return study.fit_adapters(
            SoftPrompt(2), study.by_persona(), None, TrainOptions(epochs=1, learning_rate=1e-2)
        )
    """,
    predict="DISTURB\nreturn study.generate(fitted, prompts)",
)
DISTURB = (
    "import torch, numpy; torch.set_num_threads(1); torch.set_default_dtype(torch.float64); torch.manual_seed(1); "
    "numpy.random.seed(2); random.seed(3); torch.set_grad_enabled(False); os.chdir('/'); "
    "torch.use_deterministic_algorithms(False); sys.setrecursionlimit(4000)"
)


def adapters_and_replies(folder: Path) -> list[object]:
    import pyarrow.parquet

    weights = [path.read_bytes() for path in sorted(folder.glob("adapters/*.safetensors"))]
    assert weights
    return [*weights, pyarrow.parquet.read_table(folder / "replies.parquet").to_pylist()]


@pytest.mark.slow
def test_others_get_the_same_bits_after_a_plugin_that_changes_everything(harness, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # and folders are given relative to it
    for name, text in {"calm": FITTING.replace("DISTURB", ""), "wild": FITTING.replace("DISTURB", DISTURB)}.items():
        Path(f"{name}.py").write_text(text)

    def run(method: str, runs: str) -> Path:
        code, _, err = harness(
            "run", "--method", method, "--baseline", "calm", "--plugin", "calm.py", "--plugin", "wild.py", "--quiet",
            "--benchmark", "jsonl", "--set", f"data={data.name}", "--set", "metrics=exact_match", "--runs-dir", runs,
        )  # fmt: skip
        assert code == 0, err
        return Path(runs)

    quiet = run("calm", "quiet")
    loud = run("wild", "loud")  # the baseline is made after it, in the same process and store
    (calm,), (after,), (wild,) = quiet.glob("calm-*"), loud.glob("calm-*"), loud.glob("wild-*")
    assert calm.name == after.name
    assert adapters_and_replies(calm) == adapters_and_replies(after)
    assert adapters_and_replies(calm) == adapters_and_replies(wild), "what a service does is not disturbed either"
    assert not json.loads((after / "run.json").read_text())["flags"]
    (flag,) = json.loads((wild / "run.json").read_text())["flags"]
    assert flag["kind"] == "changed_global_state"
    assert {"fit: default dtype", "predict: random numbers of torch", "fit: current folder"} <= set(flag["what"])
    _, out, _ = harness("show", wild.name, "--runs-dir", "loud")
    assert "flags: changed global state (fit: " in out


# ---- values that are not what they should be ----


def test_half_a_surrogate_pair_in_a_reply_is_refused(run):
    code, _, err = run(source(METHOD, predict='return ["\\ud800" for _ in prompts]'))
    one_line(code, err, "method 'sample'", "predict replied half of a surrogate pair to prompt 'p0/")


NOTES = {
    "a set": "{1}",
    "an object": "object()",
    "no number": "math.nan",
    "more than a number holds": "1e400",
    "a circle": "loop",
    "bytes": "b'x'",
    "an odd key": "{(1, 2): 3}",
    "half a pair": "'\\ud800'",
    "half a pair as key": "{'\\ud800': 1}",
    "nesting": "deep(100)",
    "endless nesting": "deep(100_000)",
}


@pytest.mark.parametrize("note", NOTES)
def test_a_note_that_is_no_json_is_refused_where_it_is_made(run, note):
    body = f"""
        loop = []
        loop.append(loop)
        def deep(n):
            found = []
            for _ in range(n):
                found = [found]
            return found
        study.note("mine", {NOTES[note]})
        return study.bare()
    """
    one_line(*run(source(METHOD, fit=body))[::2], "the note 'mine' ")


def test_a_note_is_kept_as_it_was_given(run, tmp_path):
    body = (
        'mine = {"a": [1, 2.5, None, (True, "x")]}\nstudy.note("mine", mine)\nmine["a"] = {1}\nstudy.notes["b"] = {2}'
    )
    code, _, err = run(source(METHOD, fit=body + "\nreturn study.bare()"))
    assert code == 0, err
    (fields,) = (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/run.json"))
    assert fields["notes"] == {"mine": {"a": [1, 2.5, None, [True, "x"]]}}


VALUES = {
    "1e308": ("[1e308] * n", "must lie within 1e+100"),
    "infinity": ("[math.inf] * n", "must lie within 1e+100"),
    "a text": ("['much'] * n", "what is no number"),
    "a whole number without end": ("[10 ** 400] * n", "what is no number"),
    "too few": ("[1.0]", "1 values for column 'own:a'"),
    "nothing": ("None", "nothing for column 'own:a'"),
}


@pytest.mark.parametrize("value", VALUES)
def test_values_of_a_metric_that_no_sum_could_hold_are_refused(run, value):
    given, said = VALUES[value]
    compute = f'n = len(batch.examples)\n    return {{"own:a": {given}}}'
    code, _, err = run(source(METHOD) + METRIC.format(**{**FINE, "compute": compute}), metric="own")
    one_line(code, err, "metric 'own'", said)


@pytest.mark.parametrize("figure", ["return 'much'", "return counts"])
def test_a_figure_that_is_no_number_is_refused(run, figure):
    code, _, err = run(source(METHOD) + METRIC.format(**{**FINE, "figure": figure}), metric="own")
    one_line(code, err, "metric plugin 'sample', figure: ")


def test_a_reply_that_is_a_number_without_measure_counts_as_wrong_and_breaks_no_sum(run, data):
    data.write_text(
        "".join(
            json.dumps({"persona_id": f"p{p}", "prompt": f"say {i}", "reply": str(i)}) + "\n"
            for p in range(3)
            for i in range(1, 6)
        )
    )
    text = source(METHOD, predict='return ["1e308" for _ in prompts]')
    code, _, err = run(text, "--set", "choices=1..5", metric="mae,rmse")
    assert code == 0, err


@pytest.mark.parametrize("score", ["1e308", "-1e101", "1e400", "nan"])
def test_imported_scores_that_no_sum_could_hold_are_refused(harness, tmp_path, score):
    path = tmp_path / "scores.csv"
    path.write_text(f"persona,n,score\np0,1000000,{score}\np1,3,1\n")
    code, _, err = harness(
        "import", path, "--method", "x", "--benchmark", "b", "--metric", "odd", "--example-set", "s", "--unit", "raw",
        "--higher-is-better", "--runs-dir", tmp_path / "runs",
    )  # fmt: skip
    one_line(code, err, "scores.csv:2: 'score' ")


@pytest.mark.parametrize(
    "option",
    ["max_new_tokens=-5", "max_new_tokens=0", "max_prompt_tokens=-1", "limit_personas=-1", "at_least=-1",
     "holdout_personas=-1", "choices=[a,a]", "protocol.choices=[]x", "max_new_tokens=1.5", "split_seed=x"],
)  # fmt: skip
def test_impossible_options_are_refused(run, option):
    code, _, err = run(source(METHOD), "--set", option)
    assert code == 2
    assert err.startswith("harness: ")
    assert option.partition("=")[0].rpartition(".")[2] in err


@pytest.mark.parametrize("sign", ["[", "{a: "])
def test_brackets_without_end_are_one_line(harness, tmp_path, sign):
    path = tmp_path / "x.yaml"
    path.write_text("method: sample\nset: " + sign * 100_000)
    one_line(*harness("run", "--config", path)[::2], "x.yaml:2: nested deeper than 64 levels")
    one_line(*harness("sweep", path)[::2], "nested deeper than 64 levels")
    one_line(*harness("run", "--method", "zero_shot", "--set", "on=" + sign * 100_000)[::2], "nested deeper than")


@pytest.mark.parametrize("benchmark", ["jsonl", "jokes", "lamp", "edgewise"])
def test_json_without_end_in_data_is_told(harness, tmp_path, benchmark):
    path = tmp_path / "x.jsonl"
    path.write_text("[" * 100_000)
    code, _, err = harness(
        "run", "--method", "zero_shot", "--benchmark", benchmark, "--set", f"data={path}", "--dry-run"
    )
    one_line(code, err, "not JSON")


# ---- files that are none ----

CALLS = {
    "config": ["run", "--config", "FILE", "--dry-run"],
    "sweep": ["sweep", "FILE", "--dry-run"],
    "tune": ["tune", "FILE"],
    "plugin": ["run", "--method", "x", "--plugin", "FILE"],
    "listed plugin": ["list", "metrics", "--plugin", "FILE"],
    "import": ["import", "FILE", "--method", "x", "--benchmark", "b", "--metric", "similarity", "--example-set", "s"],
    "scorer": ["run", "--method", "zero_shot", "--scorer", "FILE", "--dry-run"],
    "backbone": ["run", "--method", "zero_shot", "--backbone", "FILE", "--dry-run"],
    "backbone to fetch": ["backbone", "get", "FILE", "--output", "OUT"],
    "recipe": ["backbone", "train", "FILE", "--output", "OUT"],
    "template": ["run", "--method", "zero_shot", "--chat-template", "FILE", "--dry-run"],
    **{
        name: ["run", "--method", "zero_shot", "--benchmark", name, "--set", "data=FILE", "--dry-run"]
        for name in ("jsonl", "jokes", "lamp", "edgewise", "convincing", "offensiveness")
    },
    "clusters": ["run", "--method", "zero_shot", "--benchmark", "edgewise", "--set", "data=DATA", "--set",
                 "clusters=FILE", "--dry-run"],
}  # fmt: skip
RARE = ("device", "unreadable", "missing", "impossible", "nobody's")
ENDINGS = {"plugin": ".py", "listed plugin": ".py", "backbone": ".gguf", "backbone to fetch": ".gguf"}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "folder", *(pytest.param(kind, marks=pytest.mark.attack) for kind in RARE)])
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_file_is_one_line_and_is_not_waited_for(harness, tmp_path, monkeypatch, call, kind):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / f"x{ENDINGS.get(call, '.yaml')}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "unreadable":
        path.write_text("x")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user reads everything")
    elif kind in ("impossible", "nobody's"):
        path = Path("a\0b" if kind == "impossible" else "~nobody_of_that_name/x.py")
    messages = [{"role": "user", "text": "a"}, {"role": "assistant", "text": "b"}]
    people = [json.dumps({"persona_id": f"p{i}", "messages": messages}) + "\n" for i in range(9)]
    (tmp_path / "data.jsonl").write_text("".join(people))
    given = {"FILE": str(path), "OUT": str(tmp_path / "out"), "data=FILE": f"data={path}",
             "data=DATA": f"data={tmp_path / 'data.jsonl'}", "clusters=FILE": f"clusters={path}"}  # fmt: skip
    code, out, err = harness(*(given.get(word, word) for word in CALLS[call]))
    assert code == 2, err
    assert err.startswith("harness: ")
    assert err.count("\n") <= 2
    assert not out
