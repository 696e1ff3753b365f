"""Empirical-Bayes hierarchical prefix: theta_u = mu + c_k + delta_u, trained jointly, its gate closed at the start."""

from dataclasses import dataclass

from harness import Clusters, GatedPrefix, Levels, MethodCard, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the prefixes, how the levels are shrunk, their training, and where the clusters come from.

    The variance of each level is estimated from the data, and with a closed gate step 0 equals unified to the bit.
    """

    prefix: GatedPrefix = GatedPrefix()
    levels: Levels = Levels()
    train: TrainOptions = TrainOptions(learning_rate=0.1, epochs=10, batch_size=2, patience=1)
    clusters: Clusters = Clusters()


@hookimpl
def card():
    summary = "gated prefix on three levels with estimated variances, trained jointly"
    return MethodCard(summary, Options, requires=("unified",), shares="all", trials=6)


@hookimpl
def fit(study):
    options, base = study.options, study.fitted("unified")
    return study.fit_jointly(options.levels, options.prefix, base, options.train, clusters=options.clusters)
