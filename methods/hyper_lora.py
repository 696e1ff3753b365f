"""A network maps what a persona has written, or its description, to LoRA factors (P2P, arXiv 2510.16282; text-to-LoRA).

It is trained on everybody, and serves a person that it never saw from that person's texts alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from harness import FromVector, LoRA, MethodCard, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Shape of the LoRAs, the network, what it reads, and training.

    by       "texts": the mean embedding of the persona's train replies, and that of the most typical ones;
             "description": the embedding of the description
    typical  how many replies, the nearest to the mean, count as most typical
    """

    lora: LoRA = LoRA(rank=4, alpha=8.0)
    network: FromVector = FromVector(width=32)
    by: Literal["texts", "description"] = "texts"
    typical: Annotated[int, Field(ge=1)] = 4
    train: TrainOptions = TrainOptions(learning_rate=1e-3, epochs=10, batch_size=2, patience=1)


@hookimpl
def card() -> MethodCard:
    summary = "a network maps a persona's texts to LoRA factors, on the frozen unified LoRA"
    return MethodCard(summary, Options, requires=("unified",), shares="all")


@hookimpl
def fit(study: Study) -> Fitted:
    options, base = study.options, study.fitted("unified")
    vectors = study.vectors("behaviour" if options.by == "texts" else "description")
    if options.by == "texts":
        vectors = {p: _with_typical(mean, study.embed(study.texts(p)), options.typical) for p, mean in vectors.items()}
    return study.fit_jointly(options.network, options.lora, base, options.train, vectors=vectors, fallback=base)


def _with_typical(mean: np.ndarray, texts: np.ndarray, count: int) -> np.ndarray:
    """[2 E]: the mean [E] of a persona's texts [T, E], and the mean of the `count` nearest to it."""
    nearest = np.argsort(-(texts @ mean), kind="stable")[: max(count, 1)]
    return np.concatenate([mean, texts[nearest].mean(axis=0)])
