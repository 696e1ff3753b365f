"""A soft prompt per cluster in front of the frozen unified model."""

from dataclasses import dataclass

from harness import Clusters, MethodCard, SoftPrompt, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the prompts, their training, and where the clusters come from."""

    prompt: SoftPrompt = SoftPrompt()
    train: TrainOptions = TrainOptions(learning_rate=0.1, epochs=10, batch_size=16, patience=1)
    clusters: Clusters = Clusters()


@hookimpl
def card():
    summary = "a soft prompt per cluster on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), shares="cluster", trials=2)


@hookimpl
def fit(study):
    options, clusters = study.options, study.by_cluster(study.options.clusters)
    return study.fit_adapters(options.prompt, clusters, study.fitted("unified"), options.train)


@hookimpl
def predict(study, fitted, prompts):
    return study.generate(fitted, prompts)
