"""MoE merging: per persona the K most similar personas' LoRAs, summed exactly on the weight update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness import HarnessError, MethodCard, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """How many LoRAs are merged, whose, and how they are weighted.

    k          most similar personas, by cosine of their embeddings
    by         whether a persona is embedded by its description or by its train replies
    own        whether the persona's own LoRA is one of the K
    weighting  "similarity": by cosine, normalised to sum 1; "validation": times exp(-validation loss) of the LoRA on
               its own persona, and its centrality (mean cosine to all)
    """

    k: int = 5
    by: Literal["description", "behaviour"] = "behaviour"
    own: bool = True
    weighting: Literal["similarity", "validation"] = "similarity"


@hookimpl
def card() -> MethodCard:
    summary = "per persona the K most similar personas' LoRAs, merged exactly on the weight update"
    return MethodCard(summary, Options, requires=("persona_lora", "unified"), shares="all", validation="selection")


@hookimpl
def fit(study: Study) -> Fitted:
    options, loras = study.options, study.fitted("persona_lora")
    vectors = study.vectors(options.by)
    have = [p for p in vectors if loras.row(p) >= 0]
    if not have:
        raise HarnessError(f"no persona with a LoRA has a {options.by} to compare by; set by= to the other one")
    known = np.stack([vectors[p] / np.linalg.norm(vectors[p]) for p in have]).astype(float)
    worth = np.ones(len(have))
    if options.weighting == "validation":
        losses = study.validation_losses(loras)
        sums = [losses[p].sum(axis=0) if p in losses else (np.inf, 1.0) for p in have]
        mean = np.array([nats / tokens for nats, tokens in sums])
        worth = np.exp(-mean) * np.clip((known @ known.T).mean(axis=1), 0.0, None)
    recipes = {}
    for persona, vector in vectors.items():
        closeness = np.clip(known @ (vector / np.linalg.norm(vector)), 0.0, None) * worth
        if not options.own and persona in have:
            closeness[have.index(persona)] = 0.0
        chosen = np.argsort(-closeness, kind="stable")[: options.k]
        total = closeness[chosen].sum()
        if total > 0:
            recipes[persona] = {have[i]: float(closeness[i] / total) for i in chosen if closeness[i] > 0}
    return study.combine(loras, recipes, fallback=study.fitted("unified"))
