"""Prefix tuning: P trained keys and values before those of every layer (Li and Liang 2021; PEFT's PREFIX_TUNING).

They stand first in the key-value cache and take the positions 0 to P - 1. Trained directly, without the network
that the paper reparametrises them by; the start takes over its part.
Legend: L layers, H key-value heads, d numbers of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from harness.adapters.bank import Bank, BaseFacts, check_keys, master_dtype, rows_of
from harness.adapters.soft_prompt import initial_vectors
from harness.contract import SoftPrompt
from harness.errors import HarnessError
from harness.model import Backbone

KEY, VALUE = "key", "value"


class KVPrefixBank(Bank):
    """N prefixes; tensors `key` and `value` [N, L, H, P, d], keys with their rotation, as a cache holds them."""

    spec: SoftPrompt

    @property
    def prefix_tokens(self) -> int:
        return 0

    @property
    def cached_tokens(self) -> int:
        return self.tensors[KEY].shape[3]

    def prefix(self, rows: Tensor) -> None:
        return None

    def cache_prefix(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        keys, values = (rows_of(self.tensors[name], rows).to(self.base.dtype) for name in (KEY, VALUE))
        return list(zip(keys.unbind(1), values.unbind(1), strict=True))

    def low_rank(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {}

    def applied(self, model: Any, rows: Tensor, *, dropout_seeds: Tensor | None = None) -> AbstractContextManager[None]:
        return nullcontext()

    def weight_deltas(self, row: int) -> dict[str, Tensor]:
        raise HarnessError("a prefix of keys and values is no change of weights and cannot be merged; only LoRA can")


def create_kv_prefixes(backbone: Backbone, spec: SoftPrompt, keys: Sequence[str], seed: int) -> KVPrefixBank:
    """N prefixes: the keys and values that the model computes for the vectors of `spec.init`.

    So each starts as the soft prompt of kind "input" does, from (seed, its key) alone.
    Raises HarnessError for a model whose cache holds something else than keys and values (sliding windows, states).
    """
    names = check_keys(keys)
    if not keys_and_values_only(backbone.model):
        raise HarnessError(
            f"soft prompt kind 'kv' needs a cache of keys and values in every layer, and {backbone.name!r} "
            f"({type(backbone.model).__name__}) has another (a sliding window or a state); use kind 'input'"
        )
    dtype = master_dtype(backbone.dtype)
    vectors = initial_vectors(backbone, spec, names, seed).to(backbone.device, backbone.dtype)
    pairs = []
    for row in vectors if spec.init != "text" else vectors[:1]:  # one by one: company must not change a bit
        cache = filled_cache(backbone.model)
        with torch.no_grad():
            backbone.model(inputs_embeds=row[None], past_key_values=cache, use_cache=True)
        pairs.append([torch.cat([getattr(layer, part) for layer in cache.layers]) for part in ("keys", "values")])
    tensors = {
        name: torch.stack([pair[part] for pair in pairs]).to(dtype).expand(len(names), -1, -1, -1, -1).clone()
        for part, name in enumerate((KEY, VALUE))
    }
    return KVPrefixBank(spec, names, tensors, BaseFacts.of(backbone))


def to_peft(key: Tensor, value: Tensor) -> Tensor:
    """key, value [L, H, P, d] -> PEFT's `prompt_embeddings` [P, L * 2 * H * d]: by layer, its keys, its values."""
    return torch.stack([key, value], dim=1).permute(3, 0, 1, 2, 4).flatten(1).contiguous()


def from_peft(stored: Tensor, layers: int, heads: int) -> tuple[Tensor, Tensor]:
    """The way back: (key, value) [L, H, P, d]."""
    both = stored.view(stored.shape[0], layers, 2, heads, -1).permute(1, 2, 3, 0, 4)
    return both[:, 0].contiguous(), both[:, 1].contiguous()


def keys_and_values_only(model: Any) -> bool:
    """Whether the model's cache is keys and values only, so that rows can be joined and tokens taken back."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def filled_cache(model: Any, prefix: Sequence[tuple[Tensor, Tensor]] | None = None) -> DynamicCache:
    """A cache for `model` that holds the (keys, values) [B, heads, P, d] of each layer; gradients flow back."""
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(prefix or ()):
        cache.update(keys, values, layer)
    return cache
