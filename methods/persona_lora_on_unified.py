"""A small LoRA per persona on the merged, frozen unified LoRA (OPPU, Tan et al. 2024)."""

from dataclasses import dataclass

from harness import LoRA, MethodCard, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the LoRAs, and their training: each to its own best validation loss."""

    lora: LoRA = LoRA(rank=4, alpha=8.0)
    train: TrainOptions = TrainOptions(learning_rate=5e-3, epochs=10, batch_size=2, weight_decay=0.01, patience=1)


@hookimpl
def card():
    return MethodCard("a small LoRA per persona on the frozen unified LoRA", Options, requires=("unified",), trials=3)


@hookimpl
def fit(study):
    return study.fit_adapters(study.options.lora, study.by_persona(), study.fitted("unified"), study.options.train)
