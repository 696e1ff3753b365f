"""A small LoRA per cluster on the merged, frozen unified LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness import Clusters, LoRA, MethodCard, Prompt, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Shape of the LoRAs, their training, and where the clusters come from."""

    lora: LoRA = field(default_factory=lambda: LoRA(rank=4, alpha=8.0))
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=5e-3, epochs=10, batch_size=8, weight_decay=0.01, patience=1, microbatch_tokens=2048
        )
    )
    clusters: Clusters = field(default_factory=Clusters)


@hookimpl
def card() -> MethodCard:
    summary = "a small LoRA per cluster on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), shares="cluster", trials=2)


@hookimpl
def fit(study: Study) -> Fitted:
    options = study.options
    grouping = study.by_cluster(options.clusters)
    return study.fit_adapters(options.lora, grouping, study.fitted("unified"), options.train)


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
