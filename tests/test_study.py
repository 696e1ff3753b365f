"""What a study gives a method: adapters from its own tensors, and replies whose making is known afterwards."""

from __future__ import annotations

import io
import itertools
import re
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.adapters.files import open_adapter
from harness.adapters.lora import combine_loras
from harness.contract.specs import FromVector, LoRA, SoftPrompt, TrainOptions
from harness.engines import serve
from harness.engines.engine import Engine
from harness.errors import HarnessError, PluginError
from harness.model.prompts import split_examples
from harness.progress import Progress
from harness.scoring.evaluation import Evaluation
from harness.store.disk import Store
from harness.study import Study, check_adapters, fit_method, predict_in_order
from harness.testkit.tiny_world import tiny_backbone, tiny_dataset
from harness.training import service


def generate(study, fitted, prompts):
    return study.generate(fitted, prompts)


def method(fit=lambda study: study.bare(), predict=generate) -> Any:
    """A method plugin of two functions."""
    return SimpleNamespace(name="sample", fit=fit, predict=predict)


class World:
    """A tiny world, its prompts, and studies on it that share a store."""

    def __init__(self, folder, **protocol) -> None:
        made = tiny_dataset()
        self.dataset = replace(made, protocol=replace(made.protocol, **protocol), metrics=("exact_match", "nll"))
        self.store, self.backbone = Store(folder), tiny_backbone()
        self.examples = split_examples(self.dataset, "test")
        self.prompts = [example.prompt for example in self.examples]
        self.people = [p.id for p in self.dataset.personas]

    def study(self, **changes) -> Study:
        given: dict[str, Any] = {
            "backbone": self.backbone, "personas": self.dataset.personas, "protocol": self.dataset.protocol,
            "dialogues": [d for d in self.dataset.dialogues if d.split != "test"], "options": None, "seed": 0,
            "required": {}, "store": self.store, "progress": Progress("silent"),
        }  # fmt: skip
        return Study(**{**given, **changes})

    def run(self, plugin: Any):
        study = self.study()
        return predict_in_order(plugin, study, fit_method(plugin, study), self.prompts)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def own(study: Study, seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    """A soft prompt per persona, drawn."""
    draw = torch.Generator().manual_seed(seed)
    return {p.id: {"prompt_embeddings": torch.randn(2, study.backbone.hidden, generator=draw)} for p in study.personas}


# ---- a method's own tensors ----


def test_own_tensors_are_saved_and_served_as_they_were_saved(world):
    study = world.study()
    tensors = own(study)
    fitted = study.fitted_from(SoftPrompt(2), tensors)
    assert fitted.bank is not None
    for persona in world.people:
        served = fitted.bank.tensors["prompt_embeddings"][fitted.row(persona)]
        torch.testing.assert_close(served.float(), tensors[persona]["prompt_embeddings"], rtol=0, atol=0)
    assert fitted.folder is not None
    assert fitted.folder.is_relative_to(world.store.cache)
    one = open_adapter(fitted.folder, "person_00")["prompt_embeddings"]
    torch.testing.assert_close(one.float(), tensors["person_00"]["prompt_embeddings"], rtol=0, atol=0)
    assert study.fitted_from(SoftPrompt(2), tensors).folder == fitted.folder, "found by its content"
    assert study.fitted_from(SoftPrompt(2), own(study, seed=1)).folder != fitted.folder
    check_adapters("sample", fitted)


def test_own_tensors_may_be_shared_and_stand_on_another_method(world):
    study = world.study()
    one = next(iter(own(study).values()))
    below = study.fitted_from(SoftPrompt(2), {"all": one}, dict.fromkeys(world.people, "all"))
    some = study.fitted_from(SoftPrompt(2), {"x": one}, {world.people[0]: "x"}, fallback=below)
    assert some.row(world.people[0]) == 0
    assert some.who(world.people[1]).adapters is below.adapters
    swapped = world.study(control="swapped").fitted_from(SoftPrompt(2), own(study))
    assert all(swapped.row(p) != swapped.bank.row(p) for p in world.people)
    with pytest.raises(HarnessError, match="'global'"):
        world.study(control="global").fitted_from(SoftPrompt(2), own(study))


def test_sums_of_loras_are_kept_by_what_they_are(world, monkeypatch):
    """And not by what they are made of: other code may make another sum of the same parts."""
    study = world.study()
    loras = study.fit_adapters(LoRA(2), study.by_persona(), None, TrainOptions(epochs=1))
    recipe = {world.people[0]: {world.people[1]: 1.0}}
    before = study.combine(loras, recipe)
    assert study.combine(loras, recipe).folder == before.folder

    def twice(bank, recipes, **_):
        return combine_loras(bank, {p: {k: 2 * w for k, w in own.items()} for p, own in recipes.items()})

    monkeypatch.setattr(service, "combine_loras", twice)
    after = study.combine(loras, recipe)
    assert before.bank is not None
    assert after.bank is not None
    for name, values in before.bank.weight_deltas(0).items():
        torch.testing.assert_close(after.bank.weight_deltas(0)[name], 2 * values)


def test_adapters_from_vectors_have_the_control_global_and_need_a_vector(world):
    vectors = {p: np.arange(3.0) + i for i, p in enumerate(world.people)}

    def fit(study, known):
        return study.fit_jointly(FromVector(2), SoftPrompt(2), None, TrainOptions(epochs=1), vectors=known)

    shared = fit(world.study(control="global"), vectors)
    assert shared.bank is not None
    assert shared.bank.keys == ("all",)
    assert {shared.row(p) for p in world.people} == {0}
    anchored = TrainOptions(towards_start=True)
    with pytest.raises(HarnessError, match="leave towards_start out"):
        world.study().fit_jointly(FromVector(2), SoftPrompt(2), None, anchored, vectors=vectors)
    for known in ({}, {"somebody else": np.arange(3.0)}):
        with pytest.raises(HarnessError, match="has a vector"):
            fit(world.study(), known)


def test_the_control_swapped_swaps_who_is_served_and_no_adapters_beginning(world):
    """Else the adapters of the control would be others than those of the method, and be swapped twice."""
    found = []
    for study in (world.study(), world.study(control="swapped")):
        start = study.fitted_from(SoftPrompt(2), own(study))
        found.append(study.fit_adapters(SoftPrompt(2), study.by_persona(), None, TrainOptions(epochs=1), start=start))
    plain, swapped = found
    assert plain.folder == swapped.folder
    assert all(plain.row(p) != swapped.row(p) for p in world.people)


@pytest.mark.parametrize("control", ["swapped", "global"])
def test_a_control_that_changes_nothing_is_refused(world, control):
    """Its row would say that the method is as good with somebody else's adapter, and so is not personal."""

    def prefixes(study):
        return study.fit_adapters(SoftPrompt(2), study.by_persona(), None, TrainOptions(epochs=1))

    with pytest.raises(HarnessError, match=f"'{control}' changes nothing in 'sample'"):
        fit_method(method(), world.study(control=control))
    assert fit_method(method(prefixes), world.study(control=control)).bank is not None


def test_the_control_global_changes_nothing_in_one_adapter_for_everybody(world):
    def unified(study):
        return study.fit_adapters(SoftPrompt(2), study.for_all(), None, TrainOptions(epochs=1))

    with pytest.raises(HarnessError, match="'global' changes nothing in 'sample'"):
        fit_method(method(unified), world.study(control="global"))


def test_a_key_without_data_needs_no_adapter_to_start_from(world):
    """As where a cluster is one person, of whom there is nothing to learn from."""
    quiet, *rest = world.people
    study = world.study(dialogues=[d for d in world.dataset.dialogues if d.split != "test" and d.persona != quiet])
    few = TrainOptions(epochs=1)
    everybody = study.fit_adapters(SoftPrompt(2), study.for_all(), None, few)
    clusters = {quiet: "alone", **dict.fromkeys(rest, "together")}
    cluster = study.fit_adapters(SoftPrompt(2), clusters, None, few, start=everybody, fallback=everybody)
    fitted = study.fit_adapters(SoftPrompt(2), study.by_persona(), None, few, start=cluster, fallback=cluster)
    assert fitted.who(quiet).adapters is everybody.adapters
    assert all(fitted.who(p).adapters is fitted.adapters for p in rest)
    some = study.fitted_from(SoftPrompt(2), {quiet: own(study)[quiet]})
    with pytest.raises(HarnessError, match=f"to start '{rest[0]}' from"):
        study.fit_adapters(SoftPrompt(2), study.by_persona(), None, few, start=some)


def test_wrong_names_and_shapes_of_own_tensors_are_refused(world):
    study = world.study()
    hidden = study.backbone.hidden
    for wrong, said in (
        (
            {"prompt_embeddings": torch.zeros(3, hidden)},
            rf"has shape \(3, {hidden}\), wanted \(2, {hidden}\)",
        ),
        ({"prompt": torch.zeros(2, hidden)}, "'prompt_embeddings' has shape none"),
        ({"prompt_embeddings": torch.zeros(2, hidden), "more": torch.zeros(1)}, "wanted no such tensor"),
    ):
        with pytest.raises(HarnessError, match=said):
            study.fitted_from(SoftPrompt(2), {world.people[0]: wrong})
    with pytest.raises(HarnessError, match="lora_A' has shape none"):
        study.fitted_from(LoRA(rank=2), {"all": {}})


def test_a_bank_that_was_never_saved_is_saved_after_fit(world):
    def fit(study):
        kept = study.fitted_from(SoftPrompt(2), own(study))
        adapters = replace(kept.adapters, folder=None)
        return kept.with_adapters({kept.adapters: adapters})

    fitted = fit_method(method(fit), world.study())
    assert fitted.folder is not None
    assert {fitted.who(p).adapters for p in world.people} == {fitted.adapters}
    check_adapters("sample", fitted)


def test_a_bank_that_is_changed_after_it_was_saved_is_refused(world):
    def fit(study):
        fitted = study.fitted_from(SoftPrompt(2), own(study))
        fitted.bank.tensors["prompt_embeddings"][1] += 1e-3
        return fitted

    fitted = fit_method(method(fit), world.study())
    with pytest.raises(PluginError, match=r"'sample', after fit: the tensor 'prompt_embeddings' .* of 'person_01'"):
        check_adapters("sample", fitted)


def test_a_methods_own_fit_costs_the_time_that_it_took_beside_the_harness(world):
    def fit(study):
        below = study.fit_adapters(SoftPrompt(2), study.for_all(), None, TrainOptions(epochs=1))
        time.sleep(0.3)
        return study.fitted_from(SoftPrompt(2), own(study), fallback=below)

    started = time.perf_counter()
    first = fit_method(method(fit), world.study()).cost
    wall = time.perf_counter() - started
    again = fit_method(method(fit), world.study()).cost
    trained = fit_method(
        method(lambda s: s.fit_adapters(SoftPrompt(2), s.for_all(), None, TrainOptions(epochs=1))), world.study()
    ).cost
    assert (trained.fits, first.fits, again.fits) == (1, 2, 2)
    hidden = world.backbone.hidden
    assert first.parameters == 2 * hidden + 2 * hidden * len(world.people)
    assert first.tokens == again.tokens == trained.tokens > 0
    assert min(first.seconds, again.seconds) > trained.seconds + 0.29
    assert first.seconds < wall, "the harness's own fit counts once"


# ---- how replies came about ----


def test_the_likelihood_is_known_only_for_replies_that_the_fitted_model_generated(world):
    """By what was done: a copier, one that edits a reply, one that asks another model, one that edits the prompt."""
    whole = world.run(method())
    assert whole.asked is not None
    assert len(whole.asked) == len(world.prompts)

    def asked(change_prompt=lambda p: p, change=lambda reply: reply, other=False):
        def predict(study, fitted, prompts):
            model = study.bare() if other else fitted
            return [change(reply) for reply in study.generate(model, [change_prompt(p) for p in prompts])]

        return world.run(method(predict=predict)).asked

    assert asked() is not None
    assert asked(change=lambda reply: reply + "!") is None
    assert asked(other=True) is None
    assert asked(lambda p: replace(p, messages=p.messages[1:] + p.messages[:1])) is None
    copier = world.run(method(predict=lambda study, fitted, prompts: whole.replies[: len(prompts)]))
    assert copier.asked is None
    evaluation = Evaluation(world.dataset, None, world.store, Progress("silent"))
    assert not np.isnan(evaluation.columns(world.examples, whole)["nll"]).any()
    assert np.isnan(evaluation.columns(world.examples, copier)["nll"]).all()


def test_a_prompt_is_tokenised_once_from_reply_to_likelihood(world, monkeypatch):
    seen: Counter[Any] = Counter()
    original = serve.encode_prompt

    def spy(tokenizer, messages, limit):
        seen[messages] += 1
        return original(tokenizer, messages, limit)

    monkeypatch.setattr(serve, "encode_prompt", spy)
    predicted = world.run(method())
    Evaluation(world.dataset, None, world.store, Progress("silent")).columns(world.examples, predicted)
    assert set(seen) == {prompt.messages for prompt in world.prompts}
    assert set(seen.values()) == {1}


def test_closed_choices_are_weighed_once_and_the_metric_has_the_weights_of_the_decision(tmp_path, monkeypatch):
    world = World(tmp_path, choices=("yes", "no", "maybe"))
    dataset = replace(world.dataset, metrics=("accuracy", "nll"))
    weighed: list[int] = []
    original = Engine.choice_log_probs

    def spy(self, bank, rows, *rest, **more):
        weighed.append(len(rows))
        return original(self, bank, rows, *rest, **more)

    monkeypatch.setattr(Engine, "choice_log_probs", spy)
    predicted = world.run(method())
    columns = Evaluation(dataset, None, world.store, Progress("silent")).columns(world.examples, predicted)
    assert sum(weighed) == len(world.prompts)
    assert predicted.choice_log_probs is not None
    best = [world.dataset.protocol.choices[i] for i in predicted.choice_log_probs.argmax(1)]
    assert predicted.replies == best
    right = [float(reply == example.reference) for reply, example in zip(best, world.examples, strict=True)]
    assert columns["accuracy"] == right


def test_how_many_prompts_were_cut_is_counted_where_they_were_asked(tmp_path):
    def cut(limit):
        return World(tmp_path, max_prompt_tokens=limit).run(method()).cut

    assert cut(10_000) == 0
    world = World(tmp_path)
    asked = world.run(method()).asked
    assert asked is not None
    longest = max(len(prompt.ids) for prompt in asked)
    assert 0 < cut(longest - 1) < len(world.prompts)


@pytest.mark.parametrize("generates", [True, False])
def test_all_turn_depths_of_a_method_are_one_task(world, generates):
    log, clock = io.StringIO(), itertools.count(0, 11)  # every report is later than the ten seconds between lines
    progress = Progress("lines", stream=log, seconds=lambda: next(clock))

    def predict(study, fitted, prompts):
        return study.generate(fitted, prompts) if generates else ["yes"] * len(prompts)

    study = world.study(progress=progress)
    prompts = [replace(p, depth=i % 3) for i, p in enumerate(world.prompts)]
    predict_in_order(method(predict=predict), study, study.bare(), prompts)
    lines = log.getvalue().splitlines()
    assert lines
    assert {re.sub(r"\d+ % .*", "", line) for line in lines} == {"reply: "}
    assert f"100 % ({len(prompts)}/{len(prompts)} replies)" in lines[-1]
