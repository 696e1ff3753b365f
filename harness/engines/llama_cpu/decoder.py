"""The weights of a frozen Llama-like decoder, laid out for adapters in front of it and inside it.

What a model must look like, and what is folded into its weights. How they are used is in layers.
Legend: V vocabulary, D hidden, d numbers of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.model import Backbone

PARTS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_PARTS = ("gate_proj", "up_proj", "down_proj")
ROTATIONS = ("default", "linear", "llama3", "yarn")  # whose angles do not depend on the length of the text


class UnsupportedError(HarnessError):
    """The engine `llama_cpu` cannot serve this backbone, or these adapters; the message says why."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer. In front of q, k, v and of gate, up stands a bare normalisation: the norms' weights are folded in.

    weights  part -> [out, in];  biases: part -> [out] or None. Queries are scaled by d^-1/2; the two numbers of q and k
             that a rotation mixes are neighbours, so that it is one complex product
    norm1, norm2  [D] the folded weights, which low-rank updates of the layers behind them need, too
    """

    weights: dict[str, Tensor]
    biases: dict[str, Tensor | None]
    norm1: Tensor
    norm2: Tensor


@dataclass(frozen=True, eq=False)
class Decoder:
    """All layers of a frozen model, and what low-rank updates need to know.

    table     [V, D] input embeddings;  norm [D] weight of the last norm;  epsilon of all norms
    places    module name -> (layer, which of PARTS + MLP_PARTS)
    angles    [d / 2] radians that a rotation turns by at each position;  scaling: what the turned numbers are times
    """

    layers: list[Layer]
    table: Tensor
    norm: Tensor
    epsilon: float
    heads: int
    kv_heads: int
    head_width: int
    places: dict[str, tuple[int, str]]
    angles: Tensor
    scaling: float

    @property
    def scale(self) -> float:
        """What queries are multiplied by."""
        return self.head_width**-0.5

    def order(self, width: int) -> Tensor:
        """[width] where the numbers of q or k of so many come from: of each head, i and i + d / 2 become neighbours."""
        return _order(width, self.head_width)

    def rotation(self, length: int) -> Tensor:
        """[length, 1, d / 2] complex numbers that turn positions 0 .. length - 1."""
        turns = torch.arange(length, dtype=torch.float32)[:, None] * self.angles  # fp32, as the models have it
        real = self.norm.dtype
        return torch.complex((turns.cos() * self.scaling).to(real), (turns.sin() * self.scaling).to(real))[:, None]


def _order(width: int, head_width: int) -> Tensor:
    pairs = torch.arange(head_width).view(2, head_width // 2).T.flatten()
    return (torch.arange(0, width, head_width)[:, None] + pairs).flatten()


def read_decoder(backbone: Backbone) -> Decoder:
    """The decoder of a backbone, its weights laid out.

    Raises UnsupportedError if it is no plain Llama-like one in fp32 or fp64 on a CPU. Looks at the structure only:
    whether the model computes what the structure suggests, the caller must try.
    """
    model = backbone.model
    base, config = model.base_model, model.config.get_text_config()
    if reason := _unlike(backbone, base, config):
        raise UnsupportedError(reason)
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", config.num_attention_heads)
    prefix = next(name for name, module in model.named_modules() if module is base.layers)
    places = {}
    for i in range(len(base.layers)):
        places |= {f"{prefix}.{i}.self_attn.{part}": (i, part) for part in PARTS}
        places |= {f"{prefix}.{i}.mlp.{part}": (i, part) for part in MLP_PARTS}
    width = base.layers[0].self_attn.q_proj.out_features // heads
    return Decoder(
        layers=[_layer(layer, width) for layer in base.layers],
        table=base.embed_tokens.weight.detach(),
        norm=base.norm.weight.detach(),
        epsilon=_epsilon(base.norm),
        heads=heads,
        kv_heads=kv_heads,
        head_width=width,
        places=places,
        angles=base.rotary_emb.inv_freq.detach().float(),
        scaling=float(getattr(base.rotary_emb, "attention_scaling", 1.0)),
    )


def _unlike(backbone: Backbone, base: Any, config: Any) -> str:
    """Why this model cannot be laid out; empty if it can."""
    if backbone.device.type != "cpu":
        return f"it needs a CPU, and the backbone is on {backbone.device}"
    if backbone.dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 or float64, and the backbone is in {str(backbone.dtype).removeprefix('torch.')}"
    kind = type(backbone.model).__name__
    if backbone.attention != "auto":
        return f"the attention {backbone.attention!r} of transformers is asked for"
    if any(not hasattr(base, name) for name in ("layers", "norm", "rotary_emb", "embed_tokens")):
        return f"{kind} is not built like Llama"
    if type(backbone.model.get_output_embeddings()) is not nn.Linear:
        return f"the head of {kind} is no linear layer"
    if getattr(config, "hidden_act", "") not in ("silu", "swish"):
        return f"{kind} has the activation {getattr(config, 'hidden_act', 'unknown')!r} in place of 'silu'"
    if not all(_is_plain(layer) for layer in base.layers) or any(not hasattr(norm, "weight") for norm in _norms(base)):
        return f"the layers of {kind} have other parts than Llama's"
    if not _looks_everywhere(config):
        return f"{kind} has layers with a sliding window"
    rope = getattr(base.rotary_emb, "rope_type", "")
    width = base.layers[0].self_attn.q_proj.out_features // config.num_attention_heads
    inverse = getattr(base.rotary_emb, "inv_freq", None)
    if rope not in ROTATIONS or inverse is None or inverse.shape != (width // 2,):
        return f"{kind} has the rotary embedding {rope!r}; supported are {', '.join(ROTATIONS)} over the whole head"
    if len({_epsilon(norm) for norm in _norms(base)}) != 1:
        return f"the norms of {kind} have different epsilons"
    return ""


def _layer(layer: Any, width: int) -> Layer:
    norm1, norm2 = layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach()
    weights: dict[str, Tensor] = {}
    biases: dict[str, Tensor | None] = {}
    for part in PARTS + MLP_PARTS:
        module = getattr(layer.self_attn if part in PARTS else layer.mlp, part)
        weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
        if part in PARTS[:3]:
            weight = weight * norm1
        elif part in MLP_PARTS[:2]:
            weight = weight * norm2
        if part in PARTS[:2]:
            order, scale = _order(len(weight), width), width**-0.5 if part == "q_proj" else 1.0
            weight, bias = weight[order] * scale, None if bias is None else bias[order] * scale
        weights[part], biases[part] = weight, bias
    return Layer(weights, biases, norm1, norm2)


def _looks_everywhere(config: Any) -> bool:
    """No sliding window in any layer: a short trial would not notice one."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return set(kinds) == {"full_attention"}
    return getattr(config, "sliding_window", None) is None


def _is_plain(layer: nn.Module) -> bool:
    """Two norms, four projections and a gated MLP without bias: nothing that this file would overlook."""
    if {name for name, _ in layer.named_children()} != {
        "self_attn",
        "mlp",
        "input_layernorm",
        "post_attention_layernorm",
    }:
        return False
    attention, mlp = dict(layer.self_attn.named_children()), dict(layer.mlp.named_children())  # pyright: ignore[reportArgumentType, reportCallIssue, reportAttributeAccessIssue]
    linear = [attention.get(part) for part in PARTS] + [mlp.get(part) for part in MLP_PARTS]
    if set(attention) != set(PARTS) or not set(mlp) <= {*MLP_PARTS, "act_fn"}:
        return False
    if any(type(module) is not nn.Linear for module in linear):
        return False
    return all(mlp[part].bias is None for part in MLP_PARTS)


def _norms(base: Any) -> list[Any]:
    return [base.norm, *(n for layer in base.layers for n in (layer.input_layernorm, layer.post_attention_layernorm))]


def _epsilon(norm: Any) -> float:
    return float(getattr(norm, "variance_epsilon", getattr(norm, "eps", None) or 0.0))
