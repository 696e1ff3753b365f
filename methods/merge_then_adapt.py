"""The most similar personas' LoRAs merged as a start, then a few personal steps (Per-Pcs; MTA, arXiv 2511.20072)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from harness import HarnessError, MethodCard, TrainOptions, hookimpl

from .merge_lora import most_similar

if TYPE_CHECKING:
    from harness import Fitted, Study

LEAST = 1e-6  # a cosine of at most 0 counts as this, so that everybody has somewhere to start


@dataclass(frozen=True)
class Options:
    """What is merged, and the steps that follow.

    k      most similar personas, by cosine of their embeddings; their weights are the cosines, normalised to sum 1
    by     whether a persona is embedded by its description or by its train replies
    own    whether the persona's own LoRA is one of the K
    train  the personal steps. The merged LoRA keeps the rank of the others, as near to their weighted sum as it can be;
           with `keep_start` it stays where no step is better on validation
    """

    k: Annotated[int, Field(ge=1)] = 5
    by: Literal["description", "behaviour"] = "behaviour"
    own: bool = False
    train: TrainOptions = TrainOptions(learning_rate=5e-4, epochs=3, batch_size=2, patience=1, keep_start=True)


@hookimpl
def card() -> MethodCard:
    summary = "per persona the K most similar personas' LoRAs merged, then a few steps on its own data"
    return MethodCard(summary, Options, requires=("persona_lora_on_unified", "unified"), shares="all")


@hookimpl
def fit(study: Study) -> Fitted:
    options, base, loras = study.options, study.fitted("unified"), study.fitted("persona_lora_on_unified")
    vectors = study.vectors(options.by)
    people = [p for p in vectors if loras.row(p) >= 0]
    if len(people) < 2:
        raise HarnessError(f"fewer than two personas with a LoRA have a {options.by} to compare by; change `by`")
    worth = np.ones(len(people))
    recipes = most_similar(vectors, people, options.k, own=options.own, worth=worth, least=LEAST)
    merged = study.combine(loras, recipes, fallback=base, same_rank=True)
    grouping = {p: p for p in study.by_persona() if p in recipes}
    assert loras.bank is not None
    return study.fit_adapters(loras.bank.spec, grouping, base, options.train, start=merged, fallback=merged)
