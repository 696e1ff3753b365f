"""IA3 factors per persona on the bare backbone: a method of another distribution with a kind of adapter of its own."""

from dataclasses import dataclass

from strange_adapters import Scaling

from harness import MethodCard, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Which layers are scaled, and the training of the factors."""

    scaling: Scaling = Scaling()
    train: TrainOptions = TrainOptions(learning_rate=0.1, epochs=3)


@hookimpl
def card():
    return MethodCard("IA3 factors per persona", Options)


@hookimpl
def fit(study):
    return study.fit_adapters(study.options.scaling, study.by_persona(), None, study.options.train)
