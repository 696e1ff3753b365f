"""A LoRA per persona on the bare backbone: nothing learned from anybody else."""

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

    lora: LoRA = field(default_factory=LoRA)
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=1e-2, epochs=10, batch_size=2, weight_decay=0.01, patience=1, microbatch_tokens=2048
        )
    )


@hookimpl
def card() -> MethodCard:
    return MethodCard(
        "a LoRA per persona on the bare backbone", Options, requires=("unified",), shares="persona", trials=3
    )


@hookimpl
def fit(study: Study) -> Fitted:
    options = study.options
    # Somebody without an adapter is better served by everybody's than by none.
    return study.fit_adapters(options.lora, study.by_persona(), None, options.train, fallback=study.fitted("unified"))


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
