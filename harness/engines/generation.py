"""The greedy loop of decoding: tokens for a batch of prompts until each reply ends. Engines make the batches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from harness.engines.decoding import ProgressCallback


class Batch(Protocol):
    """What decoding needs of a batch: CachedBatch or DecoderBatch."""

    logits: Tensor

    def feed(self, tokens: Tensor) -> None: ...
    def keep(self, places: Sequence[int]) -> None: ...


class Finished:
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


def decode(
    batch: Batch,
    active: list[int],
    replies: list[list[int]],
    max_new_tokens: int,
    stop_id: int,
    counter: Finished,
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
        counter.add(finished)
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
