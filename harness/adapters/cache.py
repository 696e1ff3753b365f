"""Key-value caches as adapters need them: what kind a model has, and one that begins with a prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def keys_and_values_only(model: Any) -> bool:
    """Whether the model's cache is keys and values only, so that rows can be joined and tokens taken back."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def filled_cache(model: Any, prefix: Sequence[tuple[Tensor, Tensor]] | None = None) -> DynamicCache:
    """A cache for `model` that holds the (keys, values) [B, heads, P, d] of each layer; gradients flow back."""
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(prefix or ()):
        cache.update(keys, values, layer)
    return cache
