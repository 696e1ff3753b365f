"""The forward pass of a frozen decoder with adapters, written once: autograd does the backward of training.

The tokens of all rows lie one after the other [R, D]; attention goes row by row. The last layer works on label
positions alone. In the first layer only virtual tokens take a gradient, so only theirs goes through its projections.
Autograd costs a step 4 to 5 % of its time beside a backward that is all by hand; attention and low_rank alone keep one
(docs/performance.md). Legend: R tokens, n labels, B rows, P virtual tokens, D hidden, H heads, K key-value heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.adapters import Bank, rows_of
from harness.engines.llama_cpu.attention import Rows
from harness.engines.llama_cpu.decoder import MLP_PARTS, PARTS, Decoder, Layer
from harness.engines.llama_cpu.low_rank import Pair, linear
from harness.engines.llama_cpu.packed import Packed, Run


@dataclass(frozen=True)
class Changes:
    """What a bank does inside the layers.

    pairs  low-rank updates of each layer, by part
    added  layer -> [N, D] what is added to its output; one past the last: to what is behind the last norm
    """

    pairs: Sequence[Mapping[str, Pair]]
    added: Mapping[int, Tensor]


class Attend(Protocol):
    """Attention of a layer, which changes q, k and v; see `attention.Rows.attend`."""

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, labels_only: bool, own: tuple[Tensor, ...]
    ) -> Tensor: ...


def hidden_states(
    decoder: Decoder,
    changes: Changes,
    bank: Bank | None,
    packed: Packed,
    rows: Tensor,
    see: Callable[[int], Callable[[Tensor, Tensor], None]] | None = None,
) -> Tensor:
    """Hidden states [n, D] at the label positions of packed rows that attend to themselves, with bank rows [B].

    see   layer -> what is shown the keys and values that its rows attend to
    """
    whole, past = Rows(decoder, packed), past_of(decoder, bank, rows)
    prefix = None if bank is None else bank.prefix(rows)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, labels_only: bool, own: tuple[Tensor, ...]) -> Tensor:
        return whole.attend(q, k, v, labels_only, own, past[layer], see(layer) if see else None)

    return through_layers(decoder, changes, packed, None if prefix is None else prefix.flatten(0, 1), attend)


def through_layers(decoder: Decoder, changes: Changes, packed: Packed, prefix: Tensor | None, attend: Attend) -> Tensor:
    """Hidden states [n, D] at the label positions, behind the last norm.

    prefix   [B P, D] input embeddings of the virtual tokens; None: zeros, or there are none
    """
    x = embedded(decoder, packed, prefix)
    last = len(decoder.layers) - 1
    for number, (layer, pairs) in enumerate(zip(decoder.layers, changes.pairs, strict=True)):
        own: tuple[Tensor, ...] = ()
        inputs = x
        if number == 0 and prefix is not None and not any(part in pairs for part in PARTS[:3]):
            own, inputs = _projected(decoder, layer, pairs, prefix, packed), x.detach()
        q, k, v = _projected(decoder, layer, pairs, inputs, packed)
        mixed = attend(number, q, k, v, number == last, own)
        x = after_attention(decoder, layer, pairs, x, mixed, packed, number == last)
        if number in changes.added:
            x = _plus(x, changes.added[number], packed.label_runs if number == last else packed.runs)
    x = normalised(x, decoder.epsilon) * decoder.norm
    return _plus(x, changes.added[last + 1], packed.label_runs) if last + 1 in changes.added else x


def embedded(decoder: Decoder, packed: Packed, prefix: Tensor | None) -> Tensor:
    """[R, D] what goes into the first layer."""
    x = decoder.table.new_zeros(len(packed.positions), decoder.table.shape[1])
    x.index_copy_(0, packed.token_at, decoder.table.index_select(0, packed.ids))
    return x if prefix is None else x.index_copy(0, packed.prefix_at, prefix)


def _projected(
    decoder: Decoder, layer: Layer, pairs: Mapping[str, Pair], x: Tensor, packed: Packed
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [R, H d], keys and values [R, K d] of a layer."""
    n = normalised(x, decoder.epsilon)
    q, k, v = (linear(n, layer.weights[p], layer.biases[p], pairs.get(p), packed.runs) for p in PARTS[:3])
    return q, k, v


def after_attention(
    decoder: Decoder,
    layer: Layer,
    pairs: Mapping[str, Pair],
    x: Tensor,
    mixed: Tensor,
    packed: Packed,
    labels_only: bool,
) -> Tensor:
    """The rest of a layer: x [R, D] and attention's result -> [R, D], or [n, D] on the label positions."""
    runs = packed.runs
    if labels_only:
        x, runs = x.index_select(0, packed.labels), packed.label_runs

    def project(part: str, inputs: Tensor) -> Tensor:
        return linear(inputs, layer.weights[part], layer.biases[part], pairs.get(part), runs)

    x = project("o_proj", mixed).add_(x)
    n = normalised(x, decoder.epsilon)
    inner = F.silu(project("gate_proj", n)) * project("up_proj", n)
    return project("down_proj", inner).add_(x)


def _plus(x: Tensor, vectors: Tensor, runs: Sequence[Run]) -> Tensor:
    """x [R, D] and for each token the vector of its adapter, of [N, D]."""
    adapters = torch.tensor([adapter for adapter, _, _ in runs])
    lengths = torch.tensor([end - start for _, start, end in runs])
    return x + rows_of(vectors, adapters.repeat_interleave(lengths)).to(x.dtype)


def normalised(x: Tensor, epsilon: float) -> Tensor:
    """x / rms(x) of each row (Zhang and Sennrich 2019)."""
    square = torch.linalg.vector_norm(x, 2.0, [1], True).square() / x.shape[1]
    return x * torch.rsqrt(square + epsilon)


def changes_of(decoder: Decoder, bank: Bank | None) -> Changes:
    """What a bank does; low-rank updates as the laid-out weights need them: `a` with the folded norm, q and k in
    their order."""
    updates: list[dict[str, Pair]] = [{} for _ in decoder.layers]
    for name, (a, b) in ((bank.low_rank() if bank is not None else None) or {}).items():
        number, part = decoder.places[name]
        layer = decoder.layers[number]
        if part in PARTS[:3]:
            a = a * layer.norm1
        elif part in MLP_PARTS[:2]:
            a = a * layer.norm2
        if part in PARTS[:2]:
            b = b[:, decoder.order(b.shape[1])]
        updates[number][part] = a, b * decoder.scale if part == "q_proj" else b
    return Changes(updates, {} if bank is None else bank.added())


def past_of(decoder: Decoder, bank: Bank | None, rows: Tensor) -> list[tuple[Tensor, ...]]:
    """For each layer the keys and values [B P, K d] of the virtual tokens of bank rows [B], in the decoder's order;
    empty pairs for a kind of adapter that has none."""
    pairs = None if bank is None else bank.cache_prefix(rows)
    if pairs is None:
        return [()] * len(decoder.layers)
    found = []
    for pair in pairs:
        keys, values = (part.transpose(1, 2).flatten(2).flatten(0, 1) for part in pair)
        found.append((keys.index_select(1, decoder.order(keys.shape[1])), values))
    return found
