"""The weights of a frozen Llama-like decoder, laid out for training adapters in front of it and inside it.

What a model must look like, and what is folded into its weights. How they are used is in decoder_pass.
Legend: R tokens of a wave (no padding), D hidden, H heads, K key-value heads, d numbers of a head, I inner width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.model import Backbone

PARTS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_PARTS = ("gate_proj", "up_proj", "down_proj")
ROTATIONS = ("default", "linear", "llama3", "yarn")  # whose angles do not depend on the length of the text


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer. In front of `qkv` and `gate_up` stands a bare normalisation: the norms' weights are folded in.

    qkv      [(H + 2 K) d, D] and its bias: queries scaled by d^-1/2; the two numbers that a rotation mixes are
             neighbours, so that it is one complex product
    out      [D, H d] and its bias;  gate_up [2 I, D];  down [D, I]
    norm1, norm2  [D] the folded weights, which low-rank updates of the layers behind them need, too
    """

    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    gate_up: Tensor
    down: Tensor
    norm1: Tensor
    norm2: Tensor


@dataclass(frozen=True, eq=False)
class Decoder:
    """All layers of a frozen model, and what low-rank updates need to know.

    table     [V, D] input embeddings;  norm [D] weight of the last norm;  epsilon of all norms
    places    module name -> (layer, which of PARTS + MLP_PARTS)
    order     [(H + 2 K) d] where the rows of `qkv` come from, counted over q, k, v one after the other
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
    order: Tensor
    angles: Tensor
    scaling: float

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Widths of q, k and v."""
        return self.heads * self.head_width, self.kv_heads * self.head_width, self.kv_heads * self.head_width

    def order_of(self, part: int) -> Tensor:
        """Where the numbers of q, k or v (0, 1, 2) come from, counted from the first of that part."""
        start = sum(self.sizes[:part])
        return self.order[start : start + self.sizes[part]] - start

    def rotation(self, length: int) -> Tensor:
        """[length, 1, d / 2] complex numbers that turn positions 0 .. length - 1."""
        turns = torch.arange(length, dtype=torch.float32)[:, None] * self.angles  # fp32, as the models have it
        real = self.norm.dtype
        return torch.complex((turns.cos() * self.scaling).to(real), (turns.sin() * self.scaling).to(real))[:, None]


def read_decoder(backbone: Backbone) -> Decoder | str:
    """The decoder of a backbone; or why it has none: it is no plain Llama-like one in fp32 or fp64 on a CPU.

    Looks at the structure only. Whether the model computes what the structure suggests, the caller must try.
    """
    model = backbone.model
    base = model.base_model
    config = model.config.get_text_config()
    if backbone.device.type != "cpu" or backbone.dtype not in (torch.float32, torch.float64):
        return f"it needs fp32 or fp64 on a CPU, not {backbone.dtype} on {backbone.device.type}"
    kind = type(model).__name__
    names = ("layers", "norm", "rotary_emb", "embed_tokens")
    if any(not hasattr(base, name) for name in names) or getattr(config, "hidden_act", "") not in ("silu", "swish"):
        return f"{kind} has not the parts of a Llama-like decoder"
    if not all(_is_plain(layer) for layer in base.layers):
        return f"the layers of {kind} are not those of a plain Llama-like decoder"
    if not _looks_everywhere(config):
        return f"{kind} has layers with a sliding window"
    if getattr(base.rotary_emb, "rope_type", "") not in ROTATIONS or not hasattr(base.rotary_emb, "inv_freq"):
        return f"the rotary embedding of {kind} depends on the length of the text"
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", config.num_attention_heads)
    width = base.layers[0].self_attn.q_proj.out_features // heads
    if base.rotary_emb.inv_freq.shape != (width // 2,) or len({_epsilon(n) for n in _norms(base)}) != 1:
        return f"{kind} rotates a part of each head, or its norms differ in epsilon"
    pairs = torch.arange(width).view(2, width // 2).T.flatten()  # (i, i + d / 2) become neighbours
    head_starts = torch.arange(heads + kv_heads)[:, None] * width
    turned = (head_starts + pairs).flatten()
    order = torch.cat([turned, torch.arange((heads + kv_heads) * width, (heads + 2 * kv_heads) * width)])
    prefix = next(name for name, module in model.named_modules() if module is base.layers)
    places = {}
    for i in range(len(base.layers)):
        places |= {f"{prefix}.{i}.self_attn.{part}": (i, part) for part in PARTS}
        places |= {f"{prefix}.{i}.mlp.{part}": (i, part) for part in MLP_PARTS}
    return Decoder(
        layers=[_layer(layer, order, heads * width, width**-0.5) for layer in base.layers],
        table=base.embed_tokens.weight.detach(),
        norm=base.norm.weight.detach(),
        epsilon=_epsilon(base.norm),
        heads=heads,
        kv_heads=kv_heads,
        head_width=width,
        places=places,
        order=order,
        angles=base.rotary_emb.inv_freq.detach().float(),
        scaling=float(getattr(base.rotary_emb, "attention_scaling", 1.0)),
    )


def _layer(layer: Any, order: Tensor, queries: int, scale: float) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    norm1, norm2 = layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach()
    projections = [getattr(attention, part) for part in PARTS[:3]]
    qkv = torch.cat([p.weight.detach() for p in projections])
    bias = None
    if any(p.bias is not None for p in projections):
        bias = torch.cat([qkv.new_zeros(len(p.weight)) if p.bias is None else p.bias.detach() for p in projections])
        bias[:queries] *= scale
        bias = bias[order]
    qkv[:queries] *= scale
    return Layer(
        qkv=(qkv * norm1)[order],
        qkv_bias=bias,
        out=attention.o_proj.weight.detach(),
        out_bias=None if attention.o_proj.bias is None else attention.o_proj.bias.detach(),
        gate_up=torch.cat([mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach()]) * norm2,
        down=mlp.down_proj.weight.detach(),
        norm1=norm1,
        norm2=norm2,
    )


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
