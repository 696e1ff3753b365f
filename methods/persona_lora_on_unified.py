"""A small LoRA per persona on the merged, frozen unified LoRA (OPPU, Tan et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness import LoRA, MethodCard, Prompt, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Shape of the LoRAs, and their training: each to its own best validation loss."""

    lora: LoRA = field(default_factory=lambda: LoRA(rank=4, alpha=8.0))
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=5e-3, epochs=10, batch_size=2, weight_decay=0.01, patience=1, microbatch_tokens=2048
        )
    )


@hookimpl
def card() -> MethodCard:
    summary = "a small LoRA per persona on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), shares="persona", trials=3)


@hookimpl
def fit(study: Study) -> Fitted:
    options = study.options
    return study.fit_adapters(options.lora, study.by_persona(), study.fitted("unified"), options.train)


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
