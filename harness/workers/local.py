"""Fits and replies of methods over one data set, in this process."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.config import Recipe
from harness.contract import Dataset, Method, Prompt, changes, in_words
from harness.engines import FitFacts, Fitted, Predicted, engines_used
from harness.model import Backbone
from harness.progress import Progress
from harness.store import Store, canonical_hash
from harness.study import (
    Study,
    check_adapters,
    check_backbone,
    fit_method,
    make_study,
    predict_in_order,
    validation_loss,
)
from harness.training import Shards
from harness.workers.chain import Chain, below, chain_of, options_of
from harness.workers.executors import Places
from harness.workers.owned import OwnedStore, owners_of

Watch = Callable[[int, float], None]  # called with an epoch and its validation loss; FitStopped ends the fit


@dataclass(frozen=True)
class Answer:
    """What a method has learnt, and its replies.

    notes         what the method wants recorded
    seconds       that all replies took
    engines       what computed them, for the record
    changed       what the plugins of the chain left changed in their process, in words
    memory_bytes  peak of a process of its own; 0: it was this process
    """

    facts: FitFacts
    notes: Mapping[str, Any]
    predicted: Predicted
    seconds: float
    engines: Mapping[str, str]
    changed: tuple[str, ...]
    memory_bytes: int = 0


class Fit(NamedTuple):
    """A method, its view of the data, and what it has learnt of it."""

    method: Method
    study: Study
    fitted: Fitted


@dataclass(frozen=True)
class Given:
    """What the methods of one session are run with.

    methods  by name, with all that they stand on
    dataset  of which no method gets a test dialogue
    scope    ids of the personas that are asked for
    places   how work is cut and where it is done
    """

    methods: Mapping[str, Method]
    dataset: Dataset
    scope: Collection[str]
    backbone: Backbone
    store: Store
    progress: Progress
    seed: int
    scorer: str | None
    places: Places = field(default_factory=lambda: Places(Shards(), None))


class LocalWorker:
    """Fits and replies in this process."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self._bases: dict[str, Fit] = {}  # what others stand on

    @contextlib.contextmanager
    def answer(self, recipe: Recipe, prompts: Sequence[Prompt]) -> Iterator[Answer]:
        """Fit, then reply to the prompts, asked for turn depth by turn depth."""
        fit = self._bases.get(self._key(recipe)) or self.fit(recipe)
        started = time.perf_counter()
        predicted = predict_in_order(fit.method, fit.study, fit.fitted, prompts)
        yield self.answered(recipe, fit, predicted, time.perf_counter() - started)

    def close(self) -> None:
        """Forget what others stand on."""
        self._bases.clear()

    def fit(self, recipe: Recipe) -> Fit:
        """What the method of a recipe has learnt."""
        method, study = self.given.methods[recipe.method], self.study(recipe)
        return Fit(method, study, _fitted(method, study))

    def answered(self, recipe: Recipe, fit: Fit, predicted: Predicted, seconds: float) -> Answer:
        """What there is to tell of a fit and its replies. Raises PluginError where replying has changed the fit."""
        check_backbone(fit.method.name, fit.study.backbone, "predict")  # the next run stands on it too
        check_adapters(fit.method.name, fit.fitted, "predict")
        files = {method.source.file for method, _ in chain_of(self.given.methods, recipe).values()}
        engines = engines_used(fit.fitted.all_adapters)
        changed = in_words(changes(among=files))
        return Answer(fit.fitted.facts(self.given.scope), fit.study.notes, predicted, seconds, engines, changed)

    def trial(self, recipe: Recipe, watch: Watch) -> float:
        """Nats a token on validation replies of what a recipe's method learns while it is watched.

        Raises FitStopped where `watch` does.
        """
        method = self.given.methods[recipe.method]
        study = self.study(recipe, study_type=functools.partial(Study, watch=watch))
        return validation_loss(study, _fitted(method, study))

    def study(
        self, recipe: Recipe, base: Callable[[Recipe], Fitted] | None = None, study_type: Callable[..., Study] = Study
    ) -> Study:
        """A method's view of this data set.

        base   gives what a required method has fitted; by default it is fitted, once
        """
        chain = chain_of(self.given.methods, recipe)
        method, options = chain[recipe.method]
        base = base or self._base
        given = self.given
        return make_study(
            method,
            given.dataset,
            given.scope,
            backbone=given.backbone,
            options=options,
            seed=given.seed,
            required={name: base(below(recipe, name)) for name in method.requires(options)},
            store=self._store_of(chain),
            progress=given.progress,
            control=recipe.control,
            scorer=given.scorer,
            study_type=study_type,
            shards=given.places.shards,
        )

    def _store_of(self, chain: Chain) -> Store:
        return OwnedStore(self.given.store, owners_of(chain))

    def _base(self, recipe: Recipe) -> Fitted:
        """What others stand on, made once: it stays in memory."""
        key = self._key(recipe)
        if key not in self._bases:
            self._bases[key] = self.fit(recipe)
        return self._bases[key].fitted

    def _key(self, recipe: Recipe) -> str:
        return canonical_hash([options_of(chain_of(self.given.methods, recipe)), recipe.control])


def _fitted(method: Method, study: Study) -> Fitted:
    fitted = fit_method(method, study)
    check_backbone(method.name, study.backbone)
    check_adapters(method.name, fitted)
    return fitted
