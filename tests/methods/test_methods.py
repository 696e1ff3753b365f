"""What each method that ships stands on, whom it covers, and who replies to people it never saw."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.adapters.kinds import create_bank
from harness.adapters.lora import LoRABank, combine_loras
from harness.config.scope import held_out
from harness.contract.data import Protocol
from harness.contract.plugins import Method, load_with_required
from harness.contract.specs import LoRA
from harness.engines import serve
from harness.engines.fitted import Fitted
from harness.errors import ConfigError, HarnessError
from harness.methods import merge_lora
from harness.methods.retrieval import _scorer
from harness.methods.routed import _shrunk
from harness.model.prompts import encode_prompt, protocol_hash, split_examples
from harness.progress import Progress
from harness.store.disk import Store
from harness.study import Study, fit_method, make_study
from harness.testkit.lab import fit_required
from harness.testkit.tiny_world import tiny_backbone, tiny_dataset
from harness.training.service import Fitter
from tests.conftest import few_epochs

FOLDER = Path(__file__).parents[2] / "methods"
METHODS = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
STANDS_ON_THE_BACKBONE = {"zero_shot", "unified", "persona_lora", "cluster_lora", "merge_lora"}
IS_UNIFIED = {"text_prefix", "retrieval", "routed"}  # its LoRA, with other prompts or with routes to others


def world(**protocol):
    made = tiny_dataset(per_cluster=3)
    return replace(made, protocol=replace(made.protocol, **protocol))


class Bench:
    """Fits methods with all that they require on a tiny world; each once, with its own options in few epochs."""

    def __init__(self, folder, dataset):
        self.dataset, self.backbone, self.store = dataset, tiny_backbone(), Store(folder)
        self.found: dict[str, Fitted] = {}
        self.studies: dict[str, Study] = {}

    def fit(self, name: str, **options) -> Fitted:
        methods = load_with_required(name)
        method: Method = methods[name]
        chosen = replace(method.card.options(), **options)
        if options or name not in self.found:
            with contextlib.nullcontext() if options else few_epochs():
                required = fit_required(methods, method, chosen, self._study, self.found)
                self.studies[name] = self._study(method, chosen, required)
                self.found[name] = fit_method(method, self.studies[name])
        return self.found[name]

    def _study(self, method: Method, options, required) -> Study:
        return make_study(
            method, self.dataset, [p.id for p in self.dataset.personas], backbone=self.backbone, options=options,
            seed=0, required=required, store=self.store, progress=Progress("silent"),
        )  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"), world())


@pytest.fixture(scope="module")
def holdout(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("holdout"), world(holdout_personas=2))


@pytest.fixture
def made(monkeypatch):
    """What `fit_adapters` returned, in order."""
    found = []
    original = Fitter.adapters

    def spy(self, *given):
        found.append(original(self, *given))
        return found[-1]

    monkeypatch.setattr(Fitter, "adapters", spy)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_it_covers_everybody_and_stands_on_what_it_says(bench, name):
    fitted = bench.fit(name)
    people = [p.id for p in bench.dataset.personas]
    unified = bench.fit("unified").base().fingerprint
    if name in STANDS_ON_THE_BACKBONE:
        assert fitted.backbone.fingerprint == bench.backbone.fingerprint
    elif name in IS_UNIFIED:
        assert fitted.adapters.merged.fingerprint == unified
    else:
        assert fitted.backbone.fingerprint == unified
    if fitted.bank is not None and name not in {"unified", *IS_UNIFIED}:
        assert all(fitted.row(p) >= 0 for p in people), "an adapter for everybody"


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_people_who_were_held_out_are_answered_by_the_chain(holdout, name):
    fitted = holdout.fit(name)
    out = held_out(holdout.dataset)
    assert len(out) == 2
    unified = holdout.fit("unified")
    for persona in out:
        answering, row, _ = fitted.who(persona)
        own = answering.bank is not None and row >= 0
        # Its own adapter or its cluster's; else what unified is.
        assert own or answering.backbone.fingerprint in (unified.base().fingerprint, holdout.backbone.fingerprint)
        if name != "zero_shot" and not own:
            assert answering.backbone.fingerprint == unified.base().fingerprint
        for study in holdout.studies.values():
            assert not study.dialogues(persona, "train")
            assert persona not in {p.id for p in study.personas}


@pytest.mark.slow
def test_a_network_serves_a_newcomer_from_its_texts_alone(holdout):
    """Held-out people have no dialogues in the study, but what they wrote tells the network who they are."""
    fitted = holdout.fit("hyper_lora")
    study = holdout.studies["hyper_lora"]
    bank = fitted.bank
    assert bank is not None
    for persona in held_out(holdout.dataset):
        assert study.texts(persona)
        assert not study.dialogues(persona, "train")
        assert fitted.row(persona) >= 0
    rows = [fitted.row(p.id) for p in holdout.dataset.personas]
    name = next(name for name in bank.tensors if name.endswith("lora_B"))
    assert len({bank.tensors[name][row].sum().item() for row in rows}) > 1
    by_description = holdout.fit("hyper_lora", by="description")
    assert by_description.bank is not None


@pytest.mark.parametrize(
    "name",
    ["persona_lora", "persona_prefix", "persona_lora_on_unified", "hierarchical_prefix", "bayes_prefix", "shared_lora",
     "vector_prefix", "hyper_lora", "merge_then_adapt", "steering", "personal_head", "merge_lora", "routed"],
)  # fmt: skip
def test_retrieval_goes_under_every_personal_adapter(holdout, name):
    below, above = holdout.fit(name), holdout.fit("retrieval", on=name)
    persona = next(p.id for p in holdout.dataset.personas if p.id not in held_out(holdout.dataset))
    assert above.who(persona).adapters is below.who(persona).adapters
    assert above.who(persona).row == below.who(persona).row
    prompt = next(e.prompt for e in split_examples(holdout.dataset, "test") if e.prompt.persona == persona)
    assert "earlier: " in above.messages(prompt)[0].text
    assert above.adds_text
    assert not below.adds_text


def test_a_newcomer_gets_the_adapter_of_a_cluster(holdout):
    for name in ("cluster_lora", "cluster_prefix"):
        fitted = holdout.fit(name)
        for persona in held_out(holdout.dataset):
            assert fitted.bank.keys[fitted.row(persona)].startswith("cluster_")


@pytest.mark.slow
def test_routes_lead_to_the_method_that_validation_likes(bench):
    fitted = bench.fit("routed")
    note = bench.studies["routed"].notes["routes"]
    assert sum(note.values()) == len(bench.dataset.personas)
    kept = bench.fit("routed", margin=1e9)
    unified = bench.fit("unified").adapters
    people = [p.id for p in bench.dataset.personas]
    assert {kept.who(p).adapters for p in people} == {unified}, "nobody leaves unified for less than the margin"
    assert [fitted.who(p).adapters for p in people].count(unified) == note["unified"]


@pytest.mark.slow
def test_text_methods_show_their_text(bench):
    prompt = split_examples(bench.dataset, "test")[0].prompt
    person = next(p for p in bench.dataset.personas if p.id == prompt.persona)
    shown = bench.fit("text_prefix").messages(prompt)
    assert person.description in shown[0].text
    found = bench.fit("retrieval").messages(prompt)
    assert found[0].text.count("earlier:") == 2
    train = [
        m.text for d in bench.dataset.dialogues if d.persona == person.id and d.split == "train" for m in d.messages
    ]
    for line in found[0].text.splitlines()[-2:]:
        said, reply = line.removeprefix("earlier: ").split(" -> ")
        assert said in train
        assert reply in train
    assert bench.fit("retrieval", search="embeddings").messages(prompt)[0].text.count("earlier:") == 2


@pytest.mark.slow
def test_a_persona_whose_turns_have_no_word_is_shown_the_first_of_them():
    study: Any = None
    assert _scorer(study, "bm25", ["?", "5"])("what about tea").tolist() == [0, 0]
    assert _scorer(study, "bm25", ["?", "some tea"])("what about tea")[1] > 0


def test_candidates_that_equal_unified_do_not_stand_in_the_way_of_one_that_is_better():
    before = [np.array([[10.0, 5], [12.0, 6], [9.0, 5]]) + i for i in range(3)]
    assert _shrunk(before, before).tolist() == [0, 0, 0], "and not 0 / 0, which would win every argmax"
    better = [own - np.array([1.0 + i, 0]) for i, own in enumerate(before)]
    assert (_shrunk(before, better) > 0).all()
    no_noise = [own - np.array([0.1, 0]) * own[:, 1:] for own in before]
    assert _shrunk(before, no_noise) == pytest.approx([0.1] * 3)


def test_retrieved_text_reaches_the_model_also_where_a_persona_is_routed_to_another_method(bench, monkeypatch):
    fits = Bench(bench.store.root, bench.dataset)
    fits.fit("routed", margin=-1e9)
    assert fits.studies["routed"].notes["routes"]["unified"] == 0, "nobody stays with the base"
    fitted = fits.fit("retrieval", on="routed")
    seen = []

    def spy(tokenizer, messages, limit):
        seen.append(messages)
        return encode_prompt(tokenizer, messages, limit)

    monkeypatch.setattr(serve, "encode_prompt", spy)
    prompts = [example.prompt for example in split_examples(bench.dataset, "test")]
    fits.studies["retrieval"].generate(fitted, prompts)
    assert len(seen) == len(prompts)
    assert all("earlier:" in messages[0].text for messages in seen)
    assert fitted.adds_text


@pytest.mark.slow
def test_discrete_prefixes_are_noted_as_words(bench):
    fitted = bench.fit("discrete_prefix")
    words = bench.studies["discrete_prefix"].notes["words"]
    assert set(words) == {p.id for p in bench.dataset.personas}
    assert all(len(w) == fitted.bank.prefix_tokens for w in words.values())


@pytest.mark.slow
def test_the_hierarchy_shrinks_towards_the_level_above(bench, made):
    method = load_with_required("hierarchical_prefix")["hierarchical_prefix"]
    train = method.card.options().train

    def distance(decay):
        fitted = bench.fit(
            "hierarchical_prefix", train=replace(train, weight_decay=decay, patience=0, keep_start=False)
        )
        _, above, own = made[-3:]
        assert own.bank is fitted.bank
        gaps = []
        for p in bench.dataset.personas:
            tensors = [f.bank.tensors["prompt_embeddings"][f.row(p.id)] for f in (own, above)]
            gaps.append(float((tensors[0] - tensors[1]).norm()))
        return float(np.mean(gaps))

    assert distance(10.0) < 0.7 * distance(0.0)


# ---- cost ----


@pytest.mark.slow
def test_a_cost_is_the_sum_of_all_fits_and_beside_it_stands_what_each_method_below_took(bench, made):
    unified = bench.fit("unified")
    made.clear()
    options = load_with_required("hierarchical_prefix")["hierarchical_prefix"].card.options()
    fitted = bench.fit("hierarchical_prefix", train=options.train)
    reports = [fit.report for fit in made]
    assert len(reports) == fitted.cost.fits == 3
    assert fitted.cost.tokens == sum(report["tokens"] for report in reports) > fitted.report["tokens"]
    assert fitted.cost.seconds == pytest.approx(sum(report["seconds"] for report in reports))
    steps = [adapter["steps"] for report in reports for adapter in report["adapters"].values()]
    assert fitted.cost.steps == sum(steps)
    numbers = [fit.bank.trainable_per_adapter * len(fit.bank) for fit in made]
    assert fitted.cost.parameters == sum(numbers) > numbers[-1], "the prompts of the levels above were trained, too"
    assert fitted.stands_on == {"unified": unified.cost}
    assert (unified.cost.fits, unified.stands_on) == (1, {})
    again = bench.fit("hierarchical_prefix", train=options.train)
    assert again.cost == fitted.cost, "found in the store they count with the time that they took"


@pytest.mark.slow
def test_what_chooses_or_merges_stands_on_all_that_it_chooses_from_or_merges(bench):
    routed = bench.fit("routed")
    candidates = bench.studies["routed"].options.candidates
    assert routed.stands_on == {name: bench.fit(name).cost for name in ("unified", *candidates)}
    assert (routed.cost.fits, routed.cost.tokens) == (0, 0)
    assert routed.cost.seconds > 0, "its validation took time"
    merged = bench.fit("merge_lora")
    assert merged.stands_on == {name: bench.fit(name).cost for name in ("persona_lora", "unified")}
    assert (merged.cost.fits, merged.cost.parameters) == (0, 0)


def test_loras_are_weighted_by_validation_only_where_somebody_has_it():
    study: Any = SimpleNamespace(
        options=merge_lora.Options(weighting="validation"),
        fitted=lambda _: SimpleNamespace(row=lambda _: 0),
        vectors=lambda _: {"a": np.ones(3), "b": np.arange(3.0)},
        validation_losses=lambda _: {},
    )
    with pytest.raises(HarnessError, match="weighting=validation needs validation replies, and nobody has any"):
        merge_lora.fit(study)


# ---- their files ----


def test_the_six_methods_of_the_plan_show_both_hooks_and_no_other_repeats_the_default():
    both = {"unified", "persona_lora", "cluster_lora", "persona_prefix", "cluster_prefix", "hierarchical_prefix"}
    assert {name for name in METHODS if "def predict(" in (FOLDER / f"{name}.py").read_text()} == both
    assert len((FOLDER / "persona_prefix.py").read_text().splitlines()) <= 30
    assert not [name for name in METHODS if "default_factory" in (FOLDER / f"{name}.py").read_text()]


# ---- merging ----


def test_merged_loras_are_exact_on_the_weight_update(make_backbone):
    base = make_backbone("float64")
    bank = create_bank(base, LoRA(rank=2, alpha=6.0), ("a", "b", "c"), 0)
    for tensor in bank.tensors.values():
        tensor.normal_(generator=torch.Generator().manual_seed(4))
    assert isinstance(bank, LoRABank)
    merged = combine_loras(bank, {"x": {"a": 0.5, "c": -2.0}, "y": {"b": 1.0}})
    for module, delta in merged.weight_deltas(0).items():
        wanted = 0.5 * bank.weight_deltas(0)[module] - 2.0 * bank.weight_deltas(2)[module]
        torch.testing.assert_close(delta, wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(merged.weight_deltas(1)[module], bank.weight_deltas(1)[module], rtol=0, atol=1e-12)
    with pytest.raises(HarnessError, match="no adapter 'z'"):
        combine_loras(bank, {"x": {"z": 1.0}})
    with pytest.raises(HarnessError, match="at least one"):
        combine_loras(bank, {"x": {}})


# ---- held out ----


def test_who_is_held_out_follows_from_names_alone():
    dataset = world(holdout_personas=2)
    assert held_out(dataset) == held_out(dataset)
    assert held_out(world()) == frozenset()
    with pytest.raises(ConfigError, match="leaves fewer than two"):
        held_out(world(holdout_personas=5))


def test_holding_nobody_out_keeps_the_hash_of_the_protocol():
    dataset = world()
    assert "holdout_personas" in Protocol.__dataclass_fields__
    assert protocol_hash(dataset, "t") != protocol_hash(world(holdout_personas=1), "t")
