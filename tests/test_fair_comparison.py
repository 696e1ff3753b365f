"""FAIR_COMPARISON.md row by row: one short test for each mistake, which shows that the mechanism against it bites.

What a mechanism does in full is tested where it lives; here is the list, so that no row goes without.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness import statistics
from harness.adapters.kinds import create_bank
from harness.adapters.lora import LoRABank, combine_loras
from harness.benchmarks.devices import DEVICES
from harness.benchmarks.devices.actions import Counts, count_actions
from harness.compare.guard import Family, NotComparableError, check_comparable, comparison_rows, families
from harness.compare.joint_tables import as_json, joint
from harness.compare.run_view import view
from harness.config.run_config import RunConfig
from harness.contract.data import Dataset, Dialogue, Message, Persona, Prompt, Protocol, ReferenceScore
from harness.contract.specs import LoRA, SoftPrompt
from harness.engines.fitted import Adapters, Fitted
from harness.errors import HarnessError, StoreError
from harness.leaderboard import board_of, published, render
from harness.model import prompts
from harness.model.prompts import dialogue_messages, encode_dialogue, encode_prompt, encode_reply, split_examples
from harness.progress import Progress
from harness.runs.importing import Source, import_scores
from harness.runs.stored import all_runs
from harness.statistics.rows import score_row
from harness.statistics.scores import PersonaScores
from harness.statistics.table import compare
from harness.store.disk import Store
from harness.study import Study
from harness.training.bank_training import TrainOptions, fit_bank

ROOT = Path(__file__).parent.parent
BASE = np.linspace(0.7, 0.9, 24)
RNG = np.random.default_rng(12)
GOOD = BASE + 0.03 + RNG.normal(0, 0.01, 24)
FEW_STEPS = TrainOptions(learning_rate=0.05, epochs=1, batch_size=2)


def talk(persona: str, number: int, split: str) -> Dialogue:
    turns = [
        ("user", f"hello {number}"),
        ("assistant", f"lights to {number}"),
        ("user", "the usual"),
        ("assistant", persona),
    ]
    messages = tuple(Message(role, text) for role, text in turns)  # type: ignore[arg-type]
    return Dialogue(f"{persona}/{split}{number}", persona, split, messages)  # type: ignore[arg-type]


def world(**protocol) -> Dataset:
    people = tuple(Persona(f"p{i}", f"likes {i}", i % 2) for i in range(4))
    dialogues = tuple(talk(p.id, n, s) for p in people for s in ("train", "validation", "test") for n in (1, 2))
    return Dataset("toy", people, dialogues, Protocol(system="You help.", **protocol), ("exact_match",))


@pytest.fixture(scope="module")
def tiny():
    from harness.model import backbone

    return backbone.load_backbone("tiny")


@pytest.fixture
def study(tiny, tmp_path):
    def make(data: Dataset | None = None, **changes) -> Study:
        data = data or world()
        seen = [d for d in data.dialogues if d.split != "test"]
        options = {
            "backbone": tiny, "personas": data.personas, "dialogues": seen, "protocol": data.protocol, "options": None,
            "seed": 0, "required": {}, "store": Store(tmp_path / "fits"), "progress": Progress("silent"),
        }  # fmt: skip
        return Study(**{**options, **changes})

    return make


def test_row_01_methods_scored_on_different_replies_are_refused_with_both_counts(tmp_path, stored):
    a, b = stored(tmp_path, "base", BASE, n=30), stored(tmp_path, "m", BASE, n=10, hashes={"examples": "f" * 64})
    with pytest.raises(NotComparableError, match=r"example sets differ .*720 replies.*240 replies"):
        check_comparable(a, b)
    as_many = stored(tmp_path, "m", BASE, n=30, hashes={"examples": "f" * 64})
    with pytest.raises(NotComparableError, match=r"example sets differ .*720 replies.*720 replies"):
        check_comparable(a, as_many)


def test_row_02_one_prompt_builder_whose_version_is_in_the_protocol_hash(monkeypatch, tmp_path, stored):
    before = prompts.protocol_hash(world(), "template")
    assert prompts.protocol_hash(world(), "another template") != before
    monkeypatch.setattr(prompts, "PROMPT_VERSION", prompts.PROMPT_VERSION + 1)
    assert prompts.protocol_hash(world(), "template") != before
    a, b = stored(tmp_path, "base", BASE), stored(tmp_path, "m", BASE, hashes={"protocol": before})
    with pytest.raises(NotComparableError, match="protocol"):
        check_comparable(a, b)


@pytest.mark.parametrize("profile", [False, True])
def test_row_03_training_and_evaluation_see_the_same_prompt_profile_included(tiny, profile):
    data = world(profile=profile)
    for example in split_examples(data, "test"):
        dialogue = next(d for d in data.dialogues if example.prompt.id.startswith(d.id + "#"))
        persona = next(p for p in data.personas if p.id == dialogue.persona)
        trained = encode_dialogue(tiny.tokenizer, dialogue_messages(data.protocol, persona, dialogue))
        asked, _ = encode_prompt(tiny.tokenizer, example.prompt.messages, 1000)
        assert trained.ids[: len(asked)] == tuple(asked)
        assert (persona.description in example.prompt.messages[0].text) == profile


def test_row_03_text_that_a_method_adds_is_shown(tiny):
    bare = Fitted.of(Adapters(tiny))
    assert not bare.adds_text
    added = bare.with_messages(lambda prompt: (Message("system", "psst"), *prompt.messages))
    assert added.adds_text


def test_row_04_decoding_belongs_to_the_protocol_and_is_greedy(tiny):
    import torch

    from tests.engines.decoded import generate

    assert prompts.protocol_hash(world(max_new_tokens=128), "t") != prompts.protocol_hash(world(), "t")
    knobs = {"temperature", "top_p", "top_k", "do_sample", "repetition_penalty"}
    assert not knobs & {field.name for kind in (Protocol, RunConfig) for field in fields(kind)}
    ids = encode_prompt(tiny.tokenizer, split_examples(world(), "test")[0].prompt.messages, 768)[0]
    bank = create_bank(tiny, SoftPrompt(4), ["a"], 0)
    (reply,) = generate(tiny, bank, [-1], [ids], max_new_tokens=6, stop_id=-1)
    likeliest = []
    with torch.no_grad():
        for _ in range(6):
            likeliest.append(int(tiny.model(torch.tensor([ids + likeliest])).logits[0, -1].argmax()))
    assert reply == likeliest


def test_row_05_unequal_budgets_are_recorded_and_flagged(put, tmp_path):
    put("base", BASE, trials=1)
    put("m", GOOD, trials=40)
    runs = all_runs(tmp_path / "runs")
    assert "tuned with 40 trials" in str(as_json(joint(runs, "base", ["m"]))["methods"][0]["flags"])
    assert "tuned with different numbers of trials" in render(board_of(runs))


def test_row_06_no_test_reference_reaches_a_plugin(study):
    assert "reference" not in {field.name for field in fields(Prompt)}
    with pytest.raises(HarnessError, match="test dialogues are not available"):
        study().dialogues("p0", "test")
    with pytest.raises(ValueError, match="must not reach a study"):
        study(dialogues=world().dialogues)


def test_row_07_the_better_of_two_test_scores_gains_from_noise_alone_and_a_run_against_itself_does_not(put, tmp_path):
    truth = RNG.uniform(0.6, 0.9, (200, 1))
    first, second = (np.clip(truth + RNG.normal(0, 0.21, (200, 10)), 0, 1) for _ in range(2))
    oracle = np.where(first.mean(1) > second.mean(1), first.mean(1), second.mean(1))
    assert 100 * (oracle - first.mean(1)).mean() > 1.9, "the mistake: routing by test scores"
    put("base", first.mean(1))
    put("copy", first.mean(1))
    row = joint(all_runs(tmp_path / "runs"), "base", ["copy"]).rows[0]
    assert (row.delta_pts, row.p_adj, row.verdict_kind) == (0, 1, "identical")


def test_row_08_replies_are_whole_and_many_empty_ones_are_flagged(tiny):
    """Generation returns new tokens only: a second slicing would leave nothing of a short reply."""
    from harness.runs.making import flags_of
    from tests.engines.decoded import generate

    asked = [encode_prompt(tiny.tokenizer, e.prompt.messages, 768)[0] for e in split_examples(world(), "test")[:3]]
    bank = create_bank(tiny, SoftPrompt(4), ["a"], 0)
    never = -1  # no token ends a reply: eight new ones must come back, and none of the prompt
    together = generate(tiny, bank, [0] * 3, asked, max_new_tokens=8, stop_id=never)
    alone = [generate(tiny, bank, [0], [ids], max_new_tokens=8, stop_id=never)[0] for ids in asked]
    assert together == alone
    assert [len(reply) for reply in together] == [8, 8, 8]
    facts = Fitted.of(Adapters(tiny)).facts(())
    assert [str(flag) for flag in flags_of(facts, ["yes"] * 94 + [""] * 6)] == ["6% empty replies"]
    assert flags_of(facts, ["yes"] * 95 + [""] * 5) == []


def test_row_09_the_loss_is_on_reply_tokens_alone_and_a_dialogue_is_packed_once(tiny):
    data = world()
    dialogue = data.dialogues[0]
    encoded = encode_dialogue(tiny.tokenizer, dialogue_messages(data.protocol, data.personas[0], dialogue))
    marked = [token for token, label in zip(encoded.ids, encoded.labels, strict=True) if label]
    replies = [m.text for m in dialogue.messages if m.role == "assistant"]
    assert marked == [token for reply in replies for token in encode_reply(tiny.tokenizer, reply)]


def test_row_10_history_is_cut_from_the_left_and_the_target_never(tiny):
    data = world()
    dialogue = data.dialogues[0]
    messages = dialogue_messages(data.protocol, data.personas[0], dialogue)
    whole = encode_dialogue(tiny.tokenizer, messages)
    short = encode_dialogue(tiny.tokenizer, messages, len(whole) - 1)
    reply = encode_reply(tiny.tokenizer, dialogue.messages[-1].text)
    assert len(short) < len(whole)
    assert list(short.ids[-len(reply) :]) == reply
    assert all(short.labels[-len(reply) :])
    ids, cut = encode_prompt(tiny.tokenizer, messages[:-1], len(short))
    assert cut
    with pytest.raises(HarnessError, match="raise max_prompt_tokens"):
        encode_prompt(tiny.tokenizer, messages[:-1], 3)
    assert len(ids) <= len(short)


@pytest.mark.slow
def test_row_11_what_stands_on_an_adapter_stands_on_it_and_its_fingerprint_says_so(study):
    plain = study()
    base = plain.fit_adapters(LoRA(rank=2), plain.for_all(), None, FEW_STEPS)
    above = study(required={"base": base})
    on_top = above.fit_adapters(SoftPrompt(2), above.by_persona(), above.fitted("base"), FEW_STEPS)
    assert on_top.backbone.fingerprint != plain.backbone.fingerprint
    with pytest.raises(HarnessError, match="requires"):
        above.fitted("other")


def test_row_12_merging_adds_weight_updates_and_averages_no_factors(make_backbone):
    """What is folded into the model is B A, to the bit of fp64; the mean of two factors times each other is not."""
    import torch

    from harness.adapters import merged

    base = make_backbone("float64")
    bank = create_bank(base, LoRA(rank=2, alpha=4.0, targets=("q_proj",)), ["a", "b"], 0)
    assert isinstance(bank, LoRABank)
    for name, tensor in bank.tensors.items():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(tensor, std=0.3, generator=torch.Generator().manual_seed(1))
    down, up = (next(t for n, t in bank.tensors.items() if n.endswith(end)) for end in ("lora_A", "lora_B"))
    change = merged(base, bank, 0).model.state_dict()
    name = next(n for n in change if n.endswith("layers.0.self_attn.q_proj.weight"))
    got = change[name] - base.model.state_dict()[name]
    factor = 4.0 / 2
    torch.testing.assert_close(got, factor * up[0] @ down[0], rtol=0, atol=1e-12)
    exact = (up[0] @ down[0] + up[1] @ down[1]) / 2
    both = combine_loras(bank, {"ab": {"a": 0.5, "b": 0.5}}).weight_deltas(0)
    first = next(delta for module, delta in both.items() if f"{module}.weight" == name)
    torch.testing.assert_close(first, factor * exact, rtol=0, atol=1e-12)
    factors = (up[0] + up[1]) / 2 @ ((down[0] + down[1]) / 2)
    assert (exact - factors).abs().max() > 1e-3, "the mistake is a large one"


def test_row_13_variants_of_a_method_are_rows_of_their_own(put, tmp_path):
    put("base", BASE)
    put("merge", GOOD, id="merge-with", method_options={"own_adapter": True})
    put("merge", GOOD, id="merge-without", method_options={"own_adapter": False})
    runs = all_runs(tmp_path / "runs")
    assert len([f for f in families(runs) if f.name == "merge"]) == 2
    with pytest.raises(StoreError, match=r"merge-with: option\.own_adapter True"):
        joint(runs, "base", ["merge"])


def test_row_13_a_persona_is_merged_with_or_without_its_own_adapter():
    from harness.methods import merge_lora

    people = {"a": np.array([1.0, 0.0]), "b": np.array([0.8, 0.6]), "c": np.array([0.6, 0.8])}

    def recipes(own: bool) -> dict[str, dict[str, float]]:
        asked: list[dict[str, dict[str, float]]] = []
        study: Any = SimpleNamespace(
            options=merge_lora.Options(k=2, own=own),
            fitted=lambda name: SimpleNamespace(row=lambda persona: list(people).index(persona)),
            vectors=lambda by: people,
            combine=lambda fitted, found, *rest, **more: asked.append(found),
            note=lambda *_: None,
        )
        merge_lora.fit(study)
        return asked[0]

    assert all(persona in recipe for persona, recipe in recipes(own=True).items())
    assert all(recipe.get(persona, 0) == 0 for persona, recipe in recipes(own=False).items())


@pytest.mark.parametrize(
    ("reply", "reference", "kind", "counts"),
    [
        ("Of course.", "You are welcome.", "numeric", Counts(0, 0, 0)),
        ("Of course.", "You are welcome.", "device", Counts(0, 0, 0)),
        ("A warm and charming evening.", "Security armed.", "categorical", Counts(0, 0, 1)),
        ("Security disarmed.", "Security armed.", "categorical", Counts(0, 1, 1)),
        ("AC fan speed 1.", "AC fan speed 2.", "numeric", Counts(0, 1, 1)),
        ("AC fan speed 2.", "AC fan speed 2.", "numeric", Counts(1, 0, 0)),
        ("Security armed.", "Security armed.", "categorical", Counts(1, 0, 0)),
    ],
)
def test_row_14_actions_are_parsed_and_counted_not_matched_as_substrings(reply, reference, kind, counts):
    found = count_actions(reply, reference, DEVICES)[kind]
    assert found == counts
    if counts == Counts(0, 0, 0):
        assert math.isnan(statistics.precision(np.array(found)))


def test_row_15_a_verdict_has_an_interval_and_says_what_one_seed_is_worth(put, tmp_path):
    put("base", BASE)
    put("m", GOOD)
    row = joint(all_runs(tmp_path / "runs"), "base", ["m"]).rows[0]
    assert "95 % simultaneous CI" in row.verdict
    assert row.verdict.endswith("conditional on one training seed")
    assert row.seeds == (0,)


def test_row_16_both_means_are_stored_one_is_declared(put, tmp_path):
    n = np.arange(1, 25)
    d = np.where(n > 12, 0.05, -0.04) + RNG.normal(0, 0.001, 24)
    people = tuple(f"p{i:02d}" for i in range(24))
    base, other = (PersonaScores(people, (0,), scores * n, n) for scores in (BASE, BASE + d))
    (row,) = compare(base, {"m": other}, "micro")
    assert row.delta_micro_pts != pytest.approx(row.delta_macro_pts, abs=0.5)
    assert row.delta_pts == row.delta_micro_pts
    assert "weighting-sensitive" in row.flags
    with pytest.raises(HarnessError, match="is a micro mean"):
        score_row("m", other, "macro", ReferenceScore(82.14, "micro", "s"))


def test_row_17_the_spread_between_personas_is_told_from_noise(put):
    truth = 0.055 * RNG.standard_normal((200, 1))
    seen = view(put("m", 0.7 + truth + 0.215 * RNG.standard_normal((200, 10))))
    raw = np.std([p.mean for p in seen.personas])
    assert raw > 7.5, "the mistake: this is the spread that was published"
    assert seen.spread == pytest.approx(5.5, abs=1.5)
    assert all(p.low is not None for p in seen.personas)


def test_row_18_differences_are_points_and_nothing_else(put, tmp_path):
    put("base", np.full(24, 0.5) + RNG.normal(0, 0.001, 24))
    put("m", np.full(24, 0.6))
    found = as_json(joint(all_runs(tmp_path / "runs"), "base", ["m"]))
    assert found["methods"][0]["delta_pts"] == pytest.approx(10, abs=0.1)  # and not 20 % of anything
    assert not [name for name in found["methods"][0]["comparison"] if "relative" in name or "percent" in name]


def test_row_19_a_cluster_method_covers_everybody_and_no_run_overwrites_another(study, tmp_path):
    data = world()
    lonely = replace(data, personas=(*data.personas[:3], Persona("p3")))
    with pytest.raises(HarnessError, match="1 personas have no cluster"):
        study(lonely).by_cluster()
    whole = study(data)
    assert set(whole.by_cluster()) == {"p0", "p1", "p2", "p3"}
    assert {"k", "sizes", "silhouette"} <= set(whole.notes["clusters"]), (
        "their quality goes into the record and is shown"
    )
    path = tmp_path / "m.csv"
    for text, refused in (("p,1,0.5\n", False), ("p,1,0.6\n", True)):
        path.write_text("persona,n,score\n" + text)
        source = Source(path, "m", "toy", "similarity", "all")
        if refused:
            with pytest.raises(StoreError, match="has other scores"):
                import_scores(source, Store(tmp_path / "runs"))
        else:
            import_scores(source, Store(tmp_path / "runs"))


def test_row_20_the_leaderboard_comes_from_run_records_and_nothing_else():
    board = ROOT / "leaderboard"
    runs = published(board / "records")
    assert render(board_of(runs)) == (board / "README.md").read_text(encoding="utf-8")
    assert render(board_of(runs[:-1])) != render(board_of(runs))


def test_row_21_parameters_are_counted_from_the_tensors(make_backbone):
    base = make_backbone()
    bank = create_bank(base, SoftPrompt(10), ["a", "b", "c"], 0)
    assert bank.trainable_per_adapter == 10 * 16
    assert bank.trainable_per_adapter * len(bank) == sum(t.numel() for t in bank.tensors.values())
    assert bank.stored_bytes == sum(t.numel() * t.element_size() for t in bank.tensors.values())


@pytest.mark.slow
def test_row_22_one_personas_data_leave_anothers_adapter_as_it_was(make_backbone):
    base = make_backbone("float64")

    def fitted(of_b: int):
        def data(first: int) -> list[prompts.Encoded]:
            ids = tuple(range(first, first + 8))
            return [prompts.Encoded(ids, (False,) * 4 + (True,) * 4)] * 3

        bank = create_bank(base, SoftPrompt(2), ["a", "b"], 0)
        fit_bank(base, bank, [data(3), data(of_b)], [data(5), data(of_b)], FEW_STEPS, 0)
        return next(iter(bank.tensors.values()))

    one, two = fitted(20), fitted(40)
    assert (one[0] - two[0]).abs().max() < 1e-12
    assert (one[1] - two[1]).abs().max() > 1e-6


def test_row_23_the_split_is_hashed(tmp_path, stored):
    data = world()
    moved = replace(data.dialogues[0], split="validation")
    other = prompts.split_hash(replace(data, dialogues=(moved, *data.dialogues[1:])))
    assert other != prompts.split_hash(data)
    a, b = stored(tmp_path, "base", BASE), stored(tmp_path, "m", BASE, hashes={"split": other})
    with pytest.raises(NotComparableError, match="splits differ"):
        check_comparable(a, b)


def test_row_24_a_crashed_run_is_listed_with_its_reason_and_not_in_a_table(tmp_path, stored):
    runs = [stored(tmp_path, "base", BASE), stored(tmp_path, "m", GOOD, status="failed", error="out of memory")]
    tables, _, below = render(board_of(runs)).partition("## Not in the tables")
    assert "m-x-0" not in tables
    assert "out of memory" in below
    with pytest.raises(NotComparableError, match="out of memory"):
        check_comparable(*runs)


@pytest.mark.slow
def test_row_25_controls_are_made_the_same_way_and_stand_beside_the_claim(study, tmp_path, stored):
    swapped = study(control="swapped")
    given = swapped.fit_adapters(SoftPrompt(2), swapped.by_persona(), None, FEW_STEPS)
    assert given.bank is not None
    assert all(given.row(p.id) != given.bank.row(p.id) for p in swapped.personas)
    shared = study(control="global")
    one = shared.fit_adapters(SoftPrompt(2), shared.by_persona(), None, FEW_STEPS)
    assert one.bank is not None
    assert len(one.bank) == 1
    runs = [stored(tmp_path, "base", BASE), stored(tmp_path, "m", GOOD), stored(tmp_path, "m", BASE, control="swapped")]
    _, rows = comparison_rows(Family("base", (runs[0],)), families(runs[1:]))
    assert [row.method for row in rows] == ["m", "m (control: swapped)"]


def test_row_26_a_prompt_that_holds_the_reply_to_turn_t_comes_after_all_replies_to_turn_t(study):
    from harness.study import predict_in_order

    asked = split_examples(world(), "test")
    shuffled = [asked[i] for i in RNG.permutation(len(asked))]
    calls: list[list[int]] = []

    class Method:
        def predict(self, study, fitted, given):
            calls.append([prompt.depth for prompt in given])
            return [prompt.id for prompt in given]

    method: Any = Method()
    nothing: Any = None
    replies = predict_in_order(method, study(), nothing, [example.prompt for example in shuffled]).replies
    assert [sorted(set(call)) for call in calls] == [[0], [1]]
    assert replies == [example.prompt.id for example in shuffled]


def test_every_row_has_a_test_named_after_its_number():
    numbers = {name[9:11] for name in globals() if name.startswith("test_row_")}
    assert numbers == {f"{row:02d}" for row in range(1, 27)}
