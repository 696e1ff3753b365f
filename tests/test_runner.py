"""What a run promises: nothing leaks, failures are stored, controls do what they say, personas are told apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import runner
from harness.config import Recipe
from harness.config.run_config import load_config
from harness.contract.plugin_import import Source
from harness.contract.plugins import load_plugin
from harness.errors import HarnessError, PluginError
from harness.leaderboard import board_of, render
from harness.progress import Progress
from harness.runner import Session, execute
from harness.runs.record import Base
from harness.runs.stored import all_runs
from harness.show import Result
from harness.store.disk import Store

pytestmark = pytest.mark.slow

HEAD = """
from dataclasses import dataclass
from harness import MethodCard, SoftPrompt, TrainOptions, hookimpl

@dataclass(frozen=True)
class Options:
    pass

@hookimpl
def card():
    return MethodCard("a test", Options, shares="persona")
"""
BARE = """
@hookimpl
def fit(study):
    return study.bare()
"""


def options_of(files: Sequence[Path] = ()) -> Any:
    return lambda kind, name: load_plugin(kind, name, files).card.options


@dataclass
class Lab:
    """Runs plugins given as source text on six small personas."""

    folder: Path

    def config(self, method: str, files=(), sets=(), **flags):
        defaults = {"runs_dir": str(self.folder / "runs"), "personas": 6, "method": method}
        return load_config(
            options_of=options_of(files),
            flags={**defaults, **flags},
            sets=["dialogues=2,1,1", *sets],
        )

    def write(self, name: str, source: str, head: str = HEAD) -> Path:
        path = self.folder / f"{name}.py"
        path.write_text(head + source)
        return path

    def run(self, name: str, source: str, head: str = HEAD, **flags):
        path = self.write(name, source, head)
        return execute(self.config(name, [path], **flags), [path], Progress("silent"))

    def own(self, method: str, sets=("train.epochs=2",), **flags):
        return execute(self.config(method, (), sets, **flags), (), Progress("silent"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("lab"))


def test_prompts_show_history_only_after_its_replies_are_in_and_never_a_reference(lab):
    log = lab.folder / "seen.jsonl"
    outcome = lab.run(
        "watcher",
        BARE
        + f"""
import json
@hookimpl
def predict(study, prompts):
    with open({str(log)!r}, "a") as f:
        call = [[p.id, p.depth, [m.text for m in p.messages], sorted(p.__slots__)] for p in prompts]
        f.write(json.dumps(call) + "\\n")
    return ["ok"] * len(prompts)
""",
    )
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    depths = [{item[1] for item in call} for call in calls]
    assert all(len(d) == 1 for d in depths)
    assert [min(d) for d in depths] == sorted(min(d) for d in depths), "turn depth by turn depth"
    assert {tuple(item[3]) for call in calls for item in call} == {("depth", "id", "messages", "persona")}
    assert outcome.run.record.n_replies == sum(len(call) for call in calls)


def test_a_plugin_that_looks_for_test_references_finds_none(lab):
    """It searches everything reachable from the study, the fitted object and the prompts for a later reply."""
    found = lab.folder / "found.txt"
    lab.run(
        "thief",
        BARE
        + f"""
import gc
def reach(root):
    seen, stack, texts = set(), [root], set()
    while stack:
        thing = stack.pop()
        if id(thing) in seen or len(seen) > 300000:
            continue
        seen.add(id(thing))
        if isinstance(thing, str):
            texts.add(thing)
        elif isinstance(thing, dict):
            stack.extend(thing.values())
        elif isinstance(thing, (list, tuple, set)):
            stack.extend(thing)
        elif type(thing).__module__.startswith(("harness", "benchmarks")):
            stack.extend(getattr(thing, n) for n in getattr(type(thing), "__slots__", ()) if hasattr(thing, n))
            stack.extend(vars(thing).values() if hasattr(thing, "__dict__") else ())
    return texts
@hookimpl
def predict(study, fitted, prompts):
    texts = reach([study, fitted, list(prompts)])
    last = max(p.depth for p in prompts) == 4
    with open({str(found)!r}, "a") as f:
        f.write("\\n".join("TEXT " + t.replace(chr(10), " ") for t in texts) + "\\n")
    return [""] * len(prompts)
""",
    )
    texts = {line.removeprefix("TEXT ") for line in found.read_text().splitlines()}
    assert len(texts) > 50, "the search reached the study's train dialogues"
    session = Session(lab.config("zero_shot"), (), Progress("silent"))
    train = {m.text for d in session.dataset.dialogues if d.split != "test" for m in d.messages}
    deepest = max(e.prompt.depth for e in session.examples)
    answers = {e.reference for e in session.examples if e.prompt.depth == deepest} - train
    shown = {m.text for e in session.examples for m in e.prompt.messages}
    assert answers - shown
    assert not (answers - shown) & texts


def test_a_study_refuses_to_hand_out_test_dialogues(lab):
    with pytest.raises(HarnessError, match="test dialogues are not available"):
        lab.run(
            "peeker",
            """
@hookimpl
def fit(study):
    study.dialogues(study.personas[0].id, "test")
@hookimpl
def predict(study, prompts):
    return [""] * len(prompts)
""",
        )


def test_a_study_notes_that_validation_was_read_and_the_record_says_what_for(lab):
    outcome = lab.run(
        "chooser",
        """
@hookimpl
def fit(study):
    study.dialogues(study.personas[0].id, "train")
    before = study.validation_read
    study.dialogues(study.personas[0].id, "validation")
    assert (before, study.validation_read) == (False, True)
    return study.bare()
@hookimpl
def predict(study, prompts):
    return ["x"] * len(prompts)
""",
        head=HEAD.replace('shares="persona"', 'shares="persona", validation="selection"'),
    )
    assert outcome.run.record.validation == "selection"
    assert outcome.baseline.record.validation == "early_stopping"


def test_a_failing_plugin_is_stored_as_failed_with_its_error(lab):
    with pytest.raises(PluginError, match=r"'broken', predict: broken\.py:\d+: ZeroDivisionError"):
        lab.run("broken", BARE + "@hookimpl\ndef predict(study, prompts):\n    return [1 / 0]\n")
    failed = [r for r in all_runs(lab.folder / "runs") if r.record.method == "broken"]
    assert [r.record.status for r in failed] == ["failed"]
    assert "ZeroDivisionError" in (failed[0].record.error or "")


def test_changing_the_backbone_is_found_out(lab):
    with pytest.raises(PluginError, match="changed the frozen backbone"):
        lab.run(
            "vandal",
            """
@hookimpl
def fit(study):
    next(study.backbone.model.parameters()).data.add_(1)
    return study.bare()
@hookimpl
def predict(study, prompts):
    return [""] * len(prompts)
""",
        )


def test_changing_the_backbone_in_predict_is_found_out_and_the_run_is_not_complete(lab):
    with pytest.raises(PluginError, match="weights in predict"):
        lab.run(
            "late_vandal",
            BARE
            + """
@hookimpl
def predict(study, prompts):
    next(study.backbone.model.parameters()).data.add_(1)
    return ["x"] * len(prompts)
""",
        )
    (run,) = [r for r in all_runs(lab.folder / "runs") if r.record.method == "late_vandal"]
    assert run.record.status == "failed"


def test_a_twin_is_the_session_that_its_own_configuration_would_have_opened(lab):
    """Same run ids as sessions opened alone, without loading data and backbone again."""
    whole = Session(lab.config("zero_shot"), (), Progress("silent"))
    some = [p.id for p in whole.dataset.personas][:2]
    twin = whole.twin(3, persona=tuple(some))
    alone = Session(replace(whole.config, seed=3, persona=tuple(some)), (), Progress("silent"))
    assert twin.run_id(Recipe("unified")) == alone.run_id(Recipe("unified"))
    assert twin.run_id(Recipe("unified")) not in (
        whole.run_id(Recipe("unified")),
        whole.twin(3).run_id(Recipe("unified")),
    )
    assert twin.backbone is whole.backbone
    assert twin.dataset is whole.dataset
    assert {e.prompt.persona for e in twin.examples} == set(some)
    assert {e.prompt.persona for e in whole.examples} == {p.id for p in whole.dataset.personas}


def test_a_wrong_number_of_replies_is_refused(lab):
    with pytest.raises(PluginError, match="replies to"):
        lab.run("short", BARE + "@hookimpl\ndef predict(study, prompts):\n    return ['x']\n")


def test_a_method_that_does_not_generate_has_no_likelihood(lab):
    """Its Fitted is the bare backbone, whose likelihood says nothing of these replies."""
    outcome = lab.run("copier", BARE + "@hookimpl\ndef predict(study, prompts):\n    return ['ok'] * len(prompts)\n")
    assert outcome.run.record.scores["nll"] is None
    assert set(outcome.run.record.sums.metrics["nll"].n) == {0}
    assert (outcome.baseline.record.scores["nll"] or 0) > 0
    assert outcome.row is not None
    assert str(Result(outcome))


def test_adapters_that_are_not_those_in_the_store_end_the_run(lab):
    source = """
@hookimpl
def fit(study):
    train = TrainOptions(learning_rate=3e-2, epochs=1)
    fitted = study.fit_adapters(SoftPrompt(2), study.by_persona(), None, train)
    fitted.bank.tensors["prompt_embeddings"] *= 2
    return fitted
@hookimpl
def predict(study, fitted, prompts):
    return study.generate(fitted, prompts)
"""
    with pytest.raises(PluginError, match="'prompt_embeddings' of the adapter of"):
        lab.run("forger", source)


def test_many_empty_replies_are_flagged(lab):
    outcome = lab.run("silent", BARE + "@hookimpl\ndef predict(study, prompts):\n    return [''] * len(prompts)\n")
    assert any("empty replies" in str(flag) for flag in outcome.run.record.flags)


def test_circular_requirements_are_refused(lab):
    source = """
@hookimpl
def fit(study):
    return study.bare()
@hookimpl
def predict(study, prompts):
    return [""] * len(prompts)
"""
    one = lab.folder / "one.py"
    two = lab.folder / "two.py"
    one.write_text(HEAD.replace('shares="persona"', 'requires=("two",)') + source)
    two.write_text(HEAD.replace('shares="persona"', 'requires=("one",)') + source)
    with pytest.raises(PluginError, match="circle"):
        execute(lab.config("one", [one, two]), [one, two], Progress("silent"))


def test_the_fit_is_shared_by_all_that_stand_on_it_and_the_record_says_what_that_was(lab):
    outcome = lab.own("persona_prefix")
    assert outcome.run.record.base != outcome.run.record.hashes["backbone"]
    assert outcome.baseline.record.method == "unified"
    adapters = Store(lab.folder / "runs").cache / "adapters"
    before = set(adapters.iterdir())
    lab.own("unified", sets=())
    assert set(adapters.iterdir()) == before, "the baseline's adapters were not fitted again"
    cost = outcome.run.record.cost
    assert cost is not None
    assert cost.trainable_parameters == 6 * 10 * 128
    assert cost.parameters_per_adapter == 10 * 128
    assert cost.fits == 1
    own = outcome.baseline.record.cost
    assert own is not None
    assert own.stands_on is None
    assert cost.stands_on == Base(
        methods=("unified",), trainable_parameters=own.trainable_parameters, fits=1, fit_seconds=own.fit_seconds,
        steps=own.steps, tokens=own.tokens,
    )  # fmt: skip


def test_options_of_the_base_are_in_the_identity_the_row_and_the_command(lab, monkeypatch):
    plain = lab.own("persona_prefix")
    sets = ("method.train.epochs=2", "unified.learning_rate=2e-3", "unified.epochs=1")
    outcome = lab.own("persona_prefix", sets)
    assert outcome.run.id != plain.run.id
    assert outcome.baseline.id != plain.baseline.id  # the plain method with these options is what it must beat
    record = outcome.run.record
    assert record.changed["unified"] == {"train.learning_rate": 2e-3, "train.epochs": 1}
    assert outcome.baseline.record.changed["method"] == record.changed["unified"]
    assert record.cost.stands_on.steps == outcome.baseline.record.cost.steps
    assert "persona_prefix (unified.train.epochs=1, unified.train.learning_rate=0.002)" in str(Result(outcome))
    commands = render(board_of([outcome.run, outcome.baseline])).partition("### How to reproduce")[2]
    assert "--set unified.train.epochs=1 --set unified.train.learning_rate=0.002" in commands
    again = lab.own("persona_prefix", [f"unified.{name}={value}" for name, value in record.changed["unified"].items()])
    assert again.baseline.id == outcome.baseline.id


def test_options_of_a_method_that_nothing_stands_on_are_refused(lab):
    with pytest.raises(HarnessError, match="neither 'persona_prefix' nor what it is compared with stands on it"):
        lab.own("persona_prefix", ("cluster_lora.epochs=2",))


def test_the_command_behind_a_row_names_the_loose_files_that_it_needs(lab, monkeypatch):
    """Without them the command of "How to reproduce" ends with `there is no method`."""
    monkeypatch.chdir(lab.folder)
    for name in ("loose", "other"):
        (lab.folder / f"{name}.py").write_text(
            HEAD + BARE + "@hookimpl\ndef predict(study, prompts):\n    return ['x' for p in prompts]\n"
        )
    files = [lab.folder / "loose.py", Path("other.py")]
    session = Session(lab.config("loose", files, baseline=None), files, Progress("silent"))
    session.load(Recipe("other"))
    runs = [session.run(Recipe(name)) for name in ("loose", "other")]
    commands = render(board_of(runs)).partition("### How to reproduce")[2]
    assert "harness run --plugin loose.py --method loose " in commands
    assert "harness run --plugin other.py --method other " in commands


def test_texts_are_kept_unless_they_are_not_wanted_and_are_no_part_of_the_id(lab, tmp_path):
    source = BARE + "@hookimpl\ndef predict(study, prompts):\n    return ['ok'] * len(prompts)\n"
    path = lab.write("parrot", source)
    runs = []
    for texts in (True, False):
        config = lab.config("parrot", [path], baseline=None, texts=texts, runs_dir=str(tmp_path / str(texts)))
        runs.append(Session(config, [path], Progress("silent")).run(Recipe("parrot")))
    kept, left_out = (run.replies() for run in runs)
    assert kept
    assert left_out
    assert runs[0].id == runs[1].id
    asked = Session(lab.config("parrot", [path]), [path], Progress("silent")).examples
    assert kept.column("reference") == [example.reference for example in asked]
    last = [example.prompt.messages[-1].text for example in asked]
    assert all(prompt.endswith(f"user: {text}") for prompt, text in zip(kept.column("prompt"), last, strict=True))
    assert set(left_out.column("prompt")) == set(left_out.column("reference")) == {None}
    assert left_out.column("prompt_hash") == kept.column("prompt_hash")
    commands = [render(board_of([run])).partition("### How to reproduce")[2] for run in runs]
    assert ["--no-texts" in command for command in commands] == [False, True]


def test_other_descriptions_or_clusters_make_another_run(lab, monkeypatch):
    """They reach methods, and stand in no dialogue: a stored run of the old ones must not be given for the new ones."""
    config = lab.config("text_prefix")
    session = Session(config, (), Progress("silent"))
    first, *rest = session.dataset.personas
    monkeypatch.setattr(runner, "load_backbone", lambda **_: session.backbone)

    def ids(**changes):
        data = replace(session.dataset, personas=(replace(first, **changes), *rest))
        monkeypatch.setattr(runner, "load_benchmark", lambda *_: SimpleNamespace(
            load=lambda _: data, card=session.benchmark.card, source=session.benchmark.source))  # fmt: skip
        other = Session(config, (), Progress("silent"))
        assert other.hashes == session.hashes, "and they stay comparable"
        return other.run_id(Recipe("text_prefix")), tuple(other._observed)

    known = [(session.run_id(Recipe("text_prefix")), tuple(session._observed)), ids()]
    assert known[0] == known[1]
    about = replace(session.dataset.dialogues[0], item="a joke")
    session.dataset = replace(session.dataset, dialogues=(about, *session.dataset.dialogues[1:]))
    for found in (ids(description="somebody else"), ids(cluster=77), ids()):
        assert found[0] != known[0][0]
        assert found[1] != known[0][1]


def test_oracles_are_scored_again_by_changed_metrics_of_the_core(monkeypatch):
    """As replies are: else a row and the ceiling beside it would be scored by two versions of one metric."""
    session: Any = object.__new__(Session)
    session.hashes = dict.fromkeys(("examples", "protocol", "split", "scorer"), "same")
    session.people, session.benchmark = "same", SimpleNamespace(source=Source("file.py", "same"))
    session.evaluation = SimpleNamespace(names=("similarity",))
    before = session._observed
    assert session._observed == before
    monkeypatch.setattr(runner, "source_hash", lambda *modules: f"another {modules}")
    assert session._observed != before


def test_controls(lab):
    plain = lab.own("persona_prefix")
    swapped = lab.own("persona_prefix", control="swapped")
    shared = lab.own("persona_prefix", control="global")
    assert len({plain.run.id, swapped.run.id, shared.run.id}) == 3
    costs = [outcome.run.record.cost for outcome in (plain, swapped, shared)]
    assert [cost and cost.adapters for cost in costs] == [6, 6, 1]
    # The shared prefix makes as many steps as each of the six made.
    steps = [cost.steps for cost in costs if cost]
    assert steps[2] <= steps[0]
    assert swapped.run.record.scores["similarity"] < plain.run.record.scores["similarity"]


def test_a_subset_keeps_the_full_worlds_baseline(lab):
    full = Session(lab.config("persona_prefix"), (), Progress("silent"))
    some = [p.id for p in full.dataset.personas][:2]
    source = HEAD + BARE + "@hookimpl\ndef predict(study, prompts):\n    return [p.persona for p in prompts]\n"
    path = lab.folder / "names.py"
    path.write_text(source)
    config = lab.config("names", [path], persona=",".join(some), personas=None, baseline=None)
    run = Session(config, [path], Progress("silent")).run(Recipe("names"))
    assert run.record.subset
    assert set(run.record.sums.personas) == set(some)


def test_hostile_persona_ids_stay_data(lab):
    ids = ["../../x", "<script>alert(1)</script>", "a|b`c", "x" * 300, "日本", "CON"]
    lines = []
    for persona in ids:
        for i in range(10):
            lines.append(json.dumps({"persona_id": persona, "prompt": f"say {i % 3}", "reply": f"it is {i % 3}"}))
    data = lab.folder / "hostile.jsonl"
    data.write_text("\n".join(lines))
    config = load_config(
        options_of=options_of(),
        flags={
            "runs_dir": str(lab.folder / "hostile_runs"),
            "method": "persona_prefix",
            "benchmark": "jsonl",
            "personas": "all",
        },
        sets=[f"data={data}", "train.epochs=1", "metrics=exact_match,nll"],
    )
    outcome = execute(config, (), Progress("silent"))
    assert outcome.run.record.n_personas == len(ids)
    inside = (lab.folder / "hostile_runs").resolve()
    for path in inside.rglob("*"):
        assert path.resolve().is_relative_to(inside)
    assert not (lab.folder.parent / "x").exists()

    from harness.leaderboard import board_of, read_runs, render

    text = render(board_of(read_runs(inside, inside, inside)))
    assert "<script>" not in text
