"""Shared directions, personal coefficients: LoRA factors learned on everybody, a persona owns rank scalings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness import Clusters, Coefficients, LoRA, MethodCard, Prompt, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Shape of the shared factors, the shrinkage of the coefficients, training, and where the clusters come from.

    The coefficients are drawn to their cluster's mean by a ridge whose strength is estimated from the data.
    """

    lora: LoRA = field(
        default_factory=lambda: LoRA(rank=16, alpha=32.0, targets=("q_proj", "k_proj", "v_proj", "o_proj"))
    )
    coefficients: Coefficients = field(default_factory=Coefficients)
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=0.03, epochs=10, batch_size=2, patience=1, microbatch_tokens=2048
        )
    )
    clusters: Clusters = field(default_factory=Clusters)


@hookimpl
def card() -> MethodCard:
    summary = "LoRA with shared factors and personal rank scalings, on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), shares="all", trials=6)


@hookimpl
def fit(study: Study) -> Fitted:
    options, base = study.options, study.fitted("unified")
    return study.fit_jointly(options.coefficients, options.lora, base, options.train, clusters=options.clusters)


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
