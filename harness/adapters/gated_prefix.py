"""Gated prefixes: attention over P trained keys and values, times a gate that is 0 at first.

Zero-init attention (Zhang et al. 2023, LLaMA-Adapter): head h of every layer adds
gate_h * softmax(q_h k_h^T / sqrt(d)) v_h to its output, a softmax of its own beside that over the tokens. So a closed
gate is the backbone to the bit, and no cache, mask or position changes. Keys and values are trained directly (the
paper trains a prompt that passes the layer's projections), in all layers; queries are taken before their rotation.
Legend: L layers, H heads, d numbers of a head, G runs of rows with one adapter each.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.adapters.bank import Bank, BaseFacts, Seeds, master_dtype, rows_of, runs_of
from harness.contract import AdapterKind, GatedPrefix
from harness.errors import HarnessError
from harness.model import Backbone

KEY, VALUE, GATE = "key", "value", "gate"
ATTENTION, QUERY, OUTPUT = "self_attn", "q_proj", "o_proj"
# Spread of the first keys and values. A trained model's own values spread by 0.5 to 1.4 (the embedded one); with much
# smaller ones an opening gate would add next to nothing.
DEVIATION = 0.5


class GatedPrefixBank(Bank):
    """N gated prefixes; tensors `key`, `value` [N, L, P, H * d] and `gate` [N, L, H]."""

    spec: GatedPrefix

    @contextlib.contextmanager
    def applied(self, model: Any, rows: Tensor, *, dropout_seeds: Tensor | None = None) -> Iterator[None]:
        _, used = runs_of(rows)
        parts = [rows_of(self.tensors[name], used).unbind(1) for name in (KEY, VALUE, GATE)]
        handles = []
        try:
            for name, key, value, gate in zip(attention_layers(model), *parts, strict=True):
                layer = model.get_submodule(name)
                attention = _GatedAttention(key, value, gate)
                handles.append(layer.get_submodule(QUERY).register_forward_hook(attention.keep_queries))
                handles.append(layer.get_submodule(OUTPUT).register_forward_pre_hook(attention.add))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def peft_config(self) -> dict[str, Any]:
        return {"num_virtual_tokens": self.spec.tokens}


class _GatedAttention:
    """The added attention of one layer while a batch runs. key, value [G, P, H * d]; gate [G, H]."""

    def __init__(self, key: Tensor, value: Tensor, gate: Tensor) -> None:
        self.heads = gate.shape[1]
        self.key = self._by_head(key).mT  # [G, H, d, P]
        self.value = self._by_head(value) * gate[..., None, None]  # [G, H, P, d]
        self.queries: Tensor | None = None

    def keep_queries(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.queries = output

    def add(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        output, queries, self.queries = inputs[0], self.queries, None  # [B, T, H * d]
        assert queries is not None, "q_proj runs before o_proj"
        runs = len(self.key)
        if queries.shape[0] % runs:
            raise ValueError(f"adapters were set for a multiple of {runs} rows, the batch has {queries.shape[0]}")
        query = self._by_head(queries.reshape(runs, -1, queries.shape[-1]))  # [G, H, rows * T, d]
        scores = query @ self.key.to(query.dtype) / math.sqrt(query.shape[-1])  # [G, H, rows * T, P]
        # In fp32 at least, as the models' own attention does.
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
        added = weights @ self.value.to(query.dtype)
        return (output + added.transpose(1, 2).reshape(output.shape), *inputs[1:])

    def _by_head(self, tensor: Tensor) -> Tensor:
        """[G, n, H * d] -> [G, H, n, d]"""
        return tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def create_gated_prefixes(backbone: Backbone, spec: GatedPrefix, count: int, seeds: Seeds) -> GatedPrefixBank:
    """N gated prefixes: gates 0; keys and values normal, each from its own seed.

    Raises HarnessError for a model without q_proj and o_proj under self_attn.
    """
    dtype, model = master_dtype(backbone.dtype), backbone.model
    layers = attention_layers(model)
    heads, width = _heads_and_width(model, layers)
    tensors = {GATE: torch.zeros(count, len(layers), heads, dtype=dtype, device=backbone.device)}
    for name in (KEY, VALUE):
        draws = []
        for seed in seeds(name):
            generator = torch.Generator().manual_seed(seed)
            draws.append(torch.randn(len(layers), spec.tokens, width, generator=generator, dtype=dtype))
        tensors[name] = (torch.stack(draws) * DEVIATION).to(backbone.device)
    return GatedPrefixBank(spec, tensors, BaseFacts.of(backbone))


def attention_layers(model: nn.Module) -> list[str]:
    """Full names of the attention blocks that have q_proj and o_proj, in the model's order."""
    return [
        name
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] == ATTENTION and isinstance(getattr(module, QUERY, None), nn.Linear)
        if isinstance(getattr(module, OUTPUT, None), nn.Linear)
    ]


def _heads_and_width(model: Any, layers: Sequence[str]) -> tuple[int, int]:
    """(H, H * d). Raises HarnessError where queries and outputs of a layer are not both H * d wide."""
    config = model.config.get_text_config()
    heads, depth = getattr(config, "num_attention_heads", 0), getattr(config, "num_hidden_layers", 0)
    widths = {
        width
        for name in layers
        for width in (
            model.get_submodule(f"{name}.{QUERY}").out_features,
            model.get_submodule(f"{name}.{OUTPUT}").in_features,
        )
    }
    if len(layers) != depth or len(widths) != 1 or not heads or min(widths) % heads:
        raise HarnessError(
            f"a gated prefix needs {QUERY} and {OUTPUT} of one width under {ATTENTION} in every layer, and "
            f"{type(model).__name__} has them in {len(layers)} of {depth} layers with widths {sorted(widths)}; "
            "use a soft prompt, or a model built like Llama"
        )
    return heads, widths.pop()


KIND = AdapterKind(
    "gated_prefix", "attention over trained keys and values through gates", GatedPrefix, create_gated_prefixes
)
