"""The conformance checks: what ships passes, and each broken plugin is caught by the check that is there for it."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from harness import SoftPrompt, TrainOptions
from harness.cli import main
from harness.config.run_config import default_values, help_examples
from harness.errors import PluginError
from harness.testkit.conformance import check_here, check_names, proved, tiny_trial
from harness.testkit.isolated import check_method
from harness.testkit.tiny_world import tiny_dataset
from harness.testkit.watching import texts_in_reach, variations, watched
from tests.conftest import few_epochs

ROOT = Path(__file__).parents[2]
METHODS = sorted(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["harness.methods"])
BASE = default_values()["baseline"]
HEAD = """
import gc, random
from dataclasses import dataclass, field, replace
import torch
from harness import Message, MethodCard, SoftPrompt, TrainOptions, hookimpl

@dataclass(frozen=True)
class Options:
    prompt: SoftPrompt = SoftPrompt(tokens=2)
    train: TrainOptions = TrainOptions(learning_rate=3e-2, epochs=2)

def fitted(study):
    return study.fit_adapters(study.options.prompt, study.by_persona(), None, study.options.train)

def saying(study, notes):
    "The bare backbone with a note of each persona's own in front of the prompt."
    add = lambda p: (Message("system", notes.get(p.persona, "")), *p.messages[1:])
    return study.bare().with_messages(add)
"""
CARD = """
@dataclass(frozen=True)
class NoOptions:
    pass

@hookimpl
def card():
    return MethodCard("a test", Options)
"""
NOTES = CARD.replace("Options)", "NoOptions)")  # the card of a method that trains nothing
FIT = """
@hookimpl
def fit(study):
    return fitted(study)
"""
PREDICT = """
@hookimpl
def predict(study, fitted, prompts):
    return study.generate(fitted, prompts)
"""


def plugin(folder: Path, source: str, name: str = "sample") -> list[Path]:
    """A plugin file; the hooks that `source` does not define are those of an honest method."""
    parts = [HEAD, source]
    parts += [
        part for part, hook in ((CARD, "card"), (FIT, "fit"), (PREDICT, "predict")) if f"def {hook}(" not in source
    ]
    path = folder / f"{name}.py"
    path.write_text("\n".join(parts))
    return [path]


# What is broken, the source, and the checks that fail: no other may.
BROKEN: dict[str, tuple[str, set[str]]] = {
    "leaks between personas: a list that is never emptied": (
        NOTES
        + """
@hookimpl
def fit(study):
    heard, notes = [], {}
    for persona in study.personas:
        heard += [d.messages[1].text for d in study.dialogues(persona.id, "train")]
        notes[persona.id] = " ".join(heard)
    return saying(study, notes)
""",
        {"sharing_scope"},
    ),
    "leaks between personas: one adapter for everybody under a card that says persona": (
        FIT.replace(
            "fitted(study)", "study.fit_adapters(study.options.prompt, study.for_all(), None, study.options.train)"
        ),
        {"sharing_scope"},
    ),
    "leaks between personas: their descriptions": (
        NOTES
        + """
@hookimpl
def fit(study):
    return saying(study, dict.fromkeys([p.id for p in study.personas], study.personas[-1].description))
""",
        {"sharing_scope"},
    ),
    "leaks between clusters": (
        CARD.replace("Options)", 'Options, shares="cluster")')
        + FIT.replace(
            "fitted(study)", "study.fit_adapters(study.options.prompt, study.for_all(), None, study.options.train)"
        ),
        {"sharing_scope"},
    ),
    "ignores the seed: its own in its place": (
        FIT.replace("return", "study._fitter = replace(study._fitter, seed=7)\n    return"),
        {"another_seed"},
    ),
    "ignores the seed: an unseeded generator": (
        """
@hookimpl
def fit(study):
    found = fitted(study).bank
    tensors = found.tensors["prompt_embeddings"]
    drawn = tensors + 0.1 * torch.randn(tensors.shape, dtype=tensors.dtype)
    own = {key: {"prompt_embeddings": values} for key, values in zip(found.keys, drawn)}
    return study.fitted_from(study.options.prompt, own)
""",
        {"same_seed", "process_unchanged"},
    ),
    "ignores the seed: a generator set to a seed of its own": (
        NOTES
        + """
@hookimpl
def fit(study):
    random.seed(3)
    chosen = {p.id: random.choice(study.dialogues(p.id, "train")[:2]) for p in study.personas}
    return saying(study, {who: dialogue.messages[0].text for who, dialogue in chosen.items()})
""",
        {"another_seed", "process_unchanged"},
    ),
    "wrong length": (PREDICT.replace("prompts)\n", "prompts)[:-1]\n"), {"one_reply_per_prompt"}),
    "replies that are no text": (
        "@hookimpl\ndef predict(prompts):\n    return [None for _ in prompts]\n",
        {"one_reply_per_prompt"},
    ),
    "changes the backbone in fit": (
        FIT.replace("return", "next(study.backbone.model.parameters()).data.mul_(1.5)\n    return"),
        {"backbone_unchanged"},
    ),
    "changes the backbone in predict": (
        PREDICT.replace("return", "study.backbone.model.lm_head.weight.data.mul_(1 + 1e-9)\n    return"),
        {"backbone_unchanged"},
    ),
    "leaves a hook on the backbone": (
        FIT.replace("return", "study.backbone.model.register_forward_hook(lambda *_: None)\n    return"),
        {"backbone_unchanged"},
    ),
    "changes what it stands on": (
        CARD.replace("Options)", f'Options, requires=("{BASE}",))')
        + FIT.replace("return", f"next(study.fitted({BASE!r}).base().model.parameters()).data.mul_(1.5)\n    return"),
        {"backbone_unchanged"},
    ),
    "misspelt hook": (PREDICT.replace("def predict(", "def perdict("), {"hooks"}),
    "reads validation as training without saying so": (
        NOTES
        + """
@hookimpl
def fit(study):
    said = {p.id: study.dialogues(p.id, "train") + study.dialogues(p.id, "validation") for p in study.personas}
    return saying(study, {who: " ".join(d.messages[1].text for d in dialogues) for who, dialogues in said.items()})
""",
        {"validation_use"},
    ),
    "trains on validation behind the study's back": (
        FIT.replace(
            "return",
            "every = tuple(replace(d, split='train') for d in study._fitter.dialogues)\n"
            "    study._fitter = replace(study._fitter, dialogues=every)\n    return",
        ),
        {"validation_use"},
    ),
    "fails on an unseen persona": (
        PREDICT.replace(
            "return", "known = {p.id: p for p in study.personas}\n    [known[p.persona] for p in prompts]\n    return"
        ),
        {"unseen_persona"},
    ),
    "fails in fit": (FIT.replace("fitted(study)", "study.backbone.no_such_part"), {"fits"}),
    "forgets to return": (FIT.replace("return ", ""), {"fits"}),
    "replies to all as to the first": (
        PREDICT.replace("fitted, prompts)\n", "fitted, [prompts[0]] * len(prompts))\n"),
        {"prompt_order"},
    ),
    "keeps count between calls": (
        """
CALLS = []

@hookimpl
def predict(study, fitted, prompts):
    again = any(fitted is seen for seen in CALLS)
    CALLS.append(fitted)
    return [text + " again" * again for text in study.generate(fitted, prompts)]
""",
        {"self_null", "prompt_order", "sharing_scope", "no_reference_reachable"},
    ),
    "changes its adapters after they are saved": (
        """
@hookimpl
def fit(study):
    found = fitted(study)
    found.bank.tensors["prompt_embeddings"] += 0.1
    return found
""",
        {"save_and_load"},
    ),
    "looks the references up": (
        PREDICT.replace(
            "return study.generate(fitted, prompts)",
            """
    gc.collect()
    held = [o for o in gc.get_objects() if type(o).__name__ == "Example" and hasattr(o, "reference")]
    known = {o.prompt.id: o.reference for o in held}
    return [known.get(p.id, "") for p in prompts]
""",
        ),
        {"no_reference_reachable"},
    ),
    "does not read an option": (
        FIT.replace(
            "fitted(study)", "study.fit_adapters(SoftPrompt(3), study.by_persona(), None, study.options.train)"
        ),
        {"options_read"},
    ),
    "a default of another type": (
        CARD.replace("    pass", "    size: int = 2.5").replace("Options)", "NoOptions)")
        + "@hookimpl\ndef fit(study):\n    _ = study.options.size\n    return study.bare()\n",
        {"options_read"},
    ),
}
HONEST = {
    "notes from the persona's own train dialogues": NOTES
    + """
@hookimpl
def fit(study):
    return saying(study, {p.id: study.dialogues(p.id, "train")[0].messages[1].text for p in study.personas})
""",
    "an adapter per cluster, declared": CARD.replace("Options)", 'Options, shares="cluster")')
    + FIT.replace(
        "fitted(study)",
        "study.fit_adapters(study.options.prompt, study.by_cluster(), None, study.options.train)",
    ),
    "reads validation dialogues and says what for": NOTES.replace("NoOptions)", 'NoOptions, validation="selection")')
    + """
@hookimpl
def fit(study):
    return saying(study, {p.id: study.dialogues(p.id, "validation")[0].messages[1].text for p in study.personas})
""",
    "an option that counts only in a mode that is not the default": """
from typing import Literal
@dataclass(frozen=True)
class Modes:
    kind: Literal["plain", "note"] = "plain"
    words: int = 3
@hookimpl
def card():
    return MethodCard("a test", Modes)
@hookimpl
def fit(study):
    if study.options.kind == "plain":
        return study.bare()
    return saying(study, {p.id: p.description[: study.options.words] for p in study.personas})
""",
    "draws from the seed": NOTES
    + """
@hookimpl
def fit(study):
    draw = random.Random(study.seed)
    chosen = {p.id: draw.choice(study.dialogues(p.id, "train")[:2]) for p in study.personas}
    return saying(study, {who: dialogue.messages[0].text for who, dialogue in chosen.items()})
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_what_ships_keeps_the_contract(name):
    """In few epochs: a leak, a seed or a reference shows in the first steps. With all of them: the next test."""
    with few_epochs():
        report = check_here(name)
    assert report.ok, report.text()
    assert [r.name for r in report.results] == check_names()


@pytest.mark.attack
@pytest.mark.parametrize("name", METHODS)
def test_so_it_does_in_processes_of_its_own(name):
    report = check_method(name)
    assert report.ok, report.text()
    assert report.results[-1].status == "ok"


@pytest.fixture
def few_objects():
    """What other tests of this process have made is not looked through by a plugin that looks through all objects."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("few_objects")
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_caught_by_the_check_that_is_there_for_it_and_by_no_other(tmp_path, fault):
    source, wanted = BROKEN[fault]
    report = check_here("sample", plugin(tmp_path, source))
    assert set(report.failed) == wanted, report.text()
    assert all(result.reason for result in report.results if result.status != "ok")


@pytest.mark.slow
@pytest.mark.parametrize("case", HONEST)
def test_an_honest_plugin_passes(tmp_path, case):
    report = check_here("sample", plugin(tmp_path, HONEST[case]))
    assert report.ok, report.text()


def test_the_broken_plugins_cover_every_check():
    caught = set().union(*(names for _, names in BROKEN.values()))
    # The core refuses unknown options before any plugin is asked: see the test below.
    # What needs two processes has its plugins in test_isolated.py.
    assert caught == set(check_names()) - {"unknown_option_refused", "fresh_process"}


def test_an_unknown_option_that_gets_through_is_a_failed_check(tmp_path, monkeypatch):
    from harness.testkit import checks

    files = plugin(tmp_path, NOTES + "@hookimpl\ndef fit(study):\n    return study.bare()\n")
    assert check_here("sample", files).ok
    monkeypatch.setattr(checks, "load_config", lambda **_: None)
    assert check_here("sample", files).failed == ("unknown_option_refused",)


def test_a_plugin_that_cannot_be_loaded_fails_with_its_own_error_and_the_rest_is_skipped(tmp_path):
    report = check_here("sample", plugin(tmp_path, BROKEN["misspelt hook"][0].replace("perdict", "prdict")))
    first, *rest = report.results
    assert (first.name, first.status) == ("hooks", "failed")
    assert "unknown hook 'prdict'" in first.reason
    assert "did you mean 'predict'" in first.reason
    assert {r.status for r in rest} == {"skipped"}
    with pytest.raises(PluginError, match=f"did you mean '{BASE}'"):
        check_here(BASE + "x")


def test_a_required_method_that_is_not_there_fails_the_first_check(tmp_path):
    files = plugin(tmp_path, CARD.replace("Options)", 'Options, requires=("nobody_has_this",))'))
    report = check_here("sample", files)
    assert report.failed == ("hooks",)
    assert "nobody_has_this" in report.results[0].reason


def test_a_reason_names_the_line_of_the_plugin(tmp_path):
    report = check_here("sample", plugin(tmp_path, FIT.replace("return", "1 / 0\n    return")))
    (reason,) = (r.reason for r in report.results if r.status == "failed")
    assert re.match(r"method 'sample', fit: sample\.py:\d+: ZeroDivisionError", reason)


def test_the_command_exits_with_2_and_its_json_stands_alone_though_the_plugin_prints(tmp_path, capsys, monkeypatch):
    (path,) = plugin(tmp_path, FIT.replace("return", "print('noise'); 1 / 0\n    return"))
    with pytest.raises(SystemExit) as ended:
        main(["check", "sample", "--plugin", str(path), "--json"])
    assert ended.value.code == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["failed"]) == (False, ["fits"])
    # In this process, which is faster; the tests of the pages run the command as it is to such an end.
    monkeypatch.setattr("harness.testkit.check_method", lambda name, files, _: check_here(name, files))
    (path,) = plugin(tmp_path, NOTES + "@hookimpl\ndef fit(study):\n    return study.bare()\n")
    with pytest.raises(SystemExit) as ended:
        main(["check", "sample", "--plugin", str(path)])
    assert ended.value.code == 0
    assert "sample.py): 13 ok, 4 skipped" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "new-method"])
def test_the_commands_have_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert help_examples()[command] in " ".join(capsys.readouterr().out.split("Example:")[1].split())


@pytest.mark.slow
def test_the_example_in_contributing_keeps_the_contract(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(r"<!-- begin: (\w+)\.py -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found
    path = tmp_path / f"{found[1]}.py"
    path.write_text(found[2])
    report = check_here(found[1], [path])
    assert report.ok, report.text()
    assert {r.name for r in report.results if r.status == "skipped"} == {"fresh_process"}, "every other applies"


def test_contributing_lists_the_checks_as_they_are():
    rows = [f"| `{name}` | {proves} |" for name, proves in proved()]
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert "\n".join(["| check | what it proves |", "|---|---|", *rows, "<!-- end: checks -->"]) in text


@pytest.mark.slow
def test_the_tiny_world_is_fine_enough_to_see_a_leak(tmp_path):
    """A persona's own data change its adapter by far more than what the checks take for equal."""
    from harness.contract.plugins import load_with_required
    from harness.testkit.lab import Lab
    from harness.testkit.report import TOLERANCE
    from harness.testkit.tiny_world import reworded

    files = plugin(tmp_path, "")
    lab = Lab(load_with_required("sample", files), "sample", tmp_path / "lab")
    first, *others = [p.id for p in lab.dataset.personas]
    changed = lab.trial(reworded(lab.dataset, [first]))
    gap = {who: max(float((a - changed.adapter(who)[n]).abs().max()) for n, a in lab.main.adapter(who).items())
           for who in (first, *others)}  # fmt: skip
    assert gap[first] > 1e4 * TOLERANCE
    # Other words are other lengths, so the others' rows lie in batches of another shape, which round differently.
    assert max(gap[who] for who in others) < 1e-12


def test_a_trial_for_tests_of_ones_own(tmp_path):
    trial = tiny_trial("sample", tmp_path / "made", plugin(tmp_path, ""))
    assert {p.id for p in trial.study.personas} == {p.id for p in tiny_dataset().personas}
    assert trial.fitted.bank is not None
    assert not trial.changed


# ---- watching ----


@dataclass(frozen=True)
class Options:
    prompt: SoftPrompt = SoftPrompt()
    train: TrainOptions = TrainOptions()
    mode: Literal["a", "b"] = "a"
    flag: bool = False
    share: float = 0.0
    note: str = ""


def test_options_are_watched_by_dotted_name_and_stay_what_they_are():
    seen: set[str] = set()
    twin = watched(Options(), seen)
    assert seen == set()
    assert isinstance(twin, Options)
    assert twin.prompt.tokens == 10
    assert seen == {"prompt", "prompt.tokens"}
    assert dataclasses.asdict(twin.train) == dataclasses.asdict(TrainOptions())
    assert {name for name in seen if name.startswith("train.")} == {
        f"train.{f.name}" for f in dataclasses.fields(TrainOptions)
    }
    assert dataclasses.replace(twin, mode="b").mode == "b"
    assert type(twin.prompt).__name__ == "SoftPrompt"


def test_variations_change_one_option_each_and_leave_out_what_is_refused():
    found = list(variations(Options()))
    assert Options(mode="b") in found
    assert Options(flag=True) in found
    assert Options(share=0.5) in found
    assert Options(prompt=SoftPrompt(tokens=11)) in found
    assert Options() not in found


def test_text_is_found_through_closures_and_methods_and_not_through_modules():
    class Holder:
        def __init__(self):
            self.items = {"key": ["in a list"]}

        def method(self):
            return self.items

    hidden = "in a " + "closure"
    assert {"in a list", "in a closure", "key"} <= texts_in_reach(Holder().method, lambda: hidden)
    assert "in a module" not in texts_in_reach(json, os, [])
