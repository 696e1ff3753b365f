"""harness.engines.decoding: batched decoding gives the replies of decoding one by one, in any company."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from harness.adapters.bank import Bank
from harness.engines import decoding
from harness.engines.decoding import plan_batches, plan_passes
from harness.engines.llama_cpu.batch import DecoderBatch
from harness.engines.transformers_engine import CachedBatch
from harness.errors import HarnessError
from harness.model.backbone import Backbone
from tests.engines.decoded import SPECS, Vocabulary, by_model, generate, make_bank, small_backbone

V, STOP, NEW = 61, 3, 12
CacheOf = Callable[[Bank, int], Any]


def make_backbone(**options: Any) -> Backbone:
    # Peaked enough that greedy replies vary and some end early.
    made = small_backbone(
        Vocabulary(V, STOP), max_position_embeddings=96, tie_word_embeddings=False, initializer_range=0.5, **options
    )
    made.model.lm_head.weight[STOP] *= 1.5
    return made


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


def make_prompts(count: int, longest: int = 40) -> list[list[int]]:
    draw = random.Random(7)
    return [[draw.randrange(4, V) for _ in range(draw.randint(1, longest))] for _ in range(count)]


def make_rows(count: int, bank: Bank | None) -> list[int]:
    return [-1 if bank is None else i * 7 % 6 - 1 for i in range(count)]


def one_by_one(
    backbone: Backbone, bank: Bank | None, row: int, prompt: Sequence[int], cache_of: CacheOf = lambda bank, row: None
) -> list[int]:
    """The plainest decoding: no cache, no padding, the whole sequence again for each token."""
    reply: list[int] = []
    rows = torch.tensor([row])
    with torch.no_grad():
        while len(reply) < NEW:
            ids = torch.tensor([[*prompt, *reply]])
            if bank is None or row < 0:
                logits = backbone.model(input_ids=ids).logits
            else:
                embeddings = backbone.model.get_input_embeddings()(ids)
                prefix = bank.prefix(rows)
                if prefix is not None:
                    embeddings = torch.cat([prefix, embeddings], dim=1)
                with bank.applied(backbone.model, rows):
                    logits = backbone.model(inputs_embeds=embeddings, past_key_values=cache_of(bank, row)).logits
            token = int(logits[0, -1].argmax())
            if token == STOP:
                break
            reply.append(token)
    return reply


@pytest.fixture(scope="module")
def plainly(backbone: Backbone, cache_of: CacheOf) -> Callable[[str], list[list[int]]]:
    """plainly(kind) -> replies that are decoded one by one, made once for all tests."""

    @functools.cache
    def replies(kind: str) -> list[list[int]]:
        bank, prompts = make_bank(backbone, kind), make_prompts(40)
        rows = make_rows(40, bank)
        return [one_by_one(backbone, bank, row, prompt, cache_of) for row, prompt in zip(rows, prompts, strict=True)]

    return replies


@pytest.mark.parametrize("batch_tokens", [120, 32_768])
@pytest.mark.parametrize("hand", [True, False])
@pytest.mark.parametrize("kind", ["none", *SPECS])
def test_batched_replies_equal_decoding_one_by_one(
    backbone: Backbone, kind: str, batch_tokens: int, hand: bool, plainly: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decoding, "FORWARD_TOKENS_CPU", 150)  # several prefills per batch
    bank = make_bank(backbone, kind)
    prompts = make_prompts(40)
    rows = make_rows(40, bank)
    replies = generate(
        backbone if hand else by_model(backbone),
        bank,
        rows,
        prompts,
        max_new_tokens=NEW,
        stop_id=STOP,
        batch_tokens=batch_tokens,
    )
    assert replies == plainly(kind)
    lengths = {len(reply) for reply in replies}
    assert min(lengths) < NEW / 2, "the case must hold early stops"
    assert max(lengths) == NEW, "the case must hold replies that reach the limit"


def test_models_with_sliding_windows_are_decoded_alike(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "FORWARD_TOKENS_CPU", 150)
    backbone = make_backbone(use_sliding_window=True, sliding_window=8, max_window_layers=1)
    prompts = make_prompts(12, longest=20)
    replies = generate(backbone, None, [-1] * 12, prompts, max_new_tokens=NEW, stop_id=STOP)
    assert replies == [one_by_one(backbone, None, -1, prompt) for prompt in prompts]


@pytest.mark.parametrize("kind", SPECS)
def test_adapters_matter_and_row_minus_one_has_none(backbone: Backbone, kind: str):
    bank = make_bank(backbone, kind)
    prompts = make_prompts(30)
    bare = generate(backbone, None, [-1] * 30, prompts, max_new_tokens=NEW, stop_id=STOP)
    without = generate(backbone, bank, [-1] * 30, prompts, max_new_tokens=NEW, stop_id=STOP)
    first = generate(backbone, bank, [0] * 30, prompts, max_new_tokens=NEW, stop_id=STOP)
    second = generate(backbone, bank, [1] * 30, prompts, max_new_tokens=NEW, stop_id=STOP)
    assert bare == without
    assert bare != first != second


def test_the_order_of_prompts_does_not_change_a_reply(backbone: Backbone):
    bank = make_bank(backbone, "lora")
    prompts, rows = make_prompts(20), make_rows(20, bank)
    replies = generate(backbone, bank, rows, prompts, max_new_tokens=NEW, stop_id=STOP)
    again = generate(backbone, bank, rows[::-1], prompts[::-1], max_new_tokens=NEW, stop_id=STOP)
    assert again[::-1] == replies


def test_a_reply_may_be_empty_and_no_tokens_may_be_asked_for(backbone: Backbone):
    prompts = make_prompts(10)
    first = generate(backbone, None, [-1] * 10, prompts, max_new_tokens=1, stop_id=STOP)
    stop = first[4][0]
    assert generate(backbone, None, [-1] * 10, prompts, max_new_tokens=5, stop_id=stop)[4] == []
    assert generate(backbone, None, [-1] * 10, prompts, max_new_tokens=0, stop_id=STOP) == [[]] * 10
    assert generate(backbone, None, [], [], max_new_tokens=5, stop_id=STOP) == []


def test_progress_counts_finished_replies(backbone: Backbone):
    seen: list[tuple[int, int]] = []
    prompts = make_prompts(20)
    generate(
        backbone,
        None,
        [-1] * 20,
        prompts,
        max_new_tokens=NEW,
        stop_id=STOP,
        batch_tokens=150,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (20, 20)
    assert seen[0][0] < 20


@pytest.mark.parametrize("kind", [CachedBatch, DecoderBatch])
def test_finished_rows_leave_the_batch(backbone: Backbone, kind: Any, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    feed = kind.feed

    def counting(self: Any, tokens: torch.Tensor) -> None:
        sizes.append(len(tokens))
        feed(self, tokens)

    monkeypatch.setattr(kind, "feed", counting)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # so that there is one batch
    hand = kind is DecoderBatch
    generate(
        backbone if hand else by_model(backbone), None, [-1] * 40, make_prompts(40), max_new_tokens=NEW, stop_id=STOP
    )
    assert sizes[0] > sizes[-1]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("kind", ["none", "soft prompt", "lora"])
def test_prompts_that_begin_alike_share_their_prefill(backbone: Backbone, kind: str, monkeypatch: pytest.MonkeyPatch):
    """Turns of dialogues: each prompt continues the one before it; with another adapter it is another one's."""
    bank = make_bank(backbone, kind)
    longest = make_prompts(6, longest=40)
    prompts, rows = [], []
    for number, prompt in enumerate(longest):
        for end in sorted({1 + len(prompt) // 3, 1 + len(prompt) // 2, len(prompt)}):
            for row in (-1,) if bank is None else (number % 3, 3):
                prompts.append(prompt[:end])
                rows.append(row)
    fed: list[int] = []
    one_pass = DecoderBatch._pass

    def counting(self: Any, prompts: Any, *more: Any) -> torch.Tensor:
        fed.append(sum(map(len, prompts)))
        return one_pass(self, prompts, *more)

    monkeypatch.setattr(DecoderBatch, "_pass", counting)
    replies = generate(backbone, bank, rows, prompts, max_new_tokens=NEW, stop_id=STOP)
    assert replies == generate(by_model(backbone), bank, rows, prompts, max_new_tokens=NEW, stop_id=STOP)
    assert sum(fed) == sum(map(len, longest)) * (1 if bank is None else 2)
    assert len({tuple(reply) for reply in replies}) > 6


def test_a_long_dialogue_beside_short_ones_is_cut_into_several_passes(backbone: Backbone):
    long, *others = make_prompts(5, longest=40)
    long = (long * 4)[:45]
    prompts = [long[:end] for end in range(5, 46, 2)] + others
    passes = plan_passes(prompts, [-1] * len(prompts), NEW, 10**6, 1)
    assert sorted(len(chain) for batch in passes for chain in batch) == [1, 1, 1, 1, 5, 8, 8]
    rows = [-1] * len(prompts)
    replies = generate(backbone, None, rows, prompts, max_new_tokens=NEW, stop_id=STOP)
    assert replies == generate(by_model(backbone), None, rows, prompts, max_new_tokens=NEW, stop_id=STOP)


@pytest.mark.parametrize("workers", [1, 3])
def test_passes_are_cut_by_content_alone_into_a_multiple_of_the_workers(workers: int):
    prompts = make_prompts(90)
    prompts += [[*prompt, 5, 6] for prompt in prompts[:30]]
    rows = [i % 3 for i in range(90)] + [i % 3 for i in range(30)]
    batches = plan_passes(prompts, rows, 10, 700, workers)
    assert len(batches) % workers == 0
    assert sorted(i for batch in batches for chain in batch for i in chain) == list(range(120))
    for batch in batches:
        served = [rows[chain[-1]] for chain in batch]
        assert served == sorted(served)
        for chain in batch:
            assert {rows[i] for i in chain} == {rows[chain[0]]}
            assert all(prompts[chain[-1]][: len(prompts[i])] == prompts[i] for i in chain)
    order = list(range(120))
    random.Random(3).shuffle(order)
    shuffled = plan_passes([prompts[i] for i in order], [rows[i] for i in order], 10, 700, workers)
    texts = [[[(rows[order[i]], prompts[order[i]]) for i in chain] for chain in batch] for batch in shuffled]
    assert texts == [[[(rows[i], prompts[i]) for i in chain] for chain in batch] for batch in batches]


def test_a_failure_in_one_batch_ends_the_decoding_and_gives_threads_back(backbone: Backbone):
    before = torch.get_num_threads()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(backbone, None, [-1] * 20, make_prompts(20), max_new_tokens=NEW, stop_id=STOP, progress=stop)
    assert torch.get_num_threads() == before


def test_too_long_a_prompt_is_refused_before_any_work(backbone: Backbone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("harness.engines.llama_cpu.engine.plan_passes", lambda *_: pytest.fail("work was started"))
    bank = make_bank(backbone, "soft prompt")  # 4 virtual tokens
    prompts = [[5] * 3, [5] * (96 - NEW - 4 + 1)]
    with pytest.raises(HarnessError, match=r"prompt 1 needs 97 positions: 81 tokens, 12 new ones and 4 virtual"):
        generate(backbone, bank, [0, 0], prompts, max_new_tokens=NEW, stop_id=STOP)


def test_a_row_that_the_bank_does_not_have_is_a_mistake_of_the_caller(backbone: Backbone):
    with pytest.raises(ValueError, match="row 5 is not in the bank of 5"):
        generate(backbone, make_bank(backbone, "lora"), [5], [[5]], max_new_tokens=1, stop_id=STOP)
    with pytest.raises(ValueError, match="row 0 is not in the bank of 0"):
        generate(backbone, None, [0], [[5]], max_new_tokens=1, stop_id=STOP)


def test_batches_follow_from_content_alone():
    prompts = make_prompts(100)
    rows = [i % 4 - 1 for i in range(100)]
    extra = [10] * 100
    batches = plan_batches(prompts, rows, extra, 300)
    assert sorted(index for batch in batches for index in batch) == list(range(100))
    for batch in batches:
        width = max(len(prompts[index]) for index in batch) + 10
        assert len(batch) == 1 or len(batch) * width <= 300
        assert len({rows[index] < 0 for index in batch}) == 1
        assert [rows[index] for index in batch] == sorted(rows[index] for index in batch)
    order = list(range(100))
    random.Random(3).shuffle(order)
    shuffled = plan_batches([prompts[i] for i in order], [rows[i] for i in order], extra, 300)
    assert [[prompts[order[i]] for i in batch] for batch in shuffled] == [
        [prompts[i] for i in batch] for batch in batches
    ]
