"""One LoRA for everybody: the strong and simple answer that every personalisation has to beat."""

from dataclasses import dataclass

from harness import LoRA, MethodCard, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the LoRA, and its training: to the best validation loss."""

    lora: LoRA = LoRA()
    train: TrainOptions = TrainOptions(learning_rate=1e-2, epochs=8, batch_size=16, weight_decay=0.01, patience=2)


@hookimpl
def card():
    return MethodCard("one LoRA trained on everybody's dialogues", Options, shares="all", trials=9)


@hookimpl
def fit(study):
    return study.fit_adapters(study.options.lora, study.for_all(), None, study.options.train)


@hookimpl
def predict(study, fitted, prompts):
    return study.generate(fitted, prompts)
