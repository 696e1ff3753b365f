"""Per persona the method that does best on the validation split, shrunk; the unified adapter unless it is beaten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness import MethodCard, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Between what is chosen, and how sure one must be.

    candidates  fitted methods besides the unified adapter
    margin      a persona leaves unified only for a shrunken gain above this many nats per token
    """

    candidates: tuple[str, ...] = ("persona_prefix", "cluster_prefix", "persona_lora_on_unified")
    margin: float = 0.0


@hookimpl
def card() -> MethodCard:
    summary = "per persona the method with the best shrunken validation loss, else unified"
    return MethodCard(summary, Options, requires=("unified", "{candidates}"), shares="all", validation="selection")


@hookimpl
def fit(study: Study) -> Fitted:
    base, names = study.fitted("unified"), study.options.candidates
    before = study.validation_losses(base)
    people = sorted(before)
    shrunk = np.zeros((len(names), len(people)))
    for row, name in enumerate(names):
        after = study.validation_losses(study.fitted(name))
        shrunk[row] = _shrunk([before[p] for p in people], [after[p] for p in people])
    best = shrunk.argmax(axis=0)
    routes = {
        p: study.fitted(names[best[i]]) for i, p in enumerate(people) if shrunk[best[i], i] > study.options.margin
    }
    chosen = [names[best[i]] if p in routes else "unified" for i, p in enumerate(people)]
    study.note("routes", {name: chosen.count(name) for name in ("unified", *names)})
    return base.with_routes(routes)


def _shrunk(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> np.ndarray:
    """Gains [G] in nats per token, pulled towards their mean (normal-normal empirical Bayes, Morris 1983).

    before, after  per persona [replies, 2]: nats and tokens of each validation reply
    A gain is a ratio of sums over replies; its sampling variance follows from the replies' residuals.
    """
    gains, noise = np.zeros(len(before)), np.zeros(len(before))
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        saved, tokens = old[:, 0] - new[:, 0], old[:, 1]
        gains[i] = saved.sum() / tokens.sum()
        count = len(tokens)
        residual = np.square(saved - gains[i] * tokens).sum() / tokens.sum() ** 2
        noise[i] = residual * count / (count - 1) if count > 1 else np.inf
    known = np.isfinite(noise)
    if known.sum() < 2:
        return np.zeros(len(before))
    between = max(float(gains[known].var(ddof=1) - noise[known].mean()), 0.0)
    middle = gains[known].mean()
    # Without noise and without a spread, as between equals, everybody is at the middle: 0 / 0 would be no number.
    share = np.divide(between, between + noise, out=np.zeros(len(before)), where=known & (between + noise > 0))
    return middle + share * (gains - middle)
