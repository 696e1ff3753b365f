"""Embedding-to-prefix: a small network maps the persona's embedding to a soft prompt; it serves unseen personas too."""

from dataclasses import dataclass
from typing import Literal

from harness import FromVector, MethodCard, SoftPrompt, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the prompts, the network, what is embedded, and training.

    by  the persona's description (then newcomers have one, too), or its train replies
    """

    prompt: SoftPrompt = SoftPrompt()
    network: FromVector = FromVector()
    by: Literal["description", "behaviour"] = "description"
    train: TrainOptions = TrainOptions(learning_rate=0.01, epochs=10, batch_size=2, patience=1)


@hookimpl
def card():
    summary = "a network maps the persona's embedding to its soft prompt, on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), shares="all", trials=6)


@hookimpl
def fit(study):
    options, base = study.options, study.fitted("unified")
    vectors = study.vectors(options.by)
    return study.fit_jointly(options.network, options.prompt, base, options.train, vectors=vectors, fallback=base)
