"""A small LoRA per cluster on the merged, frozen unified LoRA."""

from dataclasses import dataclass

from harness import Clusters, LoRA, MethodCard, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the LoRAs, their training, and where the clusters come from."""

    lora: LoRA = LoRA(rank=4, alpha=8.0)
    train: TrainOptions = TrainOptions(learning_rate=5e-3, epochs=10, batch_size=8, weight_decay=0.01, patience=1)
    clusters: Clusters = Clusters()


@hookimpl
def card():
    summary = "a small LoRA per cluster on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), shares="cluster", trials=2)


@hookimpl
def fit(study):
    options, clusters = study.options, study.by_cluster(study.options.clusters)
    return study.fit_adapters(options.lora, clusters, study.fitted("unified"), options.train)
