"""The engine `transformers`: any causal LM on any device with any kind of adapter, through the model's own forward.

Legend: B rows, T tokens, P virtual tokens, W = P + T columns, D hidden, V vocabulary, n label positions.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from harness.adapters import Bank, filled_cache, keys_and_values_only
from harness.engines.batching import Entry, Wave, cut
from harness.engines.decoding import Batch, forward_tokens, plan_batches, virtual_tokens
from harness.engines.engine import Engine
from harness.engines.head import close, head_losses, wide
from harness.model import Backbone

T = TypeVar("T")


class TransformersEngine(Engine):
    """See Engine."""

    name = "transformers"

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @functools.cached_property
    def split(self) -> bool:
        """Whether body and head can be called apart, found out by short forwards; else the model gives all logits."""
        model = self.backbone.model
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(model.get_input_embeddings().weight.shape[0], (2, 8), generator=generator)
        head = model.get_output_embeddings()
        with torch.no_grad():
            embedded = model.get_input_embeddings()(ids.to(self.backbone.device))
            wanted = model(inputs_embeds=embedded[:, :5], use_cache=False).logits
            if model.base_model is model or not isinstance(head, nn.Linear):
                return False
            hidden = getattr(model.base_model(inputs_embeds=embedded, use_cache=False), "last_hidden_state", None)
            if hidden is None or hidden.shape[-1] != head.in_features:
                return False
            return close(head(hidden)[:, :5], wanted)

    def token_losses(self, bank: Bank | None, wave: Wave, dropout_seeds: Tensor | None = None) -> Tensor:
        split, model = self.split, self.backbone.model
        # Rows are padded on the right, where causal attention needs no mask.
        inputs: dict[str, Any] = {"use_cache": False}
        embedded = model.get_input_embeddings()(wave.ids)
        prefix = None if bank is None else bank.prefix(wave.rows)
        inputs["inputs_embeds"] = embedded if prefix is None else torch.cat([prefix, embedded], dim=1)
        if bank is not None and bank.cached_tokens:
            inputs |= {"use_cache": True, "past_key_values": _new_cache(self.backbone, bank, wave.rows)}
        with nullcontext() if bank is None else bank.applied(model, wave.rows, dropout_seeds=dropout_seeds):
            if split:
                hidden = model.base_model(**inputs).last_hidden_state.flatten(0, 1).index_select(0, wave.index)
                return head_losses(hidden, model.get_output_embeddings(), wave.targets)
            chosen = model(**inputs).logits.flatten(0, 1).index_select(0, wave.index)
            return F.cross_entropy(wide(chosen), wave.targets, reduction="none")

    def cut(self, bank: Bank | None, entries: Sequence[Entry], budget_tokens: int, workers: int) -> list[list[Entry]]:
        return cut(entries, 0 if bank is None else bank.prefix_tokens, budget_tokens)

    def lengths(self, bank: Bank | None, entries: Sequence[Entry]) -> list[int]:
        longest = max(len(entry.row.inputs) for entry in entries)
        return [(0 if bank is None else bank.prefix_tokens) + longest] * len(entries)

    def each_batch(
        self,
        bank: Bank | None,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        room: int,
        batch_tokens: int,
        work: Callable[[Batch, list[int]], T],
    ) -> list[T]:
        extra = [room + 1 + (virtual_tokens(bank) if row >= 0 else 0) for row in rows]
        found = []
        with torch.no_grad():
            for indices in plan_batches(prompts, rows, extra, batch_tokens, self._may_pad(bank)):
                its = [rows[index] for index in indices], [prompts[index] for index in indices]
                used = bank if its[0][0] >= 0 else None
                with CachedBatch(self.backbone, used, *its, room) as batch:
                    found.append(work(batch, indices))
        return found

    def _may_pad(self, bank: Bank | None) -> bool:
        """Whether padding between rows of unequal length changes nothing.

        It stands between a cached prefix and the tokens, and some models count distances by columns: those with a
        window, and those that take no positions. And transformers' own eager attention, whose softmax is in fp32, makes
        NaN of the mask of a padded row in fp64.
        """
        model = self.backbone.model
        by_column = "position_ids" not in inspect.signature(model.forward).parameters
        if bank is not None and bank.cached_tokens and (by_column or not keys_and_values_only(model)):
            return False
        return self.backbone.dtype != torch.float64 or model.config._attn_implementation != "eager"

    def can_take_back(self) -> bool:
        return keys_and_values_only(self.backbone.model)


class CachedBatch:
    """A batch in decoding: the prompts are in the key-value cache, tokens are fed one per row and call.

    Layout [pad | prefix | tokens], left-padded, with a 2-D mask; a prefix that is keys and values only stands in
    the cache before the padding: [prefix | pad | tokens]. Positions are counted from the mask. Use it in a `with`
    block, which holds the adapters in place.

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
        self._adapters = _adapted(self._backbone, self._bank, self._rows)
        self._adapters.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._adapters.__exit__(*error)

    def feed(self, tokens: Tensor) -> None:
        self._columns += 1
        self.logits = _forward(
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
        # Plain caches only.
        self._cache.crop(-1)
        self._columns -= 1
        self._next_position = self._next_position - 1

    def keep(self, places: Sequence[int]) -> None:
        index = torch.tensor(places, device=self._rows.device)
        self._cache.batch_select_indices(index)
        self._rows, self._mask = self._rows[index], self._mask[index]
        self._next_position, self.logits = self._next_position[index], self.logits[index]
        self._adapters.__exit__(None, None, None)
        self.__enter__()

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Fill the cache, a few rows at a time on a CPU; returns the logits [B, V] after the prompts."""
        share = max(1, forward_tokens(self._backbone) // self._columns)
        if not keys_and_values_only(self._backbone.model):
            share = len(prompts)
        caches: list[DynamicCache] = []
        logits: list[Tensor] = []
        for start in range(0, len(prompts), share):
            part = slice(start, start + share)
            cache = _new_cache(self._backbone, self._bank, self._rows[part])
            mask = self._mask[part, : self._columns]
            with _adapted(self._backbone, self._bank, self._rows[part]):
                output = _forward(
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


def _adapted(backbone: Backbone, bank: Bank | None, rows: Tensor) -> AbstractContextManager[Any]:
    """The context in which batch row i runs with adapter rows[i] [B]; nothing to do without a bank."""
    return nullcontext() if bank is None else bank.applied(backbone.model, rows)


def _new_cache(backbone: Backbone, bank: Bank | None, rows: Tensor) -> DynamicCache:
    """A new cache for batch rows with adapters `rows` [B]: empty, or begun with their prefix of keys and values."""
    return filled_cache(backbone.model, None if bank is None else bank.cache_prefix(rows))


def _forward(backbone: Backbone, **inputs: Any) -> Any:
    """Call the model, leaving out what its architecture does not know: it then does without."""
    known = inspect.signature(backbone.model.forward).parameters
    for name in ("position_ids", "logits_to_keep"):
        if name not in known:
            inputs.pop(name, None)
    return backbone.model(**inputs)
