"""A readable prefix per persona: each virtual token is an entry of the vocabulary (PEZ, Wen et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness import MethodCard, Prompt, SoftPrompt, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Shape of the prompts, and their training."""

    prompt: SoftPrompt = field(default_factory=lambda: SoftPrompt(kind="discrete"))
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=0.1, epochs=10, batch_size=2, patience=1, microbatch_tokens=2048
        )
    )


@hookimpl
def card() -> MethodCard:
    summary = "a prefix per persona made of vocabulary entries, on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), shares="persona", trials=2)


@hookimpl
def fit(study: Study) -> Fitted:
    options = study.options
    fitted = study.fit_adapters(options.prompt, study.by_persona(), study.fitted("unified"), options.train)
    assert fitted.bank is not None
    tokenizer = fitted.backbone.tokenizer
    study.note("words", {key: fitted.bank.words(row, tokenizer) for row, key in enumerate(fitted.bank.keys)})
    return fitted


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
