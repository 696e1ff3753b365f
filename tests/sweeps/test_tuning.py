"""Equal tuning: as many trials for each, on validation loss alone, people apart, stored and resumed; what rows say."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optuna.trial import Trial

from harness.cli import main
from harness.commands import common
from harness.compare import joint
from harness.contract import list_plugins, load_plugin
from harness.contract.specs import Search
from harness.errors import ConfigError, HarnessError
from harness.leaderboard import board_of, render
from harness.progress import Progress
from harness.runs.stored import all_runs
from harness.study import validation_loss
from harness.sweeps import load_tuning, open_reader, parts_of, tuning
from harness.sweeps.tuning import run_tuning
from harness.training.checkpoint import Checkpoint
from harness.workers import LocalWorker

CONFIGS = Path(__file__).parents[2] / "configs"
STUDY = """
personas: 10
trials: 4
tuning_personas: 4
set: {dialogues: [2, 1, 1]}
methods:
  - {method: unified, set: {epochs: 1}, space: {rank: null}}
  - method: persona_prefix
    set: {method.epochs: 2}
    space: {tokens: [2, 5], learning_rate: {low: 1e-3, high: 1, log: true}}
  - zero_shot
"""


TWO = STUDY.replace("  - zero_shot\n", "")  # without a method that has nothing to tune
FEW = TWO.replace("\npersonas: 10", "\npersonas: 5").replace("tuning_personas: 4", "tuning_personas: 2")


def options_of(kind, name):
    return load_plugin(kind, name).card.options


def read(tmp_path, text=STUDY, **flags):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load_tuning(open_reader(path, options_of), flags)


def outcome_of(tmp_path, folder, text=STUDY, **flags):
    asked = read(tmp_path, text, runs_dir=str(tmp_path / folder), **flags)
    return run_tuning(asked, (), Progress("silent"))


def losses(outcome):
    return [[(trial.options, trial.loss, trial.state) for trial in best.trials] for best in outcome.best]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    return outcome_of(folder, "runs"), folder


def test_the_file_says_where_to_look_and_the_options_types_say_it_else(tmp_path):
    asked = read(tmp_path)
    spaces = {one.entry.config.method: one.space for one in asked.methods}
    assert spaces["unified"] == {"train.learning_rate": Search(1e-4, 0.3, log=True)}
    assert spaces["persona_prefix"] == {
        "prompt.tokens": Search(choices=(2, 5)), "train.learning_rate": Search(1e-3, 1.0, log=True),
    }  # fmt: skip
    assert spaces["zero_shot"] == {}
    assert asked.methods[0].entry.config.method == "unified"
    assert (
        read(tmp_path, STUDY.replace("  - {method: unified, set: {epochs: 1}, space: {rank: null}}\n", ""))
        .methods[0]
        .space
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rank: null", "rnk: null", "unified has no one option 'rnk'; did you mean 'rank'?"),
        ("low: 1e-3", "low: 2", "a search must go upwards"),
        ("log: true", "lg: true", "unknown key 'lg'; did you mean 'log'?"),
        ("[2, 5]", "[2, five]", "space of tokens: should be a valid integer"),
        ("trials: 4", "trials: 0", "trials = 0"),
        ("trials: 4", "trails: 4", "unknown key 'trails' of a tuning; did you mean 'trials'?"),
        ("tuning_personas: 4", "sampler: tpee", "should be one of tpe, random, grid; did you mean 'tpe'?"),
        ("tuning_personas: 4", "sampler: grid", "a grid needs a list of values for each option"),
    ],
)
def test_faults_name_their_line(tmp_path, old, new, words):
    with pytest.raises(ConfigError, match=r"study\.yaml:\d+: ") as caught:
        read(tmp_path, STUDY.replace(old, new))
    assert words in str(caught.value)


@pytest.mark.parametrize("failing", [True, False])
def test_a_tuning_lets_go_of_other_machines_when_it_ends(tmp_path, monkeypatch, failing):
    """The next part of a file would wait for slots that nobody frees."""
    closed: list[bool] = []

    def made(*_: object) -> str:
        if failing:
            raise ConfigError("stopped")
        return "made"

    monkeypatch.setattr(tuning.Workshop, "close", lambda _: closed.append(True))
    monkeypatch.setattr(tuning, "_outcome", made)
    with pytest.raises(ConfigError) if failing else contextlib.nullcontext():
        assert run_tuning(read(tmp_path), (), Progress("silent")) == "made"
    assert closed == [True]


def test_a_loss_that_is_no_number_is_a_trial_that_failed():
    """Optuna keeps no reason for such a trial, so that it would not count, and be made again without end."""
    fitted: Any = None
    for losses, words in (([[math.nan, 1.0]], "is not finite"), ([[0.0, 0.0]], "have no validation replies")):
        study: Any = SimpleNamespace(validation_losses=lambda _, found=losses: {"a": np.array(found)})
        with pytest.raises(HarnessError, match=words):
            validation_loss(study, fitted)


def test_every_method_gets_as_many_trials_and_the_defaults_are_the_first(outcome):
    found, _ = outcome
    assert [len(best.trials) for best in found.best] == [4, 4, 0]
    for best in found.best[:2]:
        assert (
            best.trials[0].options["train.learning_rate"] == best.tuned.entry.config.method_options.train.learning_rate
        )
        assert best.loss == min(trial.loss for trial in best.trials if trial.loss is not None)
        assert best.loss <= best.default_loss
    assert len({trial.options["train.learning_rate"] for trial in found.best[1].trials}) > 1


def test_people_for_tuning_are_not_among_those_that_are_reported(outcome):
    found, folder = outcome
    assert found.apart
    assert len(found.tuning_personas) == 4
    for run in all_runs(folder / "runs"):
        assert not set(run.record.sums.personas) & set(found.tuning_personas)
        assert len(run.record.sums.personas) == 6


def test_the_best_is_what_is_tested_on_the_best_of_what_it_stands_on(outcome):
    found, folder = outcome
    records: Any = {run.record.method: run.record for run in all_runs(folder / "runs")}
    unified, prefix = found.best[:2]
    rate = (
        records["persona_prefix"]
        .changed.get("unified", {})
        .get("train.learning_rate", unified.options.train.learning_rate)
    )
    assert rate == unified.options.train.learning_rate
    assert records["persona_prefix"].method_options["prompt"]["tokens"] == prefix.options.prompt.tokens
    about = records["persona_prefix"].tuning
    assert (about.trials, about.sampler, about.personas, about.apart, about.study) == (4, "tpe", 4, True, "study")
    assert about.loss == prefix.loss
    assert records["persona_prefix"].trials == 4
    assert records["zero_shot"].tuning is None


def test_rows_print_the_budget_and_who_was_not_tuned_is_flagged(outcome):
    found, folder = outcome
    runs = all_runs(folder / "runs")
    page = render(board_of(runs))
    costs = page.partition("### Cost")[2].replace("\\_", "_").partition("The base of a method")[0]
    budgets = dict(re.findall(r"^\| (\w+) .*\| (\d+) +\|$", costs, re.MULTILINE))
    assert (budgets["persona_prefix"], budgets["zero_shot"]) == ("4", "1"), "the column `tuning trials`"
    assert "harness tune study" in page
    compared = joint(runs, "unified", ["persona_prefix", "zero_shot"])
    assert "not-tuned-alike" not in compared.flags(0)
    assert "not-tuned-alike" in compared.flags(1)
    text = tuning_text(found)
    assert "4 trials each (tpe, pruner median) on the validation replies of 4 personas that are not among those" in text
    assert "nothing to tune" in text


def tuning_text(found):
    from harness.sweeps import tuning_text as words

    json.dumps(words.tuning_json(found))
    return words.tuning_text(found)


@pytest.mark.long
def test_interrupted_it_goes_on_to_the_same_end(outcome, tmp_path, monkeypatch):
    undisturbed, _ = outcome
    real, calls = LocalWorker.trial, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(LocalWorker, "trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        outcome_of(tmp_path, "runs")
    again = outcome_of(tmp_path, "runs")
    assert losses(again) == losses(undisturbed)
    made = len(calls)
    more = outcome_of(tmp_path, "runs", trials=5)
    assert losses(more)[0][:4] == losses(undisturbed)[0]
    assert len(calls) == made + 2  # one more trial of each method that has something to tune


def test_interrupted_within_a_fit_it_goes_on_to_the_same_end(tmp_path, monkeypatch):
    text = FEW.replace("method.epochs: 2", "method.epochs: 3").replace("trials: 4", "trials: 2")
    undisturbed = outcome_of(tmp_path, "undisturbed", text)
    real, reports = Trial.report, []

    def report(trial, loss, step):
        reports.append(step)
        if step == 2 and reports.count(2) == 1:
            raise KeyboardInterrupt
        real(trial, loss, step)

    monkeypatch.setattr(Trial, "report", report)
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
        outcome_of(tmp_path, "runs", text)
    assert list((tmp_path / "runs" / ".cache" / "partial").glob("*/state"))
    again = outcome_of(tmp_path, "runs", text)
    assert losses(again) == losses(undisturbed)
    assert reports.count(2) > 1


WATCHED = """
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from harness import MethodCard, Search, SoftPrompt, TrainOptions, hookimpl

with Path(__file__).with_suffix(".log").open("a") as log:
    log.write(f"{os.getpid()}\\n")

@dataclass(frozen=True)
class Options:
    prompt: SoftPrompt = SoftPrompt(tokens=2)
    train: TrainOptions = TrainOptions(learning_rate=1e-2, epochs=2)
    words: Annotated[int, Search(choices=(1, 2))] = 1

@hookimpl
def card():
    return MethodCard("a test", Options, requires=("unified",))

@hookimpl
def fit(study):
    return study.fit_adapters(study.options.prompt, study.by_persona(), study.fitted("unified"), study.options.train)
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_trials_in_processes_of_their_own_have_the_same_losses_and_no_method_is_imported_here(tmp_path):
    files = [tmp_path / "watched.py"]
    files[0].write_text(WATCHED)
    pids = tmp_path / "watched.log"
    text = TWO.replace("method: persona_prefix", "method: watched").replace("trials: 4", "trials: 6")
    text = text.replace("set: {method.epochs: 2}", "set: {method.epochs: 4}").replace("tokens: [2, 5], ", "")
    text = text.replace("low: 1e-3, high: 1,", "low: 1e-6, high: 1,")
    (tmp_path / "study.yaml").write_text(text)
    found = []
    for isolate in (True, False):
        reader = open_reader(tmp_path / "study.yaml", common.options_of(files, isolate))
        asked = load_tuning(reader, {"runs_dir": str(tmp_path / str(isolate)), "isolate": isolate})
        found.append(run_tuning(asked, files, Progress("silent")))
        assert (str(os.getpid()) in pids.read_text().split()) == (not isolate)
        left = [path for name in ("partial", "tmp") for path in (tmp_path / str(isolate)).rglob(f".cache/{name}/*")]
        assert not left
    assert losses(found[0]) == losses(found[1])
    assert "pruned" in [trial.state for trial in found[0].best[1].trials]
    assert len(set(pids.read_text().split())) == 4, "for the card, for all trials, for the run; and this one"


def test_damaged_trials_are_said_and_made_again(outcome, tmp_path, capsys):
    undisturbed, folder = outcome
    shutil.copytree(folder / "runs", tmp_path / "runs")
    (path, *_) = sorted((tmp_path / "runs" / "tuning").glob("*.journal"))
    raw = path.read_bytes()
    place = raw.index(b'"values":[') + len(b'"values":[')
    path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])  # a digit of a loss
    asked = read(tmp_path, runs_dir=str(tmp_path / "runs"))
    again = run_tuning(asked, (), Progress("auto"))
    assert f"{path} is damaged; its trials are made again" in capsys.readouterr().err
    assert losses(again) == losses(undisturbed)


def test_tuned_on_those_who_are_reported_it_says_so(tmp_path):
    text = FEW.replace("tuning_personas: 2", "tuning_personas: 0").replace("trials: 4", "trials: 1")
    found = outcome_of(tmp_path, "runs", text)
    assert not found.apart
    assert "the same that are reported below" in tuning_text(found)
    assert not any(about.apart for run in all_runs(tmp_path / "runs") if (about := run.record.tuning))


def test_a_trial_that_falls_behind_is_pruned_and_leaves_nothing(tmp_path):
    text = FEW.replace("trials: 4", "trials: 8").replace("method.epochs: 2", "method.epochs: 4")
    found = outcome_of(tmp_path, "runs", text.replace("low: 1e-3, high: 1,", "low: 1e-6, high: 1,"))
    states = [trial.state for trial in found.best[1].trials]
    assert len(states) == 8
    assert "pruned" in states
    assert all(trial.loss is None for trial in found.best[1].trials if trial.state == "pruned")
    assert not list((tmp_path / "runs").rglob("partial/*"))


def test_too_few_people_to_keep_some_apart_is_one_line(tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace("tuning_personas: 4", "tuning_personas: 9"))
    with pytest.raises(SystemExit) as ended:
        main(["tune", str(path), "--runs-dir", str(tmp_path / "runs"), "-q"])
    assert ended.value.code == 2
    assert "9 of 10 personas cannot be kept apart for tuning" in capsys.readouterr().err


def test_every_shipped_tuning_parses_and_its_first_line_is_its_command():
    shipped = [path for path in CONFIGS.glob("*.yaml") if "harness tune" in path.read_text().splitlines()[0]]
    assert shipped
    for path in shipped:
        assert path.read_text().splitlines()[0] == f"# harness tune {path.stem}"
        tunings = [load_tuning(part, {}) for part in parts_of(open_reader(path.stem, options_of))]
        assert all(one.space for tuning in tunings for one in tuning.methods[:2])


PARTS = """
trials: 2
tuning_personas: 4
set: {dialogues: [4, 2, 2]}
parts:
  - {personas: 12}
  - {personas: 12, tuning_personas: 5, set: {world_seed: 3}}
methods:
  - {method: unified, set: {epochs: 1}, space: {rank: null}}
  - zero_shot
"""


def test_a_file_of_parts_is_several_tunings_that_share_methods(tmp_path):
    path = tmp_path / "parts.yaml"
    path.write_text(PARTS)
    first, second = (load_tuning(part, {}) for part in parts_of(open_reader(path, options_of)))
    assert (first.personas, second.personas) == (4, 5)
    assert first.shared.benchmark_options.dialogues == second.shared.benchmark_options.dialogues == (4, 2, 2)
    assert (first.shared.benchmark_options.world_seed, second.shared.benchmark_options.world_seed) == (1, 3)
    path.write_text(PARTS.replace("{personas: 12}", "{persons: 12}"))
    with pytest.raises(ConfigError, match=r"parts\.yaml:6: unknown key 'persons'.*did you mean"):
        [load_tuning(part, {}) for part in parts_of(open_reader(path, options_of))]
    path.write_text(PARTS.replace("{personas: 12}", "smarthome"))
    with pytest.raises(ConfigError, match=r"parts\.yaml:6: a part is a mapping"):
        parts_of(open_reader(path, options_of))


@pytest.fixture
def ctrl_c():
    """SIGINT raises KeyboardInterrupt, whatever an earlier test that was interrupted has left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.long
def test_hours_that_are_used_up_end_the_command_and_it_goes_on(tmp_path, capsys, monkeypatch, ctrl_c):
    path = tmp_path / "parts.yaml"
    path.write_text(PARTS)
    real = LocalWorker.trial

    def slow(*arguments):
        time.sleep(60)

    monkeypatch.setattr(LocalWorker, "trial", slow)
    call = ["tune", str(path), "--runs-dir", str(tmp_path / "runs"), "--quiet"]
    with pytest.raises(SystemExit) as ended:
        main([*call, "--hours", "0.001"])
    assert ended.value.code == 3
    assert "0.001 hours are used up; finished work is stored" in capsys.readouterr().err
    monkeypatch.setattr(LocalWorker, "trial", real)
    with pytest.raises(SystemExit) as ended:
        main([*call, "--hours", "1", "--json"])
    assert ended.value.code == 0
    assert [len(part["rows"]) for part in json.loads(capsys.readouterr().out)] == [2, 2]


def test_the_shipped_study_of_real_people_names_every_method_and_one_budget():
    parts = [load_tuning(part, {}) for part in parts_of(open_reader("real_people", options_of))]
    assert [part.shared.benchmark for part in parts] == ["convincing", "jokes", "offensiveness"]
    for part in parts:
        everyone = {line.name for line in list_plugins("method")}
        assert {one.entry.config.method for one in part.methods} == everyone - {"text_prefix"}  # it needs descriptions
        assert {len(search.choices) for one in part.methods for search in one.space.values()} == {part.trials}
        assert all(len(one.space) <= 1 for one in part.methods)
