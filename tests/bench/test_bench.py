"""The ways that `harness bench` puts side by side do the same work: equal labels, adapters, replies. Never seconds."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.adapters import create_bank, save_bank, write_peft
from harness.adapters.soft_prompt import PROMPT
from harness.bench import decoding, ladder, measure, peers, profiling, report, training, ways
from harness.bench.job import Asked, Job, padded, turn_examples
from harness.bench.prepare import write_base
from harness.contract.specs import LoRA, SoftPrompt
from harness.engines.batching import prepare_row
from harness.engines.transformers_engine import TransformersEngine
from harness.errors import HarnessError
from harness.model.backbone import load_backbone
from harness.model.prompts import Encoded
from harness.store.disk import Store
from harness.training.bank_training import TrainOptions, fit_bank

COUNTS = {"a": 7, "b": 4, "c": 1}
OPTIONS = TrainOptions(learning_rate=0.05, epochs=4, batch_size=2, warmup=0.2, weight_decay=0.1, clip=0.5)
SPEC = SoftPrompt(3)
SEED = 5
EXACT = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-12)


def dialogue(generator: np.random.Generator) -> Encoded:
    """Two to three turns: some tokens asked, some replied; token 3 + (previous mod 7) is likely."""
    ids, labels = [], []
    for _ in range(int(generator.integers(2, 4))):
        for share, flag in ((generator.integers(2, 6), False), (generator.integers(1, 5), True)):
            for _ in range(int(share)):
                likely = bool(ids) and generator.random() < 0.6
                ids.append(3 + ids[-1] % 7 if likely else int(generator.integers(3, 60)))
                labels.append(flag)
    return Encoded(tuple(ids), tuple(labels))


def people(salt: int, counts=COUNTS):
    generator = np.random.default_rng(salt)
    return {key: [dialogue(generator) for _ in range(count)] for key, count in counts.items()}


@pytest.fixture(scope="module")
def base(make_backbone):
    return make_backbone("float64")


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    """A folder in which a job may lie, its base already there."""
    place = tmp_path_factory.mktemp("bench")
    write_base(base, place)
    return place


@pytest.fixture(scope="module")
def job(base, folder):
    bank = create_bank(base, SPEC, list(COUNTS), SEED)
    initial = dict(zip(bank.keys, bank.tensors[PROMPT].clone(), strict=True))
    made = Job(
        folder, tuple(COUNTS), people(1), people(2), SPEC, OPTIONS, SEED, 1, "float64", "cpu", initial,
        start=initial["a"],
    )  # fmt: skip
    made.write()
    return made


def fitted(base, job, options, start=None, validation=None):
    bank = create_bank(base, SPEC, job.keys, SEED, start)
    return bank, fit_bank(base, bank, bank.by_row(job.train), bank.by_row(validation or {}), options, SEED)


# ---- the tuned loop ----


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_tuned_loop_trains_the_banks_adapters(base, job, schedule):
    options = replace(OPTIONS, schedule=schedule)
    bank, found = fitted(base, job, options)
    for row, key in enumerate(job.keys):
        done = peers.fit_one(base.model, key, job.initial[key], job.train[key], (), options, SEED)
        EXACT(done.values, bank.tensors[PROMPT][row])
        own = found.adapters[key]
        assert (done.steps, done.epochs, done.tokens) == (own.steps, own.epochs, own.tokens)


def test_the_tuned_loop_stops_where_the_bank_stops(base, job):
    options = replace(OPTIONS, patience=1, epochs=12, learning_rate=0.3)
    bank, found = fitted(base, job, options, validation=job.validation)
    assert any(own.epochs < options.epochs for own in found.adapters.values())
    for row, key in enumerate(job.keys):
        done = peers.fit_one(base.model, key, job.initial[key], job.train[key], job.validation[key], options, SEED)
        EXACT(done.values, bank.tensors[PROMPT][row])
        assert done.epochs == found.adapters[key].epochs
        assert done.validation_loss == pytest.approx(found.adapters[key].validation_loss, abs=1e-12)


# ---- labels ----


def test_every_way_learns_the_same_labels(job):
    """PEFT shifts labels inside; the tuned loop and the bank name the positions."""
    rows = job.train["a"]
    held = peers.Rows(rows, 3, torch.device("cpu"))
    batch = padded(rows, pad=0)
    for i, row in enumerate(rows):
        ours = prepare_row(row, 3)
        assert ours is not None
        assert held.targets[i].tolist() == ours.targets.tolist()
        assert held.positions[i].tolist() == ours.positions.tolist()
        assert held.ids[i].tolist() == ours.inputs.tolist()
        labels = batch["labels"][i]
        assert labels[labels >= 0].tolist() == ours.targets.tolist()
        assert ((labels >= 0).nonzero().squeeze(1) + 2).tolist() == ours.positions.tolist()


def test_an_example_per_turn_covers_each_label_once(job):
    for row in job.train["a"]:
        examples = turn_examples(row)
        assert len(examples) >= 2
        assert all(e.ids == row.ids[: len(e)] and e.labels[-1] for e in examples)
        covered = [place for e in examples for place, flag in enumerate(e.labels) if flag]
        assert covered == [place for place, flag in enumerate(row.labels) if flag]


@pytest.mark.parametrize("width", [None, 40])
def test_pefts_loss_is_the_tuned_loops(base, job, width):
    rows = job.train["a"][:2]
    model = peers.prompt_model(base.model, job.initial["a"])
    with torch.no_grad():
        theirs = model(**peers.Collator(0, width)(rows)).loss
        batch = peers.Rows(rows, 3, torch.device("cpu")).batch([0, 1])
        ours = peers.loss_sum(base.model, job.initial["a"], batch) / len(batch[2])
    assert float(theirs) == pytest.approx(float(ours), abs=1e-6)  # PEFT keeps prompts in fp32


# ---- whole ways, on a job as it lies on disk ----


def test_a_job_comes_back_from_disk(job):
    again = Job.read(job.folder)
    assert (again.keys, again.options, again.spec, again.train) == (job.keys, job.options, job.spec, job.train)
    assert again.start is not None
    assert torch.equal(again.initial["b"], job.initial["b"])


@pytest.mark.parametrize(("ours", "theirs"), [("bank", "plain_loop"), ("bank_stopping", "plain_stopping")])
def test_bank_and_tuned_loop_as_measured_are_equal_in_fp64(job, tmp_path, ours, theirs):
    results = [ways.find(way)(Job.read(job.folder), tmp_path / way, lambda count: None) for way in (ours, theirs)]
    distance, size = training.difference(results[0].prompts, results[1].prompts)
    assert distance <= 1e-12 < size
    assert results[0].steps == results[1].steps
    assert results[0].tokens == results[1].tokens
    assert results[0].epochs == pytest.approx(results[1].epochs)
    for result in results:
        assert 0 < result.load_seconds < result.seconds
    losses = [ways.evaluate(job, result.prompts) for result in results]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


def test_both_save_what_peft_reads(base, job, tmp_path):
    from peft import PeftModel

    some = job.only(["b"], epochs=1)
    for way in ("bank", "plain_loop", "trainer"):
        result = ways.find(way)(some, tmp_path / way, lambda count: None)
        (file,) = (tmp_path / way / "adapters").rglob("adapter_model.safetensors")
        model = PeftModel.from_pretrained(base.model, str(file.parent))
        torch.testing.assert_close(peers.prompt_of(model).double(), result.prompts["b"].double(), rtol=0, atol=1e-6)


def test_trainer_and_study_loop_make_their_steps_and_count_their_tokens(job, tmp_path):
    told = []
    some = job.only(["a", "b"], epochs=2)
    once = ways.find("trainer")(some, tmp_path / "trainer", told.append)
    assert once.steps == 2 * (4 + 2)
    assert once.tokens == 2 * sum(3 + len(row) for key in "ab" for row in job.train[key])
    turns = {key: sum(len(turn_examples(row)) for row in job.train[key]) for key in "ab"}
    study = ways.find("study_loop")(some, tmp_path / "study", told.append)
    assert study.steps == 2 * sum(-(-count // 2) for count in turns.values())
    assert study.padded_tokens == 2 * (3 + peers.STUDY_WIDTH) * sum(turns.values())
    for result in (once, study):
        for key in "ab":
            assert not torch.equal(result.prompts[key], job.initial[key]), "it learned"


# ---- the ladder ----


def climbed(base, job, names, options=OPTIONS):
    return ladder.climb(
        lambda: base.model, job.train, job.initial, options, SEED, 0, ladder.Switches.named(names)
    )  # fmt: skip


def test_the_ladder_has_each_technique_alone_and_all_at_its_top():
    rungs = ladder.rungs()
    assert rungs[0] == "none"
    assert set(ladder.TECHNIQUES) <= set(rungs)
    assert rungs[-1] == "+".join(ladder.TECHNIQUES)
    assert len(set(rungs)) == len(rungs)


@pytest.mark.parametrize("technique", [t for t in ladder.TECHNIQUES if t != "whole_dialogues"])
def test_a_technique_changes_no_adapter(base, job, technique):
    few = replace(OPTIONS, epochs=1)
    plainly, before = climbed(base, job, "none", few)
    better, after = climbed(base, job, technique, few)
    for key in job.keys:
        EXACT(better[key], plainly[key])
    assert before["steps"] == after["steps"]
    assert before["tokens"] == after["tokens"]


def test_the_top_of_the_ladder_is_the_bank(base, job):
    found, done = climbed(base, job, ladder.rungs()[-1])
    bank, told = fitted(base, job, OPTIONS)
    for row, key in enumerate(job.keys):
        EXACT(found[key], bank.tensors[PROMPT][row])
    assert done["steps"] == sum(own.steps for own in told.adapters.values())


# ---- decoding ----


@pytest.fixture(scope="module", params=["prompt", "lora"])
def asked(request, make_backbone, tmp_path_factory):
    """Nine prompts for three adapters that reply differently."""
    place = tmp_path_factory.mktemp("asked")
    write_base(make_backbone("float32", max_position_embeddings=256), place)
    base = load_backbone(str(place / "base"))
    spec = SPEC if request.param == "prompt" else LoRA(rank=2)
    bank = create_bank(base, spec, list(COUNTS), SEED)
    for name, tensor in bank.tensors.items():
        if name.endswith("lora_B"):
            tensor.normal_(generator=torch.Generator().manual_seed(1))
    save_bank(bank, place / "adapters", "base")
    peft = write_peft(bank, place / "adapters", "base")
    generator = np.random.default_rng(3)
    prompts = tuple(tuple(generator.integers(3, 60, int(n)).tolist()) for n in (4, 9, 5, 12, 7, 3, 8, 6, 10))
    made = Asked(
        place, place / "adapters", dict(zip(bank.keys, (at.name for at in peft), strict=True)), tuple("abcabcabc"),
        prompts, tuple(range(9)), 12, 1, 1, "float32", "cpu",
    )  # fmt: skip
    made.write("asked.json")
    return request.param, Asked.read(place, "asked.json")


def test_all_ways_decode_the_same_replies(asked):
    kind, prompts = asked
    names = [way for way in decoding.WAYS if kind == "lora" or way != "peft_mixed"]
    whole = decoding.find("bank")(prompts, lambda count: None).replies
    assert len({tuple(reply) for reply in whole.values()}) > 3, "the replies differ"
    stop = whole[0][5]  # now some replies end early, others run to the limit
    found = {way: decoding.find(way)(replace(prompts, stop_id=stop), lambda count: None).replies for way in names}
    assert len({len(reply) for reply in found["batch_1"].values()}) > 1
    for way in names:
        assert found[way] == found["batch_1"], way


def test_some_of_the_replies_are_spread_evenly_and_know_their_places(asked):
    _, prompts = asked
    some = prompts.first(3)
    assert some.places == (0, 3, 6)
    assert some.prompts == tuple(prompts.prompts[i] for i in some.places)
    assert prompts.first(100).places == tuple(range(9))


# ---- measuring and reporting ----


def fake_results(monkeypatch, seconds):
    """measure._run answers with these seconds per way, and keeps the order in which it was asked."""
    order = []

    def run(folder, place, case, threads, tell):
        order.append(case.label)
        place.mkdir(parents=True)
        result = {"load_seconds": 1.0, "seconds": seconds[case.way][order.count(case.label) - 1]}
        (place / measure.RESULT).write_text(json.dumps(result))

    monkeypatch.setattr(measure, "_run", run)
    return order


def test_ways_are_measured_in_turn_and_only_the_work_is_scaled(monkeypatch, tmp_path):
    from harness.progress import Progress

    order = fake_results(monkeypatch, {"x": [3.0, 4.0, 5.0], "y": [2.0, 2.0, 2.0]})
    cases = [measure.Case("x", "x", "train", 2, 10, scale=5.0), measure.Case("y", "y", "train", 2, 2)]
    found = measure.measure(tmp_path, cases, 3, 1, Progress("silent"))
    assert order == ["x", "y"] * 3
    assert found[0].seconds() == [11.0, 16.0, 21.0]
    assert found[1].seconds() == [2.0, 2.0, 2.0]
    again = measure.measure(tmp_path, cases, 3, 1, Progress("silent"))
    assert len(order) == 6, "what is measured is not measured again"
    assert again[0].seconds() == found[0].seconds()


def test_a_kept_folder_takes_only_the_bench_it_was_made_for(tmp_path):
    keep = tmp_path / "kept"
    for _ in range(2):
        with measure.workplace(keep, ["a", 1]) as folder:
            (folder / "x").touch()
    with pytest.raises(HarnessError, match="holds something else"), measure.workplace(keep, ["a", 2]):
        pass
    with measure.workplace(None, ["a"]) as folder:
        assert folder.is_dir()
    assert not folder.exists()


def test_a_way_that_fails_is_named_with_its_last_words(job, another_harness):
    from harness.progress import Progress

    case = measure.Case("x", "no_such_way", "train", 1, 1)
    with pytest.raises(HarnessError, match=r"'no_such_way' failed.*no way 'no_such_way'"):
        measure.measure(job.folder, [case], 1, 1, Progress("silent"))


def test_a_subset_is_scaled_by_dialogues(job):
    plan = training.Measurements(
        ["bank", "trainer"], {"trainer": 1}, sizes=[1, 3, 50], rungs=["none"], ladder_personas=2
    )
    cases = {case.label: case for case in training.cases(job, plan)}
    assert list(cases) == ["bank", "trainer", "bank 1", "plain_loop 1", "ladder:none", "bank 2 short"]
    assert (cases["trainer"].amount, cases["trainer"].of, cases["trainer"].scale) == (1, 3, 12 / 7)
    assert cases["bank"].scale == 1
    assert cases["ladder:none"].work > cases["bank 2 short"].work


def test_the_block_between_the_marks_is_replaced_and_nothing_else(tmp_path):
    file = tmp_path / "deep" / "page.md"
    report.replace_block(file, "bench x", "one")
    assert file.read_text() == "<!-- begin: bench x -->\none\n<!-- end: bench x -->\n"
    file.write_text(f"before\n{file.read_text()}after\n")
    report.replace_block(file, "bench x", r"two \1")
    assert file.read_text() == "before\n<!-- begin: bench x -->\ntwo \\1\n<!-- end: bench x -->\nafter\n"
    with pytest.raises(HarnessError, match="begin: bench y"):
        report.replace_block(file, "bench y", "three")


# ---- where time goes ----


class _Spy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, look):  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.look = look
        look("forward")
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.look("backward")
        return gradient, None


class _Module(torch.nn.Module):
    def forward(self, x, look):
        return _Spy.apply(x, look)


def test_a_look_at_the_stack_tells_forward_backward_decoding_and_the_rest(base, monkeypatch):
    sampler, seen = profiling.Sampler(), {}

    def look(name):
        seen[name] = sampler.kind(sys._getframe())

    look("rest")
    _Module()(torch.ones(2, requires_grad=True), look).sum().backward()
    assert seen == {"rest": "other", "forward": "forward", "backward": "backward"}
    monkeypatch.setattr("harness.engines.transformers_engine.plan_batches", lambda *_: look("generate") or [[0]])
    TransformersEngine(base).replies(None, [-1], [[3]], max_new_tokens=1, stop_id=1)
    assert seen["generate"] == "decoding"


def test_every_rule_of_the_sampler_names_a_place_that_exists():
    root = Path(__file__).parents[2]
    files = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in (root / "harness").rglob("*.py")}
    for kind, places in profiling.RULES:
        for part, function in places:
            if part.startswith(("torch/", "transformers/", "<")):
                continue
            found = [text for name, text in files.items() if part in name]
            assert any(f"def {function}" in text for text in found), f"{kind}: {part} {function}"


def test_the_sampler_counts_the_thread_that_opened_it():
    with profiling.Sampler(every_seconds=0.001) as sampler:
        while not sampler.counts:
            sum(range(100))
    found = profiling.summary(sampler)
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["work"] == 0
    assert found["seconds"] > 0


@pytest.mark.parametrize("in_store", [False, True])
def test_where_threads_compute_waves_the_sampler_looks_at_them(base, job, monkeypatch, tmp_path, in_store):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def work(_: object) -> None:
        fitted(base, job, replace(OPTIONS, epochs=20))

    with profiling.Sampler(every_seconds=0.001) as sampler:
        if in_store:
            Store(tmp_path).cached("adapters", "key", work)
        else:
            work(None)
    shares = sampler.shares()
    assert min(shares["forward"], shares["backward"]) > 0.1
    assert shares.get("waves", 0) + shares.get("store", 0) < 0.1
