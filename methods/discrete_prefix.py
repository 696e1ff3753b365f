"""A readable prefix per persona: each virtual token is an entry of the vocabulary (PEZ, Wen et al. 2023)."""

from dataclasses import dataclass

from harness import MethodCard, SoftPrompt, TrainOptions, hookimpl


@dataclass(frozen=True)
class Options:
    """Shape of the prompts, and their training."""

    prompt: SoftPrompt = SoftPrompt(kind="discrete")
    train: TrainOptions = TrainOptions(learning_rate=0.1, epochs=10, batch_size=2, patience=1)


@hookimpl
def card():
    summary = "a prefix per persona made of vocabulary entries, on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), trials=2)


@hookimpl
def fit(study):
    options = study.options
    fitted = study.fit_adapters(options.prompt, study.by_persona(), study.fitted("unified"), options.train)
    tokenizer = fitted.backbone.tokenizer
    study.note("words", {key: fitted.bank.words(row, tokenizer) for row, key in enumerate(fitted.bank.keys)})
    return fitted
