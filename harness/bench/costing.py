"""What a run would cost on this device, before anything is fitted: parameters, tokens, memory and time.

A method's own `fit` is called with a study whose fits are only planned, so nothing has to be known of the method. Time
follows from one measured step of each fit and from a few decoded replies; the rest is counted.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.adapters import Bank, create_bank
from harness.bench.memory import resident_bytes
from harness.config import Recipe, RunConfig
from harness.contract import Prompt
from harness.engines import BATCH_TOKENS, Adapters, Fitted, Transcript, engine_for, reply_nll
from harness.errors import HarnessError
from harness.model import RANDOM, Backbone, catalogue, encode_prompt
from harness.progress import Progress, duration
from harness.runner import Session, open_session
from harness.show import table
from harness.study import Study
from harness.training import FitLoop, Fitter, PlannedFit, key_width

SAMPLE_REPLIES = 32


@dataclass(frozen=True)
class FitCosts:
    """One fit. Tokens, steps and seconds are of all epochs: early stopping may end it sooner.

    memory_bytes   of a step beside the weights of the model;  tokens_per_second: of training, measured
    """

    method: str
    adapters: int
    kind: str
    parameters: int
    steps: int
    tokens: int
    memory_bytes: int
    tokens_per_second: float
    seconds: float


@dataclass(frozen=True)
class DryRun:
    """A run that was not made.

    memory_bytes   of the process at its peak: what it has now, a merged copy of the backbone for each method that
                   others stand on, the dearest step, and the cache of the replies (what a step needed is kept)
    reply_seconds, score_seconds   of all test prompts, if replies are as long as those that were tried
    """

    backbone: str
    engine: str
    device: str
    backbone_parameters: int
    fits: tuple[FitCosts, ...]
    replies: int
    prompt_tokens: int
    reply_seconds: float
    score_seconds: float
    memory_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return sum(fit.seconds for fit in self.fits) + self.reply_seconds + self.score_seconds

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": self.seconds}

    def text(self) -> str:
        lines = [
            {
                "fit": fit.method,
                "adapters": f"{fit.adapters} x {fit.kind}",
                "parameters": f"{fit.parameters:,}",
                "steps": f"{fit.steps:,}",
                "tokens, at most": f"{fit.tokens:,}",
                "tokens/s": f"{fit.tokens_per_second:,.0f}",
                "time, at most": duration(fit.seconds),
                "step memory": f"{fit.memory_bytes / 1e9:.2f} GB",
            }
            for fit in self.fits
        ]
        parts = [table(lines)] if lines else ["nothing is fitted"]
        parts.append(
            f"{self.replies:,} replies to {self.prompt_tokens:,} prompt tokens: {duration(self.reply_seconds)}, "
            f"their likelihood {duration(self.score_seconds)}"
        )
        parts.append(
            f"backbone {self.backbone}: {self.backbone_parameters / 1e6:,.1f} M parameters, engine {self.engine}, "
            f"device {self.device}"
        )
        parts.append(
            f"about {duration(self.seconds)} in all, {self.memory_bytes / 1e9:.1f} GB at the peak; nothing was fitted"
        )
        return "\n".join([*parts, *(f"note: {note}" for note in self.notes)])


def dry_run(config: RunConfig, files: Sequence[str | Path], progress: Progress) -> DryRun:
    """Cost the configured run and its baseline. Raises HarnessError as a run does before it begins."""
    session, notes = _session(replace(config, isolate=False), files, progress)  # plans are made by a study of its own
    compared = config.compared
    session.check_required(compared)
    plans: dict[str, _Planned] = {}
    for recipe in compared:
        _plan(session, recipe, plans)
    engine, _ = engine_for(session.backbone)  # its weights are laid out now
    resident = resident_bytes()  # what is measured below leaves memory with the process
    measured = [fit for planned in plans.values() for fit in planned.fits]
    with progress.task("measure a step of each fit", len(measured), "fits") as advance:
        fits = []
        for fit in measured:
            fits.append(_costs(fit, session))
            advance()
    runs = len(compared)
    prompts = [example.prompt for example in session.examples]
    lengths = _prompt_lengths(session, prompts)
    reply, score = _reply_seconds(session, plans[config.recipe.method].fitted, prompts, progress)
    copies = sum(planned.merged for planned in plans.values())
    step = max((fit.memory_bytes for fit in fits), default=0)
    cache = _cache_bytes(session.backbone, lengths, session.dataset.protocol.max_new_tokens)
    model = session.backbone.model
    return DryRun(
        backbone=session.config.backbone,
        engine=engine.name,
        device=str(session.backbone.device),
        backbone_parameters=sum(p.numel() for p in model.parameters()),
        fits=tuple(fits),
        replies=runs * len(prompts),
        prompt_tokens=runs * sum(lengths),
        reply_seconds=runs * reply,
        score_seconds=runs * score,
        memory_bytes=resident + copies * _weight_bytes(session.backbone) + step + cache,
        notes=tuple(notes),
    )


def _session(config: RunConfig, files: Sequence[str | Path], progress: Progress) -> tuple[Session, list[str]]:
    """The session; with random weights of the shape where the real ones are out of reach and the shape is known."""
    known = next((k for k in catalogue().values() if config.backbone in (k.name, k.hub) and k.shape), None)
    try:
        return open_session(config, files, progress), []
    except HarnessError as fault:
        if known is None or "not reachable" not in str(fault):
            raise
    stand_in = replace(config, backbone=RANDOM + known.name)
    why = (
        f"{config.backbone} is not reachable: a model of its shape with random weights is used, with the embedded "
        "model's tokenizer. It needs more tokens, and every reply has the full length"
    )
    return open_session(stand_in, files, progress), [why]


# ---- planning: a method's own fit with fits that are not made ----


@dataclass
class _Planned:
    """What a method's fit asked for. `merged`: how many copies of the backbone its base is (0 or 1)."""

    fitted: Fitted
    fits: list[tuple[str, PlannedFit, Bank]]
    merged: int = 0


def _plan(session: Session, recipe: Recipe, plans: dict[str, _Planned]) -> Fitted:
    """Call the fit of a method and of all that it stands on, deepest first, each once."""
    name = recipe.method
    if name not in plans:
        made: list[tuple[str, PlannedFit, Bank]] = []

        def study_type(**given: Any) -> Study:
            return _DryStudy(name, made, plans, **given)

        study = session.local.study(recipe, lambda base: _plan(session, base, plans), study_type)
        fitted = session.methods[name].fit(study)
        plans[name] = _Planned(fitted, made)
    return plans[name].fitted


class _DryStudy(Study):
    """A study whose fits are planned and not made; a base is the backbone itself."""

    def __init__(self, name: str, made: list[Any], plans: dict[str, _Planned], **given: Any) -> None:
        self._fitter_type = functools.partial(_DryFitter, name=name, made=made)
        self._plans = plans
        super().__init__(**given)

    def validation_losses(self, fitted: Fitted) -> dict[str, np.ndarray]:
        return {p.id: np.ones((1, 2)) for p in self.personas}

    def _base(self, base: Fitted | None) -> Backbone:
        for planned in self._plans.values():
            if base is not None and base is planned.fitted and base.bank is not None:
                planned.merged = 1
        return self.backbone


@dataclass(frozen=True)
class _DryFitter(Fitter):
    name: str = ""
    made: list[Any] = field(default_factory=list)

    def _made(
        self,
        plan: PlannedFit,
        spec: Any,
        fits: Sequence[Any],
        fallback: Fitted | None,
        serve_all: bool = False,
    ) -> Fitted:
        bank = create_bank(plan.backbone, spec, plan.keys, self.seed)
        self.made.append((self.name, plan, bank))
        return self._of_plan(plan, Adapters(plan.backbone, bank), plan.grouping, fallback)


# ---- measuring ----


def _costs(fit: tuple[str, PlannedFit, Bank], session: Session) -> FitCosts:
    name, plan, bank = fit
    options = plan.train
    loop = FitLoop(plan.backbone, bank, plan.data["train"], plan.data["validation"], options, session.config.seed)
    estimate = loop.waves.estimate(loop.train_rows, options.batch_size)
    steps, tokens, held = loop.planned()
    training, looking = loop.speeds()
    return FitCosts(
        method=name,
        adapters=len(bank),
        kind=type(bank.spec).__name__,
        parameters=bank.trainable_per_adapter * len(bank),
        steps=steps,
        tokens=tokens,
        memory_bytes=estimate.total - estimate.weights,
        tokens_per_second=training,
        seconds=tokens / training + held / looking,
    )


def _prompt_lengths(session: Session, prompts: Sequence[Prompt]) -> list[int]:
    longest = session.dataset.protocol.max_prompt_tokens
    tokenizer = session.backbone.tokenizer
    return [len(encode_prompt(tokenizer, prompt.messages, longest)[0]) for prompt in prompts]


def _reply_seconds(
    session: Session, fitted: Fitted, prompts: Sequence[Prompt], progress: Progress
) -> tuple[float, float]:
    """Seconds of all replies, and of their likelihood, from a few that are evenly spread."""
    count = min(SAMPLE_REPLIES, len(prompts))
    places = [i * len(prompts) // count for i in range(count)]
    some, references = [prompts[i] for i in places], [session.examples[i].reference for i in places]
    transcript = Transcript(session.dataset.protocol, progress)
    transcript.generate(fitted, some[:2])  # a first call pays for what is made once
    started = time.perf_counter()
    transcript.generate(fitted, some)
    reply = time.perf_counter() - started
    started = time.perf_counter()
    reply_nll(transcript.ask(fitted, some), references, progress)
    return reply * len(prompts) / count, (time.perf_counter() - started) * len(prompts) / count


def _cache_bytes(backbone: Backbone, lengths: Sequence[int], new: int) -> int:
    """Of the keys and values of the batches of replies that are under way together."""
    engine, _ = engine_for(backbone)
    config = backbone.model.config.get_text_config()
    tokens = min(sum(lengths) + new * len(lengths), engine.workers * BATCH_TOKENS)
    return tokens * config.num_hidden_layers * 2 * key_width(config) * backbone.dtype.itemsize


def _weight_bytes(backbone: Backbone) -> int:
    """Of a model, and of its weights as an engine lays them out anew."""
    own = sum(p.numel() * p.element_size() for p in backbone.model.parameters())
    return own + (own if engine_for(backbone)[0].name == "llama_cpu" else 0)
