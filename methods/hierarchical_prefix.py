"""Soft prompts on three levels: everybody's, the cluster's, the persona's, each shrunk to the one above."""

from dataclasses import dataclass, replace

from harness import Clusters, MethodCard, SoftPrompt, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the prompts; training of the upper two levels and of the personas'; where the clusters come from.

    A level starts from the one above, and weight decay pulls it back there. Its own part (cluster, persona) is its
    distance from that start; without decay the distance would be free.
    """

    prompt: SoftPrompt = SoftPrompt()
    shared: TrainOptions = TrainOptions(learning_rate=0.05, epochs=3, batch_size=32, patience=1)
    train: TrainOptions = TrainOptions(
        learning_rate=0.05, epochs=10, batch_size=2, weight_decay=0.1, towards_start=True, keep_start=True, patience=1
    )
    clusters: Clusters = Clusters()


@hookimpl
def card():
    summary = "everybody's, the cluster's and the persona's soft prompt, each shrunk towards the one above"
    return MethodCard(summary, Options, requires=("unified",), shares="all", trials=6)


@hookimpl
def fit(study):
    options, base = study.options, study.fitted("unified")
    shared = replace(options.shared, keep_start=True, towards_start=True, weight_decay=options.train.weight_decay)
    everybody = study.fit_adapters(options.prompt, study.for_all(), base, options.shared)
    grouping = study.by_cluster(options.clusters)
    cluster = study.fit_adapters(options.prompt, grouping, base, shared, start=everybody, fallback=everybody)
    # A newcomer gets the cluster's prompt, and one without a cluster everybody's.
    return study.fit_adapters(options.prompt, study.by_persona(), base, options.train, start=cluster, fallback=cluster)


@hookimpl
def predict(study, fitted, prompts):
    return study.generate(fitted, prompts)
