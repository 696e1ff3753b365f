"""Forward and backward of a frozen decoder by hand: only what adapters need, no padding, nothing computed twice.

The tokens of a wave's rows lie one after the other [R, D]; attention goes row by row. The last layer works on label
positions alone, and the first layer's backward stops at the virtual tokens. Virtual tokens that are keys and values
only lie among the others as zeros, with theirs in place of what a layer computes for them. Weights: decoder.
Legend: R tokens of a wave, n labels, D hidden, H heads, d numbers of a head, T tokens of a row, U adapters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.adapters import Bank
from harness.engines.batching import Wave
from harness.engines.llama_cpu.causal import Attention
from harness.engines.llama_cpu.decoder import PARTS, Decoder, Layer
from harness.engines.llama_cpu.low_rank import Update, folded
from harness.engines.llama_cpu.packed import Packed, pack
from harness.engines.llama_cpu.scripted import scripted


def hidden_states(decoder: Decoder, bank: Bank, wave: Wave) -> Tensor:
    """Hidden states [n, D] at the label positions of a wave; `bank` holds the wave's adapters, which are low-rank
    updates, or virtual tokens, or their keys and values, or several of these."""
    rows = [entry.row for entry in wave.entries]
    inputs, reads = [row.inputs for row in rows], [row.positions for row in rows]
    packed = pack(inputs, reads, wave.rows.tolist(), bank.prefix_tokens, bank.cached_tokens)
    prefix = bank.prefix(wave.rows)
    prefix = None if prefix is None else prefix.flatten(0, 1)
    return run(decoder, packed, prefix, bank.low_rank(), past_of(decoder, bank, wave.rows))


def past_of(decoder: Decoder, bank: Bank, rows: Tensor) -> Tensor | None:
    """[L, B * P, 2 K d] keys and values of each layer for the virtual tokens of bank rows [B], in the decoder's order;
    None for a kind of adapter that has no such."""
    pairs = bank.cache_prefix(rows)
    if pairs is None:
        return None
    keys, values = (torch.stack(part).transpose(2, 3).flatten(3) for part in zip(*pairs, strict=True))
    return torch.cat([keys.index_select(3, decoder.order_of(1)), values], 3).flatten(1, 2)


def run(
    decoder: Decoder,
    packed: Packed,
    prefix: Tensor | None = None,
    low_rank: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    past: Tensor | None = None,
) -> Tensor:
    """Hidden states [n, D] behind the last norm; prefix [B * P, D]; low_rank as `Bank.low_rank`; past: past_of."""
    low_rank = low_rank or {}
    found = DecoderPass.apply(decoder, packed, list(low_rank), prefix, past, *folded(decoder, low_rank))
    assert isinstance(found, Tensor)
    return found


def embedded(decoder: Decoder, packed: Packed, prefix: Tensor | None) -> Tensor:
    """[R, D] what goes into the first layer; zeros for virtual tokens that are keys and values only."""
    x = decoder.table.new_empty(len(packed.positions), decoder.table.shape[1])
    x.index_copy_(0, packed.token_at, decoder.table.index_select(0, packed.ids))
    return x.index_fill_(0, packed.prefix_at, 0) if prefix is None else x.index_copy_(0, packed.prefix_at, prefix)


def updates_of(decoder: Decoder, names: Sequence[str], pairs: Sequence[Tensor]) -> list[dict[str, Update]]:
    """For each layer its updates by part, from the names of modules and what `folded` gives for them."""
    updates: list[dict[str, Update]] = [{} for _ in decoder.layers]
    for i, name in enumerate(names):
        number, part = decoder.places[name]
        updates[number][part] = Update(pairs[2 * i], pairs[2 * i + 1])
    return updates


@dataclass
class _Kept:
    """What one layer's backward needs of its forward."""

    n1: Tensor
    r1: Tensor
    qkv: Tensor
    weights: Any
    mixed: Tensor
    n2: Tensor
    r2: Tensor
    gate_up: Tensor
    silu: Tensor
    inner: Tensor | None
    downs: dict[str, Tensor]


class Mixing(Protocol):
    """What a layer needs of attention; see `causal.Attention`."""

    def mix(self, qkv: Tensor, labels_only: bool, keep: bool) -> tuple[Tensor, Any]: ...


class DecoderPass(torch.autograd.Function):
    """(decoder, packed, names of updates, prefix [B * P, D] or None, past [L, B * P, 2 K d] or None, a, b, a, b, ...)
    -> hidden states [n, D]."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        decoder: Decoder,
        packed: Packed,
        names: Sequence[str],
        prefix: Tensor | None,
        past: Tensor | None,
        *pairs: Tensor,
    ) -> Tensor:
        keep = any(ctx.needs_input_grad)
        updates = updates_of(decoder, names, pairs)
        x = embedded(decoder, packed, prefix)
        rotation = decoder.rotation(max(packed.lengths))[packed.positions]
        attention = Attention(decoder, packed)
        kept: list[_Kept] = []
        for number, layer in enumerate(decoder.layers):
            last = number == len(decoder.layers) - 1
            attention.past = None if past is None else past[number]
            x, found = forward_layer(decoder, layer, updates[number], packed, attention, rotation, x, last, keep)
            if keep:
                kept.append(found)
        normal, scale = normalised(x, decoder.epsilon)
        if keep:
            ctx.facts = decoder, packed, attention, rotation, updates, kept, normal, scale
            ctx.names, ctx.with_prefix = names, prefix is not None
        return normal * decoder.norm

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        decoder, packed, attention, rotation, updates, kept, normal, scale = ctx.facts
        ctx.facts = None  # what is kept is used once; without this it would live as long as the graph
        g = _normalised_back(grad * decoder.norm, normal, scale, None)
        past_grads: list[Tensor] = []
        for number in range(len(decoder.layers) - 1, -1, -1):
            ends = number == 0, number == len(decoder.layers) - 1
            layer = decoder.layers[number]
            g = _backward(decoder, layer, updates[number], packed, attention, rotation, kept.pop(), g, *ends)
            if attention.past_grad is not None:
                past_grads.append(attention.past_grad)
        gradients: list[Tensor | None] = []
        for name in ctx.names:
            number, part = decoder.places[name]
            gradients += [updates[number][part].grad_a, updates[number][part].grad_b]
        of_past = torch.stack(past_grads[::-1]) if past_grads else None
        return None, None, None, g if ctx.with_prefix else None, of_past, *gradients


def forward_layer(
    decoder: Decoder,
    layer: Layer,
    updates: dict[str, Update],
    packed: Packed,
    attention: Mixing,
    rotation: Tensor,
    x: Tensor,
    last: bool,
    keep: bool,
) -> tuple[Tensor, _Kept]:
    """One layer: x [R, D], which is used up, -> [R, D], or [n, D] on the label positions from the last one.

    attention  mixes values; training's, or one that remembers keys and values (cached_decoder)
    keep       whether attention is to keep what its backward needs
    """
    downs: dict[str, Tensor] = {}
    n1, r1 = normalised(x, decoder.epsilon)
    qkv = F.linear(n1, layer.qkv, layer.qkv_bias)
    for part, columns in zip(PARTS[:3], qkv.split(decoder.sizes, dim=1), strict=True):
        if part in updates:
            downs[part] = updates[part].add(n1, columns, packed.runs)
    _turned(decoder, qkv, rotation)
    mixed, weights = attention.mix(qkv, last, keep)
    runs = packed.runs
    if last:
        x, runs = x.index_select(0, packed.labels), packed.label_runs
    x.addmm_(mixed, layer.out.T)
    if layer.out_bias is not None:
        x += layer.out_bias
    if "o_proj" in updates:
        downs["o_proj"] = updates["o_proj"].add(mixed, x, runs)
    n2, r2 = normalised(x, decoder.epsilon)
    gate_up = F.linear(n2, layer.gate_up)
    gate, up = gate_up.chunk(2, dim=1)
    for part, columns in (("gate_proj", gate), ("up_proj", up)):
        if part in updates:
            downs[part] = updates[part].add(n2, columns, runs)
    silu, inner = _gated(gate_up, keep)
    x.addmm_(inner, layer.down.T)
    if "down_proj" in updates:
        downs["down_proj"] = updates["down_proj"].add(inner, x, runs)
    return x, _Kept(
        n1, r1, qkv, weights, mixed, n2, r2, gate_up, silu, inner if "down_proj" in updates else None, downs
    )


def _backward(
    decoder: Decoder,
    layer: Layer,
    updates: dict[str, Update],
    packed: Packed,
    attention: Attention,
    rotation: Tensor,
    kept: _Kept,
    g: Tensor,
    first: bool,
    last: bool,
) -> Tensor:
    """Gradient of a layer's input from that of its output; of the virtual tokens alone in the first layer."""
    runs = packed.label_runs if last else packed.runs
    inner_grad = g @ layer.down
    if "down_proj" in updates:
        assert kept.inner is not None
        updates["down_proj"].back(kept.inner, kept.downs["down_proj"], g, inner_grad, runs)
    gate_grad, up_grad = _gated_back(inner_grad, kept.gate_up, kept.silu)
    width = len(layer.gate_up) // 2
    n_grad = (gate_grad @ layer.gate_up[:width]).addmm_(up_grad, layer.gate_up[width:])
    for part, columns in (("gate_proj", gate_grad), ("up_proj", up_grad)):
        if part in updates:
            updates[part].back(kept.n2, kept.downs[part], columns, n_grad, runs)
    g = _normalised_back(n_grad, kept.n2, kept.r2, g)
    mixed_grad = g @ layer.out
    if "o_proj" in updates:
        updates["o_proj"].back(kept.mixed, kept.downs["o_proj"], g, mixed_grad, runs)
    # What only the virtual tokens' gradient needs is the same in the first layer's attention, unless it is updated.
    narrow = first and not last and not any(part in updates for part in PARTS[:3])
    if narrow:
        qkv_grad = attention.back_to_prefix(kept.qkv, kept.weights, kept.mixed, mixed_grad)
    else:
        qkv_grad = attention.back(kept.qkv, kept.weights, kept.mixed, mixed_grad, last)
    _turned(decoder, qkv_grad, (rotation.index_select(0, packed.prefix_at) if narrow else rotation).conj())
    if last:  # the other positions have no part in the loss behind this layer's attention
        g = g.new_zeros(len(packed.positions), g.shape[1]).index_copy_(0, packed.labels, g)
    n1, r1, wanted = kept.n1, kept.r1, packed.prefix_at
    n_grad = (qkv_grad.index_select(0, wanted) if first and not narrow else qkv_grad) @ layer.qkv
    for part, columns in zip(PARTS[:3], qkv_grad.split(decoder.sizes, dim=1), strict=True):
        if part in updates:
            updates[part].back(n1, kept.downs[part], columns, None if first else n_grad, packed.runs)
    if first:
        n1, r1, g = n1.index_select(0, wanted), r1.index_select(0, wanted), g.index_select(0, wanted)
    return _normalised_back(n_grad, n1, r1, g)


@scripted
def normalised(x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """(x / rms(x), 1 / rms(x) [R, 1]); Zhang and Sennrich 2019."""
    square = torch.linalg.vector_norm(x, 2.0, [1], True).square_().div_(x.size(1))
    scale = square.add_(epsilon).rsqrt_()
    return x * scale, scale


@scripted
def _normalised_back(grad: Tensor, normal: Tensor, scale: Tensor, passed: Tensor | None) -> Tensor:
    """scale (g - n mean(g n)), added to what came past the norm; `grad` and `passed` are used up."""
    mean = (grad * normal).mean(1, True)
    found = grad.addcmul_(normal, mean, value=-1)
    if passed is None:
        return found.mul_(scale)
    return passed.addcmul_(found, scale)


@scripted
def _gated(gate_up: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    """(silu(gate), silu(gate) up), each [R, I]; the first is used up unless it is to be kept."""
    gate, up = gate_up.chunk(2, 1)
    silu = F.silu(gate)
    return silu, silu * up if keep else silu.mul_(up)


@scripted
def _gated_back(inner_grad: Tensor, gate_up: Tensor, silu: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up, each [R, I]; inner_grad and silu are used up: they hold them."""
    gate, up = gate_up.chunk(2, 1)
    up_grad = silu.mul_(inner_grad)
    gate_grad = inner_grad.mul_(up)
    torch.ops.aten.silu_backward(gate_grad, gate, grad_input=gate_grad)
    return gate_grad, up_grad


def _turned(decoder: Decoder, qkv: Tensor, rotation: Tensor) -> None:
    """Rotate queries and keys in place (RoFormer, Su et al. 2021)."""
    heads = decoder.heads + decoder.kv_heads
    part = qkv[:, : heads * decoder.head_width].unflatten(1, (heads, decoder.head_width // 2, 2))
    torch.view_as_complex(part).mul_(rotation)
