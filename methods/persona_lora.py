"""A LoRA per persona on the bare backbone: nothing learned from anybody else."""

from dataclasses import dataclass

from harness import LoRA, MethodCard, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the LoRAs, and their training: each to its own best validation loss."""

    lora: LoRA = LoRA()
    train: TrainOptions = TrainOptions(learning_rate=1e-2, epochs=10, batch_size=2, weight_decay=0.01, patience=1)


@hookimpl
def card():
    return MethodCard("a LoRA per persona on the bare backbone", Options, requires=("unified",), trials=3)


@hookimpl
def fit(study):
    options = study.options
    # The unified LoRA serves a persona without an adapter better than the bare backbone does.
    return study.fit_adapters(options.lora, study.by_persona(), None, options.train, fallback=study.fitted("unified"))


@hookimpl
def predict(study, fitted, prompts):
    return study.generate(fitted, prompts)
