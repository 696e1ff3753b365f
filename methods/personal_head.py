"""A vector per persona through a shared low-rank map, added to the last hidden state (PPlug; as PEFT-U's)."""

from dataclasses import dataclass

from harness import MethodCard, SteeringVector, Subspace, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """How many numbers a persona has, where their image is added, and training.

    shared  rank of the map from a persona's numbers to what is added
    head    where that is: behind the last norm, or behind a block
    """

    shared: Subspace = Subspace()
    head: SteeringVector = SteeringVector()
    train: TrainOptions = TrainOptions(learning_rate=0.03, epochs=10, batch_size=2, patience=1)


@hookimpl
def card():
    summary = "a few numbers per persona, mapped by everybody's data to what is added before the head, on unified"
    return MethodCard(summary, Options, requires=("unified",), shares="all")


@hookimpl
def fit(study):
    options, base = study.options, study.fitted("unified")
    return study.fit_jointly(options.shared, options.head, base, options.train, fallback=base)
