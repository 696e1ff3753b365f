"""MoE merging: per persona the K most similar personas' LoRAs, summed exactly on the weight update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

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

    k: Annotated[int, Field(ge=1)] = 5
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
    worth = np.ones(len(have))
    if options.weighting == "validation":
        known = unit_vectors(vectors, have)
        losses = study.validation_losses(loras)
        sums = [losses[p].sum(axis=0) if p in losses else (np.inf, 1.0) for p in have]
        mean = np.array([nats / tokens for nats, tokens in sums])
        if not np.isfinite(mean).any():
            raise HarnessError("weighting=validation needs validation replies, and nobody has any; leave it out")
        worth = np.exp(-mean) * np.clip((known @ known.T).mean(axis=1), 0.0, None)
    recipes = most_similar(vectors, have, options.k, own=options.own, worth=worth)
    return study.combine(loras, recipes, fallback=study.fitted("unified"))


def unit_vectors(vectors: Mapping[str, np.ndarray], people: Sequence[str]) -> np.ndarray:
    """[people, E], each of length 1."""
    return np.stack([vectors[p] / np.linalg.norm(vectors[p]) for p in people]).astype(float)


def most_similar(
    vectors: Mapping[str, np.ndarray], have: Sequence[str], k: int, *, own: bool, worth: np.ndarray, least: float = 0.0
) -> dict[str, dict[str, float]]:
    """For each persona with a vector: the K nearest of those in `have`, weighted to sum 1 by cosine times `worth`.

    own    whether a persona may be one of its own K
    least  what a smaller cosine counts as
    """
    known, recipes = unit_vectors(vectors, have), {}
    for persona, vector in vectors.items():
        closeness = np.clip(known @ (vector / np.linalg.norm(vector)), least, None) * worth
        if not own and persona in have:
            closeness[have.index(persona)] = 0.0
        chosen = np.argsort(-closeness, kind="stable")[:k]
        total = closeness[chosen].sum()
        if total > 0:
            recipes[persona] = {have[i]: float(closeness[i] / total) for i in chosen if closeness[i] > 0}
    return recipes
