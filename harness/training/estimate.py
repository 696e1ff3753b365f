"""Memory that a training step needs at its peak, from the model's dimensions; printed before a fit starts.

A test holds measured steps at a large model's full width against it. Legend: R tokens under way at one time,
D hidden, I inner width, L layers, V vocabulary, N adapters with K numbers each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.engines import BLOCK, LONGEST, rows_of_logits

BANK_COPIES = 8  # values, gradients, two moments, best, and a step's temporaries


@dataclass(frozen=True)
class Estimate:
    """Bytes of a training step, by what they are for."""

    weights: int
    activations: int
    transient: int
    logits: int
    bank: int

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.transient + self.logits + self.bank

    def text(self) -> str:
        parts = ", ".join(f"{name} {_size(value)}" for name, value in vars(self).items())
        return f"memory of a training step, estimated: {_size(self.total)} ({parts})"


@dataclass(frozen=True)
class Load:
    """What is under way at one time.

    tokens    of all waves that are computed side by side, virtual ones and padding included
    labels    label positions of them;  longest: tokens of the longest row
    adapters, numbers  N, K
    logits    that exist at one time
    engine    what runs the waves; `llama_cpu` lays the weights out anew
    adapted   names of the linear layers that adapters change, whose inputs are kept then
    """

    tokens: int
    labels: int
    longest: int
    adapters: int
    numbers: int
    logits: int
    engine: str
    adapted: tuple[str, ...] = ()

    @classmethod
    def of_step(
        cls,
        rows: Sequence[Sequence[tuple[int, int]]],
        batch_size: int,
        microbatch_tokens: int,
        workers: int,
        *,
        vocabulary: int,
        numbers: int,
        device_type: str,
        engine: str,
        adapted: tuple[str, ...] = (),
    ) -> Load:
        """Of a step in which the longest dialogues of every adapter come together.

        rows     (tokens, labels) of each adapter's dialogues, virtual tokens included
        workers  waves of `microbatch_tokens`, or of one longer dialogue, that go through the model side by side
        """
        lengths = [n for own in rows for n in sorted((tokens for tokens, _ in own), reverse=True)[:batch_size]]
        tokens = min(sum(lengths), workers * max(microbatch_tokens, *lengths))
        share = sum(labels for own in rows for _, labels in own) / sum(tokens for own in rows for tokens, _ in own)
        labels = round(tokens * share)
        logits = min(labels, rows_of_logits(device_type, vocabulary)) * vocabulary
        return cls(tokens, labels, max(lengths), len(rows), numbers, logits, engine, adapted)


def key_width(config: Any) -> int:
    """Width of a token's keys in one layer: heads that have keys times the numbers of a head."""
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return (getattr(config, "head_dim", None) or config.hidden_size // heads) * kv_heads


def estimate_step(config: Any, load: Load, width: int, weights: int | None = None) -> Estimate:
    """What one training step in front of, or inside, a frozen gated decoder needs at its peak.

    config   of a Llama-like model (of others: the same sizes, as far as it names them)
    width    bytes of a number in the model's dtype; norms and losses are computed in at least 4
    weights  bytes of the model where it is at hand; else from its dimensions

    Frozen weights take no gradients, so a linear layer keeps nothing for the way back; only what is not linear does.

    weights      (V D (twice if the head is not tied) + L (2 D^2 + 2 D K d + 3 D I)) * width;
                 llama_cpu: + L (D (D + 2 K d) + 2 D I) * width, for norms are folded into copies
    activations  llama_cpu, a layer and token: (3 I + 6 D + H (T + block) / 2 + inputs of adapted layers) * width, T
                 tokens of a row; in the last layer all but its input, k and v only at labels
                 transformers: (4 D of q, k, v and attention's result + 2 D of normed inputs + 3 I + D where LoRAs keep
                 inputs) * width + 2 D * wide
    transient    R (4 I of the MLP under way * width + 4 D * wide)
    logits       3 copies of a block * wide, and labels * D hidden states with their gradient
    bank         N K * wide * 8
    """
    D, I, L, V, H, kv = _dimensions(config)  # noqa: E741
    wide = max(4, width)
    if weights is None:
        weights = (V * D * (1 if config.tie_word_embeddings else 2) + L * (2 * D * D + 2 * D * kv + 3 * D * I)) * width
    if load.engine == "llama_cpu":
        weights += L * (D * (D + 2 * kv) + 2 * D * I) * width
        seen = 0 if load.longest > LONGEST else H * min(load.longest, (load.longest + BLOCK) // 2)
        inputs = (("q_proj", "k_proj", "v_proj"), D), (("gate_proj", "up_proj"), D), (("down_proj",), I)
        inner = 3 * I + 3 * D + seen + sum(size for names, size in inputs if set(names) & set(load.adapted))
        activations = (load.tokens * ((L - 1) * (inner + 3 * D) + 3 * D) + load.labels * inner) * width
    else:
        activations = load.tokens * L * (((7 if load.adapted else 6) * D + 3 * I) * width + 2 * D * wide)
    return Estimate(
        weights=weights,
        activations=activations,
        transient=load.tokens * (4 * I * width + 4 * D * wide),
        logits=3 * load.logits * wide + 2 * load.labels * D * width,
        bank=BANK_COPIES * load.adapters * load.numbers * wide,
    )


def _dimensions(config: Any) -> tuple[int, int, int, int, int, int]:
    """(D, I, L, V, heads, width of all keys)."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    return hidden, inner, config.num_hidden_layers, config.vocab_size, heads, key_width(config)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
