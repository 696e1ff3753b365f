"""A LoRA per cluster of personas on the bare backbone."""

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

    lora: LoRA = field(default_factory=LoRA)
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=1e-2, epochs=10, batch_size=8, weight_decay=0.01, patience=1, microbatch_tokens=2048
        )
    )
    clusters: Clusters = field(default_factory=Clusters)


@hookimpl
def card() -> MethodCard:
    return MethodCard(
        "a LoRA per cluster on the bare backbone", Options, requires=("unified",), shares="cluster", trials=2
    )


@hookimpl
def fit(study: Study) -> Fitted:
    options = study.options
    grouping = study.by_cluster(options.clusters)
    return study.fit_adapters(options.lora, grouping, None, options.train, fallback=study.fitted("unified"))


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
