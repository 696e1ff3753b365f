"""A soft prompt per persona in front of the frozen unified model (Lester et al. 2021, one prompt for each person)."""

from dataclasses import dataclass

from harness import MethodCard, SoftPrompt, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the prompts, and their training: each to its own best validation loss."""

    prompt: SoftPrompt = SoftPrompt()
    train: TrainOptions = TrainOptions(learning_rate=0.1, epochs=10, batch_size=2, patience=1)


@hookimpl
def card():
    return MethodCard("a soft prompt per persona on the frozen unified LoRA", Options, requires=("unified",), trials=6)


@hookimpl
def fit(study):
    return study.fit_adapters(study.options.prompt, study.by_persona(), study.fitted("unified"), study.options.train)


@hookimpl
def predict(study, fitted, prompts):
    return study.generate(fitted, prompts)
