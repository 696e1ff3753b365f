"""Empirical-Bayes hierarchical prefix: theta_u = mu + c_k + delta_u, trained jointly, its gate closed at the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness import Clusters, GatedPrefix, Levels, MethodCard, Prompt, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Shape of the prefixes, how the levels are shrunk, their training, and where the clusters come from.

    The variance of each level is estimated from the data, and with a closed gate step 0 equals unified to the bit.
    """

    prefix: GatedPrefix = field(default_factory=GatedPrefix)
    levels: Levels = field(default_factory=Levels)
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=0.1, epochs=10, batch_size=2, patience=1, microbatch_tokens=2048
        )
    )
    clusters: Clusters = field(default_factory=Clusters)


@hookimpl
def card() -> MethodCard:
    summary = "gated prefix on three levels with estimated variances, trained jointly"
    return MethodCard(summary, Options, requires=("unified",), shares="all", trials=6)


@hookimpl
def fit(study: Study) -> Fitted:
    options, base = study.options, study.fitted("unified")
    return study.fit_jointly(options.levels, options.prefix, base, options.train, clusters=options.clusters)


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
