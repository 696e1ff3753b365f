"""Shared directions, personal coefficients: LoRA factors learned on everybody, a persona owns rank scalings."""

from dataclasses import dataclass

from harness import Clusters, Coefficients, LoRA, MethodCard, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the shared factors, the shrinkage of the coefficients, training, and where the clusters come from.

    The coefficients are drawn to their cluster's mean by a ridge whose strength is estimated from the data.
    """

    lora: LoRA = LoRA(rank=16, alpha=32.0, targets=("q_proj", "k_proj", "v_proj", "o_proj"))
    coefficients: Coefficients = Coefficients()
    train: TrainOptions = TrainOptions(learning_rate=0.03, epochs=10, batch_size=2, patience=1)
    clusters: Clusters = Clusters()


@hookimpl
def card():
    summary = "LoRA with shared factors and personal rank scalings, on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), shares="all", trials=6)


@hookimpl
def fit(study):
    options, base = study.options, study.fitted("unified")
    return study.fit_jointly(options.coefficients, options.lora, base, options.train, clusters=options.clusters)
