"""From prompts of unequal length to batches of a causal LM: how they are cut, padded and kept in a cache.

Serves its neighbours generation and likelihood, which decide what is done with the logits; training cuts its own
batches. Legend: B rows, T tokens, P virtual tokens, W = P + T columns, D hidden, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from harness.adapters import filled_cache, keys_and_values_only
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


def plan_batches(
    prompts: Sequence[Sequence[int]], rows: Sequence[int], extra: Sequence[int], batch_tokens: int
) -> list[list[int]]:
    """Cut prompts into batches, longest first, by their content alone: same prompts, same batches, same bits.

    prompts       token ids per prompt
    rows          bank row per prompt, -1 for none; prompts without an adapter get batches of their own
    extra         columns that each prompt needs besides its tokens (prefix, new tokens)
    batch_tokens  limit of rows x columns of a batch (a longer prompt stands alone)

    Returns indices into `prompts`; within a batch they are sorted by bank row.
    """
    width = [len(prompt) + more for prompt, more in zip(prompts, extra, strict=True)]
    # The content breaks ties, so that the order in which prompts come does not matter.
    order = sorted(range(len(prompts)), key=lambda i: (rows[i] < 0, -width[i], rows[i], tuple(prompts[i])))
    batches: list[list[int]] = []
    for index in order:
        batch = batches[-1] if batches else []
        fits = batch and len(batch) < BATCH_ROWS and (len(batch) + 1) * width[batch[0]] <= batch_tokens
        if fits and (rows[index] < 0) == (rows[batch[0]] < 0):
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


def plain_cache(backbone: Backbone) -> bool:
    """Whether the model's cache is keys and values only, so that rows can be joined and tokens taken back."""
    return keys_and_values_only(backbone.model)


def adapted(backbone: Backbone, bank: Bank | None, rows: Tensor) -> AbstractContextManager[Any]:
    """The context in which batch row i runs with adapter rows[i] [B]; nothing to do without a bank."""
    return nullcontext() if bank is None else bank.applied(backbone.model, rows)


def prefilled(backbone: Backbone, bank: Bank | None, rows: Tensor) -> DynamicCache:
    """A new cache for batch rows with adapters `rows` [B]: empty, or begun with their prefix of keys and values."""
    return filled_cache(backbone.model, None if bank is None else bank.cache_prefix(rows))


def forward(backbone: Backbone, **inputs: Any) -> Any:
    """Call the model, leaving out what its architecture does not know: it then does without."""
    known = inspect.signature(backbone.model.forward).parameters
    for name in ("position_ids", "logits_to_keep"):
        if name not in known:
            inputs.pop(name, None)
    return backbone.model(**inputs)


class CachedBatch:
    """A batch in decoding: the prompts are in the key-value cache, tokens are fed one per row and call.

    Layout [pad | prefix | tokens], left-padded, with a 2-D mask; a prefix that is keys and values only stands in
    the cache before the padding: [prefix | pad | tokens]. Positions are counted from the mask. Use it in a `with`
    block, which holds the adapters in place. `logits` [B, V] are the latest next-token logits.

    rows     bank row of each batch row; all >= 0 where there is a bank
    prompts  token ids of each batch row
    room     how many tokens per row can be fed after the prompts
    """

    def __init__(
        self,
        backbone: Backbone,
        bank: Bank | None,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        room: int,
    ) -> None:
        self._backbone = backbone
        self._bank = bank
        self._rows = torch.tensor(list(rows), device=backbone.device)
        virtual = virtual_tokens(bank)
        lengths = torch.tensor([virtual + len(prompt) for prompt in prompts], device=backbone.device)
        self._columns = int(lengths.max())
        column = torch.arange(self._columns + room, device=backbone.device)
        self._cached = 0 if bank is None else bank.cached_tokens  # columns that are in the cache from the start
        seen = (column >= (self._columns - lengths + self._cached)[:, None]) | (column < self._cached)
        self._mask = seen.long()  # [B, W + room]
        self._next_position = lengths  # [B]
        self._adapters: AbstractContextManager[Any] = nullcontext()
        self.logits = self._prefill(prompts)

    def __enter__(self) -> CachedBatch:
        self._adapters = adapted(self._backbone, self._bank, self._rows)
        self._adapters.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._adapters.__exit__(*error)

    def feed(self, tokens: Tensor) -> None:
        """Append one token per row [B] and compute the logits that follow it."""
        self._columns += 1
        self.logits = forward(
            self._backbone,
            input_ids=tokens[:, None],
            attention_mask=self._mask[:, : self._columns],
            position_ids=self._next_position[:, None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self._next_position = self._next_position + 1

    def take_back(self) -> None:
        """Forget the token that was fed last (plain caches only); `logits` stay as they are."""
        self._cache.crop(-1)
        self._columns -= 1
        self._next_position = self._next_position - 1

    def keep(self, places: Sequence[int]) -> None:
        """Drop all batch rows but these, from the cache as well."""
        index = torch.tensor(places, device=self._rows.device)
        self._cache.batch_select_indices(index)
        self._rows, self._mask = self._rows[index], self._mask[index]
        self._next_position, self.logits = self._next_position[index], self.logits[index]
        self._adapters.__exit__(None, None, None)
        self.__enter__()

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Fill the cache, a few rows at a time on a CPU; returns the logits [B, V] after the prompts."""
        share = max(1, forward_tokens(self._backbone) // self._columns)
        if not plain_cache(self._backbone):
            share = len(prompts)
        caches: list[DynamicCache] = []
        logits: list[Tensor] = []
        for start in range(0, len(prompts), share):
            part = slice(start, start + share)
            cache = prefilled(self._backbone, self._bank, self._rows[part])
            mask = self._mask[part, : self._columns]
            with adapted(self._backbone, self._bank, self._rows[part]):
                output = forward(
                    self._backbone,
                    **self._inputs(prompts[part], self._rows[part]),
                    attention_mask=mask,
                    position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, self._cached :],
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
            caches.append(cache)
            logits.append(output.logits[:, -1])
        self._cache = caches[0]
        if len(caches) > 1:
            for number, layer in enumerate(self._cache.layers):
                for part in ("keys", "values"):  # [B, heads, W, D / heads]
                    setattr(layer, part, torch.cat([getattr(cache.layers[number], part) for cache in caches]))
        return torch.cat(logits)

    def _inputs(self, prompts: Sequence[Sequence[int]], rows: Tensor) -> dict[str, Tensor]:
        """What is fed, padded on the left: token ids, or embeddings where a prefix stands before the tokens."""
        prefix = None if self._bank is None else self._bank.prefix(rows)  # [B, P, D]
        virtual = 0 if prefix is None else prefix.shape[1]
        width = self._columns - self._cached
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=rows.device)
        if prefix is None:
            return {"input_ids": ids}
        embeddings = self._backbone.model.get_input_embeddings()(ids)
        first = torch.tensor([width - len(prompt) - virtual for prompt in prompts], device=rows.device)
        columns = first[:, None] + torch.arange(virtual, device=rows.device)  # [B, P]
        batch_row = torch.arange(len(prompts), device=rows.device)[:, None]
        embeddings[batch_row, columns] = prefix.to(embeddings.dtype)
        return {"inputs_embeds": embeddings}
