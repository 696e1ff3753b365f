"""Memory of a process as measured, and of a training step as estimated from the model's dimensions.

The estimate is printed before a large model is run; a test holds a measured step at the full width against it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import facts

STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Resident size of this process now; 0 where the system does not tell."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Largest resident size of this process so far.

    From VmHWM where there is one: the maximum that getrusage gives also knows what the parent process used.
    """
    return _status("VmHWM") or facts.peak_memory_bytes()


def start() -> int:
    """Forget the device's peak so far; the process's resident bytes now."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return resident_bytes()


def peaks() -> dict[str, int]:
    """Peak of the process and, where there is one, of the device."""
    import torch

    device = {"device_peak_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}
    return {"peak_bytes": peak_bytes(), **device}


def reset_peak() -> bool:
    """Let the peak start again at the present size; whether the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def _status(name: str) -> int:
    with contextlib.suppress(OSError):
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


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
        parts = (f"{name} {value / 1e9:.2f}" for name, value in vars(self).items())
        return f"memory of a step, estimated: {self.total / 1e9:.2f} GB ({', '.join(parts)})"


def estimate_step(
    config: Any, *, tokens: int, labels: int, adapters: int, numbers: int, width: int, logit_numbers: int, wide: int = 4
) -> Estimate:
    """What one training step of soft prompts on a frozen decoder needs at its peak. Frozen weights take no gradients,
    so a linear layer keeps nothing for the way back; only what is not linear does.

    config         of a Qwen2-like model: D hidden, I intermediate, H heads, L layers, V vocabulary
    tokens         padded tokens of a wave, virtual ones included;  labels: label positions of it
    adapters, numbers  N adapters with K numbers each
    width          bytes of a number in the model's dtype;  wide: bytes of a number where it computes norms and losses
    logit_numbers  logits that exist at one time

    weights      (V D (+ V D where the head is not tied) + L (2 D^2 + 2 D H_kv d + 3 D I)) * width
    activations  tokens * L * ((4 D q, k, v, attention's result + 3 I of the gated MLP) * width
                 + 2 D residual streams that the norms keep * wide)
    transient    tokens * (4 I of the MLP under way * width + 4 D * wide)
    logits       3 copies of a block * wide, and labels * D hidden states with their gradient, 2 copies
    bank         N * K * wide * (values, gradients, two moments, best, and a step's temporaries: 8)
    """
    D, I, L, V = config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.vocab_size  # noqa: E741
    kv = D // config.num_attention_heads * config.num_key_value_heads
    embeddings = V * D * (1 if config.tie_word_embeddings else 2)
    return Estimate(
        weights=(embeddings + L * (2 * D * D + 2 * D * kv + 3 * D * I)) * width,
        activations=tokens * L * ((4 * D + 3 * I) * width + 2 * D * wide),
        transient=tokens * (4 * I * width + 4 * D * wide),
        logits=3 * logit_numbers * wide + 2 * labels * D * width,
        bank=8 * adapters * numbers * wide,
    )


def of_subject(config: Any, prompt_tokens: int, options: Any, adapters: int, dtype: str, device: str) -> Estimate:
    """The estimate for a bank of soft prompts on a model with this configuration, as the harness would train it.

    options   TrainOptions; a wave has its `microbatch_tokens`, or all of a step where that is less (not known here)
    Half of the tokens are taken to be labels.
    """
    from harness.backbone import DTYPES
    from harness.fits.forward import BLOCK_NUMBERS

    width = DTYPES[dtype].itemsize
    labels = options.microbatch_tokens // 2
    block = BLOCK_NUMBERS.get(device.split(":")[0], 2**24)
    return estimate_step(
        config,
        tokens=options.microbatch_tokens,
        labels=labels,
        adapters=adapters,
        numbers=prompt_tokens * config.hidden_size,
        width=width,
        logit_numbers=min(labels * config.vocab_size, max(block, config.vocab_size)),
        wide=max(4, width),
    )
