"""A LoRA per cluster of personas on the bare backbone."""

from dataclasses import dataclass

from harness import Clusters, LoRA, MethodCard, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the LoRAs, their training, and where the clusters come from."""

    lora: LoRA = LoRA()
    train: TrainOptions = TrainOptions(learning_rate=1e-2, epochs=10, batch_size=8, weight_decay=0.01, patience=1)
    clusters: Clusters = Clusters()


@hookimpl
def card():
    summary = "a LoRA per cluster on the bare backbone"
    return MethodCard(summary, Options, requires=("unified",), shares="cluster", trials=2)


@hookimpl
def fit(study):
    options, clusters = study.options, study.by_cluster(study.options.clusters)
    return study.fit_adapters(options.lora, clusters, None, options.train, fallback=study.fitted("unified"))


@hookimpl
def predict(study, fitted, prompts):
    return study.generate(fitted, prompts)
