"""A vector per persona added to one layer: what tells its replies from those of unified (StyleVector, 2503.05213)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness import MethodCard, SteeringVector, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Where and how strongly the vector is added: both are chosen on validation replies, the same for everybody.

    depths     candidates, as shares of the model's depth
    strengths  factors of the mean difference of hidden states
    trained    whether the vectors are trained further from there, as `train` says
    """

    depths: tuple[float, ...] = (0.4, 0.6, 0.8)
    strengths: tuple[float, ...] = (0.25, 0.5, 1.0)
    trained: bool = False
    train: TrainOptions = TrainOptions(learning_rate=1e-2, epochs=5, batch_size=2, patience=1, keep_start=True)


@hookimpl
def card() -> MethodCard:
    summary = "a vector per persona added to one layer's output: its own replies minus unified's, on average"
    return MethodCard(summary, Options, requires=("unified",), shares="all", validation="selection")


@hookimpl
def fit(study: Study) -> Fitted:
    import torch  # here, so that listing methods does not wait for it

    options, base = study.options, study.fitted("unified")
    blocks = study.backbone.model.config.get_text_config().num_hidden_layers
    layers = sorted({min(int(depth * blocks), blocks - 2) for depth in options.depths if blocks > 1} or {0})
    examples = {p.id: study.examples(p.id, "train") for p in study.personas}
    listed = [example for own in examples.values() for example in own]
    prompts = [example.prompt for example in listed]
    said = study.reply_states(base, prompts, [example.reference for example in listed], layers)
    general = study.reply_states(base, prompts, study.generate(base, prompts), layers)
    apart = said - general  # [replies, layers, D]
    differences, start = {}, 0
    for persona, own in examples.items():
        if own:
            differences[persona] = apart[start : start + len(own)].mean(axis=0)  # [layers, D]
        start += len(own)

    def steered(place: int, strength: float) -> Fitted:
        spec = SteeringVector(layers[place])
        vectors = {p: {"vector": torch.from_numpy(strength * found[place])} for p, found in differences.items()}
        return study.fitted_from(spec, vectors, base=base, fallback=base)

    tried = {}
    for place in range(len(layers)):
        for strength in options.strengths:
            fitted = steered(place, strength)
            pairs = np.concatenate(list(study.validation_losses(fitted).values()) or [np.zeros((0, 2))]).sum(axis=0)
            tried[place, strength] = float(pairs[0] / max(pairs[1], 1))
    place, strength = min(tried, key=lambda key: tried[key])
    loss = round(tried[place, strength], 4)
    study.note("steering", {"layer": layers[place], "strength": strength, "validation loss": loss})
    chosen = steered(place, strength)
    if not options.trained:
        return chosen
    return study.fit_adapters(
        SteeringVector(layers[place]), {p: p for p in differences}, base, options.train, start=chosen, fallback=base
    )
