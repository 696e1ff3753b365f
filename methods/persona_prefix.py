"""A soft prompt per persona in front of the frozen unified model (Lester et al. 2021, one prompt for each person)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness import MethodCard, Prompt, SoftPrompt, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Shape of the prompts, and their training: each to its own best validation loss."""

    prompt: SoftPrompt = field(default_factory=SoftPrompt)
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=0.1, epochs=10, batch_size=2, patience=1, microbatch_tokens=2048
        )
    )


@hookimpl
def card() -> MethodCard:
    return MethodCard(
        "a soft prompt per persona on the frozen unified LoRA",
        Options,
        requires=("unified",),
        shares="persona",
        trials=6,
    )


@hookimpl
def fit(study: Study) -> Fitted:
    options = study.options
    return study.fit_adapters(options.prompt, study.by_persona(), study.fitted("unified"), options.train)


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
