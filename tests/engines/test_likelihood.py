"""harness.engines.likelihood: batched log-likelihoods equal those of single sequences; decisions over closed sets."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from harness.adapters.bank import Bank
from harness.engines import decoding, engine_for
from harness.engines.likelihood import decide
from harness.engines.llama_cpu.batch import DecoderBatch
from harness.engines.transformers_engine import CachedBatch
from harness.errors import HarnessError
from harness.model.backbone import Backbone
from tests.engines import decoded
from tests.engines.decoded import SPECS, Vocabulary, by_model, choice_log_probs, reply_nll, small_backbone

V, STOP = 53, 3
CacheOf = Callable[[Bank, int], Any]
# One token, a shared beginning, one choice that continues another, and one given twice.
CHOICES = [[7, STOP], [8, STOP], [9, 10, STOP], [9, 10, 11, STOP], [9, 12, STOP], [7, STOP]]


@pytest.fixture(scope="module", params=["llama_cpu", "transformers", "sliding window"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    sliding = request.param == "sliding window"  # its cache cannot forget tokens
    made = small_backbone(
        Vocabulary(V, STOP), max_position_embeddings=64, initializer_range=0.3,
        use_sliding_window=sliding, sliding_window=16, max_window_layers=0,
    )  # fmt: skip
    return by_model(made) if request.param == "transformers" else made


def make_bank(backbone: Backbone, kind: str) -> Bank | None:
    return decoded.make_bank(backbone, kind)


def make_data(bank: Bank | None) -> tuple[list[int], list[list[int]], list[list[int]]]:
    draw = random.Random(7)
    rows = [-1 if bank is None else i * 7 % 6 - 1 for i in range(25)]
    prompts = [[draw.randrange(4, V) for _ in range(draw.randint(1, 40))] for _ in rows]
    replies = [[draw.randrange(4, V) for _ in range(draw.randint(0, 9))] + [STOP] for _ in rows]
    return rows, prompts, replies


def log_prob(
    backbone: Backbone, bank: Bank | None, cache_of: CacheOf, row: int, prompt: Sequence[int], reply: Sequence[int]
) -> float:
    """One sequence by itself, all logits, no padding."""
    ids = torch.tensor([[*prompt, *reply]])
    rows = torch.tensor([row])
    with torch.no_grad():
        if bank is None or row < 0:
            logits = backbone.model(input_ids=ids).logits
        else:
            embeddings = backbone.model.get_input_embeddings()(ids)
            prefix = bank.prefix(rows)
            if prefix is not None:
                embeddings = torch.cat([prefix, embeddings], dim=1)
            with bank.applied(backbone.model, rows):
                logits = backbone.model(inputs_embeds=embeddings, past_key_values=cache_of(bank, row)).logits
    log_probs = logits[0].double().log_softmax(-1)
    start = logits.shape[1] - len(reply) - 1
    return sum(float(log_probs[start + place, token]) for place, token in enumerate(reply))


@pytest.mark.parametrize("kind", ["none", *SPECS])
def test_batched_nll_equals_single_sequences(
    backbone: Backbone, kind: str, cache_of: CacheOf, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decoding, "FORWARD_TOKENS_CPU", 250)
    bank = make_bank(backbone, kind)
    rows, prompts, replies = make_data(bank)
    seen: list[tuple[int, int]] = []
    found = reply_nll(backbone, bank, rows, prompts, replies, progress=lambda done, total: seen.append((done, total)))
    expected = [-log_prob(backbone, bank, cache_of, *case) for case in zip(rows, prompts, replies, strict=True)]
    np.testing.assert_allclose([nats for nats, _ in found], expected, rtol=1e-5, atol=1e-5)
    assert [count for _, count in found] == [len(reply) for reply in replies]
    assert len(seen) > 1
    assert seen[-1] == (25, 25)


@pytest.mark.parametrize("kind", ["none", "soft prompt"])
def test_turns_of_a_dialogue_share_one_pass(
    backbone: Backbone, kind: str, cache_of: CacheOf, monkeypatch: pytest.MonkeyPatch
):
    """Prompts that begin with earlier ones and their replies; the last two are no turns of it."""
    bank = make_bank(backbone, kind)
    first, reply, second = [5, 6, 7], [8, 9, STOP], [8, 9, STOP, 10, 11]
    prompts = [first, first + second, first + second + [14, STOP, 12, 13], first, [5, 6]]
    replies = [reply, [14, STOP], [15, 16, 17, STOP], [8, STOP], [7, 8, 9, STOP]]
    row = -1 if bank is None else 2
    passes: list[int] = []
    engine = type(engine_for(backbone, bank)[0])
    whole = engine.token_losses

    def counted(self: Any, bank: Bank | None, wave: Any) -> torch.Tensor:
        passes.append(len(wave.entries))
        return whole(self, bank, wave)

    monkeypatch.setattr(engine, "token_losses", counted)
    found = reply_nll(backbone, bank, [row] * 5, prompts, replies)
    expected = [-log_prob(backbone, bank, cache_of, row, *case) for case in zip(prompts, replies, strict=True)]
    np.testing.assert_allclose([nats for nats, _ in found], expected, rtol=1e-5, atol=1e-5)
    assert [count for _, count in found] == [len(reply) for reply in replies]
    assert sum(passes) == 3  # the dialogue, and the two whose replies reach into its own


@pytest.mark.parametrize("kind", ["none", *SPECS])
def test_choice_probabilities_equal_single_sequences_and_sum_to_one(
    backbone: Backbone, kind: str, cache_of: CacheOf, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decoding, "FORWARD_TOKENS_CPU", 250)
    bank = make_bank(backbone, kind)
    rows, prompts, _ = make_data(bank)
    found = choice_log_probs(backbone, bank, rows, prompts, CHOICES)
    scores = np.array(
        [
            [log_prob(backbone, bank, cache_of, row, prompt, choice) for choice in CHOICES]
            for row, prompt in zip(rows, prompts, strict=True)
        ]
    )
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-12)


def test_choices_encode_each_prompt_once(backbone: Backbone, monkeypatch: pytest.MonkeyPatch):
    if backbone.model.config.use_sliding_window:
        pytest.skip("only a cache that can forget tokens is shared")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # so that there is one batch
    prefilled, fed = [], []
    kind = DecoderBatch if engine_for(backbone)[0].name == "llama_cpu" else CachedBatch
    prefill, feed = kind._prefill, kind.feed
    monkeypatch.setattr(kind, "_prefill", lambda self, *args: prefilled.append(1) or prefill(self, *args))
    monkeypatch.setattr(kind, "feed", lambda self, tokens: fed.append(int(tokens[0])) or feed(self, tokens))
    choice_log_probs(backbone, None, [-1] * 4, [[5, 6, 7]] * 4, CHOICES)
    assert prefilled == [1]
    assert fed == [7, 8, 9, 10, 11, 12]  # every beginning that more than the stop token follows


def test_what_does_not_fit_the_positions_is_refused(backbone: Backbone):
    with pytest.raises(HarnessError, match="prompt 1 needs 65 positions"):
        reply_nll(backbone, None, [-1, -1], [[5], [5] * 60], [[STOP], [5] * 4 + [STOP]])
    with pytest.raises(HarnessError, match="prompt 0 needs 65 positions"):
        choice_log_probs(backbone, None, [-1], [[5] * 61], CHOICES)
    with pytest.raises(ValueError, match="non-empty"):
        choice_log_probs(backbone, None, [-1], [[5]], [])


def test_mode_takes_the_most_probable_choice():
    log_probs = np.log([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    assert decide(log_probs, ["a", "b", "c"], "mode") == [1, 0]


def test_median_minimises_the_expected_absolute_error_and_takes_the_lower_of_two_equals():
    log_probs = np.log([[0.45, 0.05, 0.10, 0.40], [0.5, 1e-300, 1e-300, 0.5], [0.1, 0.1, 0.1, 0.7]])
    assert decide(log_probs, ["1", "2", "3", "5"], "median") == [1, 0, 3]
    # Choices need not come in order; the answer is a place in the list as given.
    order = [3, 1, 0, 2]
    shuffled = decide(log_probs[:, order], ["5", "2", "1", "3"], "median")
    assert shuffled == [1, 2, 0]


def test_median_of_words_is_refused():
    with pytest.raises(HarnessError, match="'high' is none"):
        decide(np.log([[0.5, 0.5]]), ["1", "high"], "median")
