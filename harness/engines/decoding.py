"""How prompts of unequal length are cut into batches, by their content alone, and the greedy replies of a batch.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from harness.engines.parallel import even_parts
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.adapters import Bank
    from harness.model import Backbone

ProgressCallback = Callable[[int, int], None]  # (done, total)

BATCH_TOKENS = 32_768  # columns x rows of one batch; bounds the cache
BATCH_ROWS = 256
PASS_ROWS = 8  # prompts that share one pass; a batch's cache has room for the largest number in each of its passes
# Passes over whole prompts are cut finer on a CPU: beyond this, activations leave its caches.
FORWARD_TOKENS_CPU = 4_096


class Batch(Protocol):
    """Prompts in a key-value cache. `logits` [B, V] are the latest next-token logits of each row."""

    logits: Tensor

    def feed(self, tokens: Tensor) -> None:
        """Append one token per row [B] and compute the logits that follow it."""
        ...

    def take_back(self) -> None:
        """Forget the token that was fed last; `logits` stay as they are."""
        ...

    def keep(self, places: Sequence[int]) -> None:
        """Drop all rows but these."""
        ...


def plan_batches(
    prompts: Sequence[Sequence[int]],
    rows: Sequence[int],
    extra: Sequence[int],
    batch_tokens: int,
    padded: bool = True,
) -> list[list[int]]:
    """Cut prompts into batches, longest first, by their content alone: same prompts, same batches, same bits.

    prompts       token ids per prompt
    rows          bank row per prompt, -1 for none; prompts without an adapter get batches of their own
    extra         columns that each prompt needs besides its tokens (prefix, new tokens)
    batch_tokens  limit of rows x columns of a batch (a longer prompt stands alone)
    padded        whether prompts of unequal length may share a batch

    Returns indices into `prompts`; within a batch they are sorted by bank row.
    """
    width = [len(prompt) + more for prompt, more in zip(prompts, extra, strict=True)]
    # The content breaks ties, so that the order in which prompts come does not matter.
    order = sorted(range(len(prompts)), key=lambda i: (rows[i] < 0, -width[i], rows[i], tuple(prompts[i])))
    batches: list[list[int]] = []
    for index in order:
        batch = batches[-1] if batches else []
        fits = batch and len(batch) < BATCH_ROWS and (len(batch) + 1) * width[batch[0]] <= batch_tokens
        like = batch and (padded or len(prompts[index]) == len(prompts[batch[0]]))
        if fits and like and (rows[index] < 0) == (rows[batch[0]] < 0):
            batch.append(index)
        else:
            batches.append([index])
    return [sorted(batch, key=lambda i: rows[i]) for batch in batches]


def plan_passes(
    prompts: Sequence[Sequence[int]],
    rows: Sequence[int],
    new: int,
    batch_tokens: int,
    workers: int,
) -> list[list[list[int]]]:
    """Cut prompts into batches of chains of beginnings, by their content alone, a multiple of `workers`.

    new   tokens that follow each prompt at most
    Returns for each batch its chains of at most PASS_ROWS, indices into `prompts` with the longest last, sorted by
    bank row.
    """
    asked = [list(prompt) for prompt in prompts]
    chains = [
        chain[first : first + PASS_ROWS]
        for chain in shared_passes(asked, asked, rows).values()
        for first in range(0, len(chain), PASS_ROWS)
    ]
    # Like beside like, by rows and by length: a batch's cache is as large as its largest pass needs, for each.
    chains.sort(key=lambda chain: (-len(chain), -len(prompts[chain[-1]]), rows[chain[-1]], tuple(prompts[chain[-1]])))
    tokens = sum(len(prompts[chain[-1]]) for chain in chains) + new * len(prompts)
    count = max(-(-len(prompts) // BATCH_ROWS), -(-tokens // batch_tokens))
    count = min(-(-count // workers) * workers, len(chains))
    batches: list[list[list[int]]] = [[] for _ in range(count)]
    for chain, number in zip(chains, even_parts([len(chain) for chain in chains], count), strict=True):
        batches[number].append(chain)
    return [sorted(batch, key=lambda chain: rows[chain[-1]]) for batch in batches if batch]


def shared_passes(
    prompts: Sequence[Sequence[int]], fed: Sequence[Sequence[int]], rows: Sequence[int]
) -> dict[int, list[int]]:
    """For each text that must be run, by index: the texts that are its beginnings with the same adapter, itself too.

    The turns of a dialogue are beginnings of its last one: causal attention computes them all in one pass. A reply
    that reaches into another one's, as closed choices do, has a pass of its own.
    """
    order = sorted(range(len(fed)), key=lambda i: (rows[i], fed[i], i))
    readers: dict[int, list[int]] = {}
    waiting: list[int] = []  # the beginnings of what comes next, as a chain
    for place, index in enumerate(order):
        waiting.append(index)
        following = order[place + 1] if place + 1 < len(order) else None
        if (
            following is None
            or rows[following] != rows[index]
            or len(fed[index]) >= len(prompts[following])
            or list(prompts[following][: len(fed[index])]) != fed[index]
        ):
            readers[index] = waiting
            waiting = []  # what follows may continue a shorter one of these, which has its pass already
    return readers


def forward_tokens(backbone: Backbone, batch_tokens: int = BATCH_TOKENS) -> int:
    """How many tokens one forward pass over whole prompts takes at most."""
    return min(batch_tokens, FORWARD_TOKENS_CPU) if backbone.device.type == "cpu" else batch_tokens


def virtual_tokens(bank: Bank | None) -> int:
    """Virtual tokens P that the bank puts before a prompt, fed or cached; 0 without any."""
    return 0 if bank is None else bank.prefix_tokens + bank.cached_tokens


def check_prompts(
    backbone: Backbone,
    bank: Bank | None,
    rows: Sequence[int],
    prompts: Sequence[Sequence[int]],
    new: Sequence[int],
) -> None:
    """Refuse, before any work, what cannot be run: unknown rows, and prompts beyond the model's positions.

    new   tokens that follow each prompt
    Raises ValueError for a caller's mistake and HarnessError for data that is too long for the backbone.
    """
    if len(rows) != len(prompts):
        raise ValueError(f"{len(rows)} rows for {len(prompts)} prompts")
    adapters = 0 if bank is None else len(bank.keys)
    wrong = [row for row in rows if not -1 <= row < adapters]
    if wrong:
        raise ValueError(f"row {wrong[0]} is not in the bank of {adapters} adapters (-1 means no adapter)")
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt has no tokens")
    positions = getattr(backbone.model.config, "max_position_embeddings", None)
    if positions is None:
        return
    virtual = virtual_tokens(bank)
    needs = [
        (virtual if row >= 0 else 0) + len(prompt) + more for row, prompt, more in zip(rows, prompts, new, strict=True)
    ]
    if needs and max(needs) > positions:
        place = needs.index(max(needs))
        tokens, more = len(prompts[place]), new[place]
        raise HarnessError(
            f"prompt {place} needs {needs[place]} positions: {tokens} tokens, {more} new ones and "
            f"{needs[place] - tokens - more} virtual; backbone '{backbone.name}' has {positions}. "
            "Lower max_prompt_tokens or max_new_tokens, or choose a backbone with more positions"
        )


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
