"""Prefix tuning: P trained keys and values before those of every layer (Li and Liang 2021; PEFT's PREFIX_TUNING).

They stand first in the key-value cache and take the positions 0 to P - 1. Trained directly, without the network
that the paper reparametrises them by; the start takes over its part.
Legend: L layers, H key-value heads, d numbers of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from harness.adapters.bank import Bank, BaseFacts, Seeds, master_dtype, rows_of
from harness.adapters.soft_prompt import PROMPT, initial_vectors
from harness.contract import AdapterKind, SoftPrompt
from harness.errors import HarnessError
from harness.model import Backbone

KEY, VALUE = "key", "value"


class KVPrefixBank(Bank):
    """N prefixes; tensors `key` and `value` [N, L, H, P, d], keys with their rotation, as a cache holds them."""

    spec: SoftPrompt

    @property
    def cached_tokens(self) -> int:
        return self.tensors[KEY].shape[3]

    def cache_prefix(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        keys, values = (rows_of(self.tensors[name], rows).to(self.base.dtype) for name in (KEY, VALUE))
        return list(zip(keys.unbind(1), values.unbind(1), strict=True))

    def low_rank(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {}

    def applied(self, model: Any, rows: Tensor, *, dropout_seeds: Tensor | None = None) -> AbstractContextManager[None]:
        return nullcontext()

    def peft_config(self) -> dict[str, Any]:
        _, layers, heads, tokens, width = self.tensors[KEY].shape
        return {
            "peft_type": "PREFIX_TUNING",
            "num_virtual_tokens": tokens,
            # Of keys and values, not of queries: so PEFT itself writes it for grouped-query attention.
            "token_dim": heads * width,
            "num_layers": layers,
            "num_attention_heads": heads,
            "num_transformer_submodules": 1,
            "encoder_hidden_size": heads * width,
            "prefix_projection": False,
        }

    def to_file(self, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """[P, L * 2 * H * d]: by layer, its keys, its values."""
        both = torch.stack([adapter[KEY], adapter[VALUE]], dim=1)  # [L, 2, H, P, d]
        return {PROMPT: both.permute(3, 0, 1, 2, 4).flatten(1).contiguous()}


def create_kv_prefixes(backbone: Backbone, spec: SoftPrompt, count: int, seeds: Seeds) -> KVPrefixBank:
    """N prefixes: the keys and values that the model computes for the vectors of `spec.init`.

    So each starts as the soft prompt of kind "input" does, from its own seed alone.
    Raises HarnessError for a model whose cache holds something else than keys and values, and for a prefix that no
    sliding window would hold.
    """
    windows = windows_of(backbone.model)
    if windows is None:
        raise HarnessError(
            f"soft prompt kind 'kv' needs a cache of keys and values in every layer, and {backbone.name!r} "
            f"({type(backbone.model).__name__}) has another; use kind 'input'"
        )
    if narrow := [window for window in windows if window is not None and window <= spec.tokens]:
        raise HarnessError(
            f"a prefix of {spec.tokens} keys and values does not fit into the sliding window of {narrow[0]} tokens of "
            f"{backbone.name!r}; use fewer tokens, or kind 'input'"
        )
    dtype = master_dtype(backbone.dtype)
    vectors = initial_vectors(backbone, spec, seeds(PROMPT)).to(backbone.device, backbone.dtype)
    pairs = []
    for row in vectors if spec.init != "text" else vectors[:1]:  # one by one: company must not change a bit
        cache = filled_cache(backbone.model)
        with torch.no_grad():
            backbone.model(inputs_embeds=row[None], past_key_values=cache, use_cache=True)
        pairs.append([torch.cat([getattr(layer, part) for layer in cache.layers]) for part in ("keys", "values")])
    tensors = {
        name: torch.stack([pair[part] for pair in pairs]).to(dtype).expand(count, -1, -1, -1, -1).clone()
        for part, name in enumerate((KEY, VALUE))
    }
    return KVPrefixBank(spec, tensors, BaseFacts.of(backbone))


def keys_and_values_only(model: Any) -> bool:
    """Whether the model's cache keeps all keys and values, so that rows can be joined and tokens taken back."""
    windows = windows_of(model)
    return windows is not None and not any(windows)


def windows_of(model: Any) -> list[int | None] | None:
    """How many tokens back each layer looks, None: to the first; None for a model with other layers than attention."""
    layers = DynamicCache(config=model.config).layers
    if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return None
    return [getattr(layer, "sliding_window", None) for layer in layers] or [None]


def filled_cache(model: Any, prefix: Sequence[tuple[Tensor, Tensor]] | None = None) -> DynamicCache:
    """A cache for `model` that holds the (keys, values) [B, heads, P, d] of each layer; gradients flow back."""
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(prefix or ()):
        cache.update(keys, values, layer)
    return cache


KIND = AdapterKind(
    "kv_prefix", "keys and values before those of every layer", SoftPrompt, create_kv_prefixes, when={"kind": "kv"}
)
