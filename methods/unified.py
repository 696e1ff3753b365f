"""One LoRA for everybody: the strong and simple answer that every personalisation has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness import LoRA, MethodCard, Prompt, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Shape of the LoRA, and its training: to the best validation loss."""

    lora: LoRA = field(default_factory=LoRA)
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=1e-2, epochs=8, batch_size=16, weight_decay=0.01, patience=2, microbatch_tokens=2048
        )
    )


@hookimpl
def card() -> MethodCard:
    return MethodCard("one LoRA trained on everybody's dialogues", Options, shares="all", trials=9)


@hookimpl
def fit(study: Study) -> Fitted:
    return study.fit_adapters(study.options.lora, study.for_all(), None, study.options.train)


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
