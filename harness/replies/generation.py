"""Greedy decoding in batches with one adapter per row; the same replies as decoding prompts one by one.

Turning messages into prompts is `harness.prompts`; scoring replies is elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from harness.replies.decoding import (
    BATCH_TOKENS,
    CachedBatch,
    ProgressCallback,
    check_prompts,
    plan_batches,
    prefix_tokens,
)

if TYPE_CHECKING:
    from harness.adapters import Bank
    from harness.backbone import Backbone


def generate(
    backbone: Backbone,
    bank: Bank | None,
    rows: Sequence[int],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_id: int,
    batch_tokens: int = BATCH_TOKENS,
    progress: ProgressCallback | None = None,
) -> list[list[int]]:
    """Decode a reply to each prompt, greedily, until `stop_id` or `max_new_tokens`.

    rows          bank row per prompt; -1 means no adapter
    prompts       token ids per prompt, generation prompt included
    batch_tokens  limit of rows x columns of a batch; together with prompts and rows it fixes the batches
    progress      called with (replies finished, replies in all)

    Returns the new tokens per prompt in the given order, without the stop token; a reply may be empty.
    Raises HarnessError before starting if a prompt with its reply does not fit the model's positions.
    """
    check_prompts(backbone, bank, rows, prompts, [max_new_tokens] * len(prompts))
    replies: list[list[int]] = [[] for _ in prompts]
    if max_new_tokens <= 0:
        return replies
    virtual = prefix_tokens(backbone, bank)
    room = [max_new_tokens + (virtual if row >= 0 else 0) for row in rows]
    finished = 0
    with torch.no_grad():
        for indices in plan_batches(prompts, rows, room, batch_tokens):
            used = bank if rows[indices[0]] >= 0 else None
            with CachedBatch(
                backbone,
                used,
                [rows[index] for index in indices],
                [prompts[index] for index in indices],
                max_new_tokens - 1,
            ) as batch:
                active = indices  # index of the prompt in each batch row
                done = [False] * len(active)
                while True:
                    tokens = batch.logits.argmax(-1)
                    for place, token in enumerate(tokens.tolist()):
                        if done[place]:
                            continue
                        reply = replies[active[place]]
                        if token != stop_id:
                            reply.append(token)
                        done[place] = token == stop_id or len(reply) == max_new_tokens
                        finished += done[place]
                    if progress is not None:
                        progress(finished, len(prompts))
                    alive = [place for place, over in enumerate(done) if not over]
                    if not alive:
                        break
                    # Copying the cache costs about one step, so rows go as soon as an eighth is finished.
                    if (len(done) - len(alive)) * 8 >= len(done):
                        batch.keep(alive)
                        tokens = tokens[alive]
                        active = [active[place] for place in alive]
                        done = [False] * len(alive)
                    batch.feed(tokens)
    return replies
