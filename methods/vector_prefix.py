"""Embedding-to-prefix: a small network maps the persona's embedding to a soft prompt; it serves unseen personas too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from harness import FromVector, MethodCard, Prompt, SoftPrompt, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Shape of the prompts, the network, what is embedded, and training.

    by  the persona's description (then newcomers have one, too), or its train replies
    """

    prompt: SoftPrompt = field(default_factory=SoftPrompt)
    network: FromVector = field(default_factory=FromVector)
    by: Literal["description", "behaviour"] = "description"
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=0.01, epochs=10, batch_size=2, patience=1, microbatch_tokens=2048
        )
    )


@hookimpl
def card() -> MethodCard:
    summary = "a network maps the persona's embedding to its soft prompt, on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), shares="all", trials=6)


@hookimpl
def fit(study: Study) -> Fitted:
    options, base = study.options, study.fitted("unified")
    vectors = study.vectors(options.by)
    return study.fit_jointly(options.network, options.prompt, base, options.train, vectors=vectors, fallback=base)


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
