"""Greedy decoding in batches with one adapter per row; the same replies as decoding prompts one by one.

Turning messages into prompts is `harness.model.prompts`; scoring replies is elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from harness.engines.decoding import (
    BATCH_TOKENS,
    CachedBatch,
    ProgressCallback,
    check_prompts,
    plan_batches,
    plan_passes,
    virtual_tokens,
)
from harness.engines.forward import takes_by_hand, tried_decoder
from harness.engines.llama_cpu.cached_decoder import CachedDecoder, DecoderBatch
from harness.engines.parallel import side_by_side

if TYPE_CHECKING:
    from harness.adapters import Bank
    from harness.model import Backbone


def generate(
    backbone: Backbone,
    bank: Bank | None,
    rows: Sequence[int],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_id: int,
    batch_tokens: int = BATCH_TOKENS,
    hand: bool = True,
    progress: ProgressCallback | None = None,
) -> list[list[int]]:
    """Decode a reply to each prompt, greedily, until `stop_id` or `max_new_tokens`.

    rows          bank row per prompt; -1 means no adapter
    prompts       token ids per prompt, generation prompt included
    batch_tokens  limit of rows x columns of a batch; together with prompts and rows it fixes the batches
    hand          let models and adapters that can be run by hand be run so (cached_decoder)
    progress      called with (replies finished, replies in all)

    Returns the new tokens per prompt in the given order, without the stop token; a reply may be empty.
    Raises HarnessError before starting if a prompt with its reply does not fit the model's positions.
    """
    check_prompts(backbone, bank, rows, prompts, [max_new_tokens] * len(prompts))
    replies: list[list[int]] = [[] for _ in prompts]
    if max_new_tokens <= 0 or not prompts:
        return replies
    told = _Told(len(prompts), progress)
    room = max_new_tokens - 1

    def decode(indices: list[int], batch: Batch) -> None:
        with batch:
            _decode(batch, indices, replies, max_new_tokens, stop_id, told)

    def by_model(used: Bank | None, some: list[int]) -> None:
        extra = [max_new_tokens + virtual_tokens(used)] * len(some)
        asked, served = [prompts[i] for i in some], [rows[i] for i in some]
        for places in plan_batches(asked, served, extra, batch_tokens):
            part = [some[place] for place in places]
            its = [served[place] for place in places], [asked[place] for place in places]
            decode(part, CachedBatch(backbone, used, *its, room))

    def by_hand(model: CachedDecoder, some: list[int]) -> None:
        def one(passes: list[list[int]]) -> None:
            with torch.no_grad():  # a thread starts with gradients
                longest = [prompts[chain[-1]] for chain in passes]
                lengths = [[len(prompts[i]) for i in chain] for chain in passes]
                batch = DecoderBatch(model, longest, lengths, [rows[chain[-1]] for chain in passes], room)
                decode([i for chain in passes for i in chain], batch)

        workers = torch.get_num_threads()
        with side_by_side(workers) as each:
            each(one, plan_passes(prompts, rows, some, max_new_tokens, batch_tokens, workers))

    with torch.no_grad():
        decoder = tried_decoder(backbone) if hand else None
        for used in [None] if bank is None else [bank, None]:
            some = [i for i, row in enumerate(rows) if (row >= 0) == (used is not None)]
            if not some:
                continue
            if decoder is None or (used is not None and not takes_by_hand(decoder, used)):
                by_model(used, some)
            else:
                longest = max(len(prompts[i]) for i in some) + virtual_tokens(used) + max_new_tokens
                by_hand(CachedDecoder(backbone, decoder, used, longest), some)
    return replies


class Batch(Protocol):
    """What decoding needs of a batch: CachedBatch or DecoderBatch."""

    logits: Tensor

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> None: ...
    def feed(self, tokens: Tensor) -> None: ...
    def keep(self, places: Sequence[int]) -> None: ...


class _Told:
    """Counts finished replies, whichever thread finished them."""

    def __init__(self, total: int, progress: ProgressCallback | None) -> None:
        self.total, self.progress = total, progress
        self.finished = 0
        self.lock = threading.Lock()

    def add(self, count: int) -> None:
        with self.lock:
            self.finished += count
            if self.progress is not None:
                self.progress(self.finished, self.total)


def _decode(
    batch: Batch, active: list[int], replies: list[list[int]], max_new_tokens: int, stop_id: int, told: _Told
) -> None:
    """Greedy replies to a batch's prompts; active: index of the prompt in each batch row."""
    done = [False] * len(active)
    while True:
        tokens = batch.logits.argmax(-1)
        finished = 0
        for place, token in enumerate(tokens.tolist()):
            if done[place]:
                continue
            reply = replies[active[place]]
            if token != stop_id:
                reply.append(token)
            done[place] = token == stop_id or len(reply) == max_new_tokens
            finished += done[place]
        told.add(finished)
        alive = [place for place, over in enumerate(done) if not over]
        if not alive:
            return
        # Copying the cache costs about one step, so rows go as soon as an eighth is finished.
        if (len(done) - len(alive)) * 8 >= len(done):
            batch.keep(alive)
            tokens = tokens[alive]
            active = [active[place] for place in alive]
            done = [False] * len(alive)
        batch.feed(tokens)
