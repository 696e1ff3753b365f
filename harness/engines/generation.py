"""Greedy replies of one batch of prompts. How prompts come into batches is in decoding; scoring is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.engines.decoding import Batch


def decode(
    batch: Batch, active: Sequence[int], max_new_tokens: int, stop_id: int, finished: Callable[[int], None]
) -> dict[int, list[int]]:
    """The new tokens of each row until `stop_id`, which is left out, or `max_new_tokens`.

    active    what each batch row is called in the answer
    finished  called with how many more replies are complete
    """
    active = list(active)
    replies: dict[int, list[int]] = {name: [] for name in active}
    done = [False] * len(active)
    while True:
        tokens = batch.logits.argmax(-1)
        more = 0
        for place, token in enumerate(tokens.tolist()):
            if done[place]:
                continue
            reply = replies[active[place]]
            if token != stop_id:
                reply.append(token)
            done[place] = token == stop_id or len(reply) == max_new_tokens
            more += done[place]
        finished(more)
        alive = [place for place, over in enumerate(done) if not over]
        if not alive:
            return replies
        # Copying the cache costs about one step, so rows go as soon as an eighth is finished.
        if (len(done) - len(alive)) * 8 >= len(done):
            batch.keep(alive)
            tokens = tokens[alive]
            active = [active[place] for place in alive]
            done = [False] * len(alive)
        batch.feed(tokens)
