"""What a method may use, and nothing else: the frozen backbone, train and validation dialogues, and services.

`fit_adapters` trains all adapters of a grouping together and caches them by content, `fit_jointly` adapters that share
parameters; `generate` decodes in batches with one adapter per row. Test dialogues never come here: prompts arrive
without references.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.adapters import AdapterSpec
from harness.config import fitted_for, held_out
from harness.contract import (
    MOST_NESTED,
    Clusters,
    Dataset,
    Dialogue,
    Example,
    Method,
    Persona,
    Prompt,
    Protocol,
    Split,
    TrainOptions,
    is_text,
    keeping,
    levels,
    undisturbed,
)
from harness.engines import Adapters, FitCost, Fitted, Grouping, Predicted, Transcript, reply_nll, reply_states
from harness.errors import HarnessError, PluginError, did_you_mean
from harness.model import Backbone, dialogue_examples, fingerprint
from harness.progress import Progress
from harness.scoring import Embedder, locate_scorer
from harness.store import Store
from harness.training import Control, DesignSpec, Fitter, Shards, Watch, cluster_personas


class Study:
    """One method's view of a run. Made by the runner; see the module's docstring.

    personas   those that this method is fitted for
    newcomers  personas that are held out: they have no dialogues here, but prompts of theirs will come
    options    an instance of the card's options dataclass
    seed       of the run
    backbone   frozen; its weights are checked after `fit`
    protocol   how prompts are built and replies decoded
    validation_read  whether the method asked for validation dialogues itself, which its card has to declare
    """

    _fitter_type: Callable[..., Fitter] = Fitter

    def __init__(
        self,
        *,
        backbone: Backbone,
        personas: Sequence[Persona],
        dialogues: Sequence[Dialogue],
        protocol: Protocol,
        options: Any,
        seed: int,
        required: Mapping[str, Fitted],
        store: Store,
        progress: Progress,
        control: Control | None = None,
        newcomers: Sequence[Persona] = (),
        scorer: str | None = None,
        watch: Watch | None = None,
        texts: Mapping[str, Sequence[str]] | None = None,
        shards: Shards | None = None,
    ) -> None:
        if leaked := [d.id for d in dialogues if d.split == "test"]:
            raise ValueError(f"test dialogues must not reach a study, got {leaked[:3]}")
        self.backbone = backbone
        self.personas = tuple(personas)
        self.newcomers = tuple(newcomers)
        self.protocol = protocol
        self.options = options
        self.seed = seed
        self.progress = progress
        self._notes: dict[str, Any] = {}
        self.validation_read = False
        self._dialogues = tuple(dialogues)
        self._required = dict(required)
        self._scorer = scorer
        self._texts = {**_train_replies(dialogues), **(texts or {})}
        self._embedder: Embedder | None = None  # one of its own: the scorer's leads back to what it scores
        self._cache = store.cache / "embeddings"
        shards = shards or Shards()
        everybody = [p.id for p in (*personas, *newcomers)]
        self._transcript = Transcript(protocol, progress, shards.of_people(everybody), shards.elsewhere)
        self._elsewhere = shards.elsewhere
        self._fits: dict[Path | None, FitCost] = {}  # by the folder of the adapters: asked for twice, made once
        self._seconds = 0.0  # that these calls took here; those found in the store took longer when they were made
        self._own_work = False  # whether the method made adapters by itself
        self._fitter = self._fitter_type(
            self.personas, self._dialogues, protocol, seed, store, progress, control, watch, shards
        )

    # ---- people and their data ----

    def dialogues(self, persona: str, split: Split) -> list[Dialogue]:
        """A persona's train or validation dialogues, in order. Raises HarnessError for "test".

        A method that reads validation dialogues says on its card what for (`MethodCard.validation`).
        """
        if split == "test":
            raise HarnessError("test dialogues are not available to a method; use 'train' or 'validation'")
        self.validation_read |= split == "validation"
        return [d for d in self._dialogues if d.persona == persona and d.split == split]

    @property
    def notes(self) -> dict[str, Any]:
        """What the method wants printed and recorded with its run, see `note`."""
        return dict(self._notes)

    def note(self, name: str, value: Any) -> None:
        """Put a JSON value under a name into the run's record; it is printed below the result.

        Raises PluginError for anything else: sets and objects, NaN and infinity, circles, nesting without end.
        """
        self._notes[name] = _json_value(name, value)

    @undisturbed()
    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [len(texts), 384] of all-MiniLM-L6-v2, cached. Raises ScorerError where it is not installed."""
        if self._embedder is None:
            self._embedder = Embedder(locate_scorer(self._scorer), cache=self._cache, note=self.progress.warn)
        return self._embedder.embed(texts)

    def vectors(self, by: Literal["description", "behaviour"] = "description") -> dict[str, NDArray[np.float32]]:
        """Persona id -> vector [384]: of its description, or the mean of its train replies; of newcomers, too.

        Personas without a description, or without train replies, are left out.
        """
        if by == "description":
            people = [p for p in (*self.personas, *self.newcomers) if p.description.strip()]
            embedded = self.embed([p.description for p in people])
            return {p.id: vector for p, vector in zip(people, embedded, strict=True)}
        replies = {p.id: self.texts(p.id) for p in (*self.personas, *self.newcomers)}
        self.embed([text for texts in replies.values() for text in texts])  # in large batches; below from memory
        return {persona: self.embed(texts).mean(axis=0) for persona, texts in replies.items() if texts}

    def texts(self, persona: str) -> list[str]:
        """A persona's train replies. Of a newcomer, too: to tell who it is, and never to be trained on."""
        return list(self._texts.get(persona, ()))

    def examples(self, persona: str, split: Split) -> list[Example]:
        """A persona's train or validation prompts with their replies; else as `dialogues`."""
        people = {p.id: p for p in self.personas}
        return [e for d in self.dialogues(persona, split) for e in dialogue_examples(self.protocol, people[persona], d)]

    # ---- groupings ----

    def by_persona(self) -> Grouping:
        """One adapter per persona; a newcomer has none."""
        return {p.id: p.id for p in self.personas}

    def by_cluster(self, clusters: Clusters | None = None) -> Grouping:
        """One adapter per cluster; a newcomer goes to the cluster with the nearest centroid of descriptions.

        Raises HarnessError if clusters are to be given and a persona has none, or there are too few personas.
        """
        return {persona: f"cluster_{label}" for persona, label in self.clusters(clusters).items()}

    @undisturbed()
    def clusters(self, clusters: Clusters | None = None) -> dict[str, int]:
        """Persona id -> its cluster's number, newcomers included where they have a description; notes the quality."""
        labels, quality = cluster_personas(
            clusters or Clusters(), self.personas, self.newcomers, self.vectors, self.seed
        )
        self.note("clusters", quality)
        return labels

    def for_all(self) -> Grouping:
        """One adapter for everybody."""
        return {p.id: "all" for p in self.personas}

    # ---- what stands below ----

    def fitted(self, method: str) -> Fitted:
        """What a required method has fitted. Raises HarnessError if the card does not require it."""
        try:
            return self._required[method]
        except KeyError:
            raise HarnessError(
                f"'{method}' is not among the methods that this one requires; add it to `requires` on the card "
                f"({did_you_mean(method, self._required)})"
            ) from None

    def bare(self, base: Fitted | None = None) -> Fitted:
        """A Fitted without adapters of its own: the backbone, or what `base` stands for."""
        return Fitted.of(Adapters(self._base(base)))

    # ---- fitting ----

    @undisturbed()
    def fit_adapters(
        self,
        spec: AdapterSpec,
        grouping: Grouping,
        base: Fitted | None,
        train: TrainOptions,
        *,
        start: Fitted | None = None,
        fallback: Fitted | None = None,
    ) -> Fitted:
        """Fit one adapter per key of a grouping, all together, each as if it were alone.

        spec      LoRA, SoftPrompt or another kind of adapter
        grouping  persona id -> adapter key; an adapter learns from the train dialogues of its personas, and its
                  best epoch is chosen on their validation dialogues
        base      fitted method below the adapters; None: the backbone itself
        train     see TrainOptions
        start     fitted adapters of the same kind and base: each begins where its first persona is served there
        fallback  who replies to personas without an adapter; None: the base

        The result is cached by everything that determines it, and an interrupted fit goes on where it stopped.
        Personas whose key has no train dialogues are left to the fallback. A control of the run changes what is
        fitted or who is served (`global`: one adapter on everybody's data in as many steps; `swapped`: another
        persona's adapter). Raises HarnessError if no persona of the grouping has train dialogues.
        """
        model = self._base(base)
        return self._counted(lambda: self._fitter.adapters(model, spec, grouping, train, start, fallback))

    @undisturbed()
    def fit_jointly(
        self,
        design: DesignSpec,
        spec: AdapterSpec,
        base: Fitted | None,
        train: TrainOptions,
        *,
        clusters: Clusters | None = None,
        vectors: Mapping[str, NDArray[Any]] | None = None,
        fallback: Fitted | None = None,
    ) -> Fitted:
        """Fit one adapter per persona, newcomers included, as functions of parameters that they share.

        design    Levels, Coefficients, Subspace or FromVector: who shares what
        clusters  for the first two; None: the benchmark's own, or none where it has none
        vectors   for FromVector: persona id -> [E]; personas without one are left to the fallback
        The rest is as in `fit_adapters`. An epoch is a pass over the data of the persona with most dialogues.
        """
        people = [p.id for p in (*self.personas, *self.newcomers) if vectors is None or p.id in vectors]
        labels: Mapping[str, int] = {}
        if vectors is None and (clusters or all(p.cluster is not None for p in self.personas)):
            labels = self.clusters(clusters)
        model = self._base(base)
        return self._counted(
            lambda: self._fitter.jointly(model, design, spec, people, train, labels, vectors, fallback)
        )

    @undisturbed()
    def combine(
        self,
        fitted: Fitted,
        recipes: Mapping[str, Mapping[str, float]],
        fallback: Fitted | None = None,
        *,
        same_rank: bool = False,
    ) -> Fitted:
        """Serve each persona a weighted sum of fitted LoRAs, exact on the weight update.

        recipes    persona id -> {key of an adapter in `fitted`: weight}
        same_rank  in place of the exact sum the nearest update of the shape that the LoRAs have; fits can start there
        Raises HarnessError if `fitted` holds no LoRAs, or for an unknown key.
        """
        return self._fitter.combined(fitted, recipes, fallback, same_rank)

    @undisturbed()
    def fitted_from(
        self,
        spec: AdapterSpec,
        tensors: Mapping[str, Mapping[str, Tensor]],
        grouping: Grouping | None = None,
        base: Fitted | None = None,
        fallback: Fitted | None = None,
    ) -> Fitted:
        """A Fitted from tensors that the method made itself. They are saved, and served as they were saved.

        spec      the shape of every adapter: LoRA, SoftPrompt or another kind
        tensors   adapter key -> name -> one adapter's tensor, e.g. {"anna": {"prompt_embeddings": [P, D]}}; a LoRA
                  has "<module>.lora_A" [rank, in] and "<module>.lora_B" [out, rank] for each of its modules
        grouping  persona id -> adapter key; None: the keys are personas
        The rest is as in `fit_adapters`. Raises HarnessError with the names and shapes that are wrong.
        """
        fitted = self._fitter.given(self._base(base), spec, tensors, grouping, fallback)
        self._fits[fitted.folder] = fitted.cost
        self._own_work = True
        return fitted

    # ---- replies ----

    @undisturbed()
    def generate(self, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
        """Replies to prompts by the protocol: greedy text, or the decision over the closed set of choices."""
        return self._transcript.generate(fitted, prompts)

    @undisturbed()
    def validation_losses(self, fitted: Fitted) -> dict[str, NDArray[np.float64]]:
        """Persona id -> [replies, 2]: summed nats and tokens of each of its validation replies under `fitted`.

        For choosing between fitted things; a method that does must declare `validation="selection"` on its card.
        """
        self.validation_read = True
        people = {p.id: p for p in self.personas}
        examples = [
            example
            for d in self._dialogues
            if d.split == "validation" and d.persona in people
            for example in dialogue_examples(self.protocol, people[d.persona], d)
        ]
        asked = self._transcript.ask(fitted, [e.prompt for e in examples])
        likelihoods = reply_nll(asked, [e.reference for e in examples], self.progress, self._elsewhere)
        found: dict[str, list[tuple[float, int]]] = {}
        for example, one in zip(examples, likelihoods, strict=True):
            found.setdefault(example.prompt.persona, []).append(one.whole)
        return {persona: np.array(pairs, dtype=float) for persona, pairs in found.items()}

    @undisturbed()
    def reply_states(
        self, fitted: Fitted, prompts: Sequence[Prompt], replies: Sequence[str], layers: Sequence[int]
    ) -> NDArray[np.float32]:
        """Hidden states [n, layers, D] behind blocks of the model, each the mean over a reply's tokens.

        fitted  one model for all (a single LoRA, or none)
        layers  blocks from 0, negative ones from the end
        """
        asked = self._transcript.ask(fitted, prompts)
        return reply_states(fitted.base(), asked, replies, layers, self.progress)

    # ---- inside ----

    def _counted(self, make: Callable[[], Fitted]) -> Fitted:
        started = time.perf_counter()
        fitted = make()
        self._seconds += time.perf_counter() - started
        self._fits[fitted.folder] = fitted.cost
        return fitted

    def _costs(self, seconds: float) -> tuple[FitCost, dict[str, FitCost]]:
        """What the method's fits took, and by name what each method took that it stands on.

        seconds  that its hook took. What of them is not the harness's fits is the cost of a method's own fits, and of
                 a method that has made none
        """
        cost = sum(self._fits.values(), FitCost())
        if self._own_work or not self._fits:
            cost += FitCost(seconds=seconds - self._seconds)
        below: dict[str, FitCost] = {}
        for name, fitted in self._required.items():
            below |= {name: fitted.cost, **fitted.stands_on}
        return cost, below

    def _base(self, base: Fitted | None) -> Backbone:
        return self.backbone if base is None else base.base()


# ---- the doors to a method: the runner and the conformance checks both come through here ----


def make_study(
    method: Method,
    dataset: Dataset,
    scope: Collection[str],
    *,
    backbone: Backbone,
    options: Any,
    seed: int,
    required: Mapping[str, Fitted],
    store: Store,
    progress: Progress,
    control: Control | None = None,
    scorer: str | None = None,
    study_type: Callable[..., Study] = Study,
    shards: Shards | None = None,
) -> Study:
    """A method's view of a data set: the people whose data it may use for the personas in `scope`, no test dialogue.

    scorer  name of the sentence encoder, or its folder; None: by its name
    shards  how its work is cut and where it is done; None: 256 people together, here
    """
    out = held_out(dataset)
    newcomers = [p for p in dataset.personas if p.id in out and p.id in scope]
    met = {p.id for p in newcomers}
    personas = [p for p in fitted_for(dataset, frozenset(scope), method.card.shares) if p.id not in out]
    ids = {p.id for p in personas}
    return study_type(
        backbone=backbone,
        personas=personas,
        dialogues=[d for d in dataset.dialogues if d.split != "test" and d.persona in ids],
        protocol=dataset.protocol,
        options=options,
        seed=seed,
        required=required,
        store=store,
        progress=progress,
        control=control,
        newcomers=newcomers,
        scorer=scorer,
        texts=_train_replies(d for d in dataset.dialogues if d.persona in met),
        shards=shards,
    )


def _json_value(name: str, value: Any) -> Any:
    """A copy of a note. Raises PluginError for one that is no JSON."""
    if not isinstance(name, str) or not is_text(name):
        raise PluginError(f"a note needs a text as its name, not {name!r}")
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        copy = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise PluginError(f"the note '{name}' is no JSON value: {why}") from error
    if not is_text(text):
        raise PluginError(f"the note '{name}' holds half of a surrogate pair, which is no character")
    if levels(copy) > MOST_NESTED:
        raise PluginError(f"the note '{name}' is nested deeper than {MOST_NESTED} levels")
    return copy


def _train_replies(dialogues: Iterable[Dialogue]) -> dict[str, list[str]]:
    """Persona id -> the assistant's texts in its train dialogues."""
    found: dict[str, list[str]] = {}
    for d in dialogues:
        if d.split == "train":
            found.setdefault(d.persona, []).extend(m.text for m in d.messages if m.role == "assistant")
    return found


def fit_method(method: Method, study: Study) -> Fitted:
    """What the method learns, all of it saved, and what that cost.

    Raises PluginError for another result than a Fitted; HarnessError where the run's control changes nothing.
    """
    started = time.perf_counter()
    with keeping(_models(study)):
        fitted = method.fit(study)
    seconds = time.perf_counter() - started
    if not isinstance(fitted, Fitted):
        raise PluginError(f"method '{method.name}': fit returned {type(fitted).__name__}, not a harness.Fitted")
    if (control := study._fitter.control) and control not in study._fitter.controlled:
        raise HarnessError(
            f"the control '{control}' changes nothing in '{method.name}', so its scores would be the method's own; "
            "leave it out"
        )
    cost, stands_on = study._costs(seconds)
    return replace(study._fitter.saved(fitted), cost=cost, stands_on=stands_on)


def validation_loss(study: Study, fitted: Fitted) -> float:
    """Nats a token on the validation replies of the study's personas; nothing of the test is looked at.

    Raises HarnessError where there are none, or the loss is not finite.
    """
    pairs = study.validation_losses(fitted).values()
    nats, tokens = (sum(float(own[:, column].sum()) for own in pairs) for column in (0, 1))
    if not tokens:
        raise HarnessError("the personas for tuning have no validation replies")
    if not math.isfinite(nats):  # Optuna would drop such a trial without a word, and it would be made for ever
        raise HarnessError("the validation loss is not finite")
    return nats / tokens


def _models(study: Study) -> list[Any]:
    """The frozen models that a method can reach: the backbone, and those that its bases are merged into up to now."""
    adapters = [one for fitted in study._required.values() for one in fitted.all_adapters]
    backbones = [study.backbone, *(vars(one)["merged"] for one in adapters if "merged" in vars(one))]
    return list({id(backbone.model): backbone.model for backbone in backbones}.values())


def check_backbone(name: str, backbone: Backbone, hook: str = "fit") -> None:
    """Raises PluginError if, after a hook, the weights are not those that were frozen."""
    if fingerprint(backbone.model, backbone.tokenizer) != backbone.fingerprint:
        raise PluginError(f"method '{name}' changed the frozen backbone's weights in {hook}; train adapters instead")


def check_adapters(name: str, fitted: Fitted, hook: str = "fit") -> None:
    """Raises PluginError if, after a hook, a bank in use is not the one that is stored: a run keeps the stored one."""
    for adapters in fitted.all_adapters:
        if difference := adapters.unlike_stored():
            raise PluginError(
                f"method '{name}', after {hook}: {difference}, so its replies would not be those of the stored "
                "adapters; make a Fitted from changed tensors with study.fitted_from"
            )


def replies_by_depth(
    prompts: Sequence[Prompt], ask: Callable[[list[Prompt]], Sequence[str]], progress: Progress
) -> list[str]:
    """Replies in the order of the prompts, asked for turn depth by turn depth: no history shows what is still asked."""
    replies: dict[int, str] = {}
    with progress.task("reply", len(prompts), "replies") as advance:
        for depth in sorted({p.depth for p in prompts}):
            places = [i for i, p in enumerate(prompts) if p.depth == depth]
            replies.update(zip(places, ask([prompts[i] for i in places]), strict=True))
            advance.to(len(replies), len(prompts))
    return [replies[i] for i in range(len(prompts))]


def replies_to(method: Method, study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    """A method's replies to prompts of one depth."""
    with keeping(_models(study)):
        return method.predict(study, fitted, prompts)


def predict_in_order(method: Method, study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> Predicted:
    """Replies in the order of the prompts, asked for turn depth by turn depth.

    How the fitted model was asked is known only where every reply is what `study.generate` made with it.
    """
    study._transcript.clear()
    replies = replies_by_depth(prompts, functools.partial(replies_to, method, study, fitted), study.progress)
    return asked_for(study, fitted, prompts, replies)


def asked_for(study: Study, fitted: Fitted, prompts: Sequence[Prompt], replies: list[str]) -> Predicted:
    """Replies to all prompts with how they came about, as far as the study knows."""
    return study._transcript.predicted(fitted, prompts, replies)
