"""A soft prompt per cluster in front of the frozen unified model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness import Clusters, MethodCard, Prompt, SoftPrompt, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Shape of the prompts, their training, and where the clusters come from."""

    prompt: SoftPrompt = field(default_factory=SoftPrompt)
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=0.1, epochs=10, batch_size=16, patience=1, microbatch_tokens=2048
        )
    )
    clusters: Clusters = field(default_factory=Clusters)


@hookimpl
def card() -> MethodCard:
    summary = "a soft prompt per cluster on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), shares="cluster", trials=2)


@hookimpl
def fit(study: Study) -> Fitted:
    options = study.options
    grouping = study.by_cluster(options.clusters)
    return study.fit_adapters(options.prompt, grouping, study.fitted("unified"), options.train)


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
