"""Making the record of a run: what is known before it begins, then cost and flags.

What the fields mean is `record`. No decisions here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.config import Recipe, RunConfig
from harness.contract import Benchmark, Dataset, Method, plain
from harness.engines import FitCost, FitFacts, engine_for
from harness.model import Backbone
from harness.runs.learning import STILL_LEARNING, Learning
from harness.runs.record import (
    AdaptersWithoutData,
    AddsText,
    Base,
    BenchmarkSource,
    ChangedGlobalState,
    Cost,
    DivergedAdapters,
    EmptyReplies,
    Flag,
    HiddenPrompt,
    LossSpikes,
    PluginSource,
    Rewaved,
    RunRecord,
    Settings,
    StillLearning,
    TuningSource,
)
from harness.scoring import EMPTY_SHARE_FLAGGED, expand_metrics
from harness.store import git_state, hardware, numerics, peak_memory_bytes, versions
from harness.text import without_places
from harness.training import has_spike


def opening(
    run_id: str,
    config: RunConfig,
    recipe: Recipe,
    chain: Mapping[str, tuple[Method, Any]],
    benchmark: Benchmark,
    dataset: Dataset,
    backbone: Backbone,
    hashes: Mapping[str, str],
    files: Sequence[str | Path],
    subset: bool,
) -> RunRecord:
    """The record of a run that is about to begin.

    chain    the method, then all that it stands on, by name, each with its options
    files    loose plugin files that it needs;  subset: not all personas of the data set are scored
    """
    method, options = next(iter(chain.values()))
    asked = {**config.as_dict(), "method": method.name, "control": recipe.control}
    for name in ("method_options", "benchmark_options", "required_options", "tuning", "runs_dir"):
        asked.pop(name)  # options stand beside; where runs lie is no part of a run
    source = method.source
    return RunRecord(
        id=run_id,
        method=method.name,
        plugin=PluginSource(
            distribution=source.distribution,
            version=source.version,
            file=Path(source.file).name,
            sha256=source.sha256,
        ),
        summary=method.card.summary,
        requires=method.requires(options),
        shares=method.card.shares,
        trials=recipe.tuning["trials"] if recipe.tuning else method.card.trials,
        tuning=None if recipe.tuning is None else TuningSource.model_validate(recipe.tuning),
        validation=method.card.validation,
        method_options=plain(options),
        changed=_changed(config, chain, benchmark),
        config=Settings(**asked),
        plugin_files=tuple(without_places([Path(file).as_posix() for file in files])),
        seed=config.seed,
        subset=subset,
        benchmark=BenchmarkSource(
            name=dataset.name,
            options=plain(config.benchmark_options),
            facts={name: str(fact) for name, fact in dataset.facts.items()},
            sha256=benchmark.source.sha256,
        ),
        protocol=plain(dataset.protocol),
        metrics=expand_metrics(dataset.metrics),
        reference=dataset.reference,
        hashes=dict(hashes),
        numerics=numerics(backbone, engine_for(backbone)[0].name),
        versions=versions(),
        hardware=hardware(backbone.device.type),
        git=git_state(Path(__file__).parent),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def cost_of(fitted: FitFacts, predict: float, score: float, memory: int = 0) -> Cost:
    """What the method's own fits and replies cost, and apart what it stands on; times of replies as measured here.

    memory  bytes that another process, which fitted, took at its peak
    """
    adapters = fitted.report.get("adapters", {}).values()
    return Cost(
        trainable_parameters=fitted.cost.parameters,
        parameters_per_adapter=fitted.report.get("personal_numbers", fitted.numbers_per_adapter),
        adapters=fitted.adapters,
        stored_bytes=fitted.stored_bytes,
        fits=fitted.cost.fits,
        fit_seconds=round(fitted.cost.seconds, 2),
        predict_seconds=round(predict, 2),
        score_seconds=round(score, 2),
        steps=fitted.cost.steps,
        epochs=max((a["epochs"] for a in adapters), default=0),
        tokens=fitted.cost.tokens,
        validation_loss=_validation_loss(adapters),
        peak_memory_bytes=max(peak_memory_bytes(), memory),
        stands_on=_base_of(fitted.stands_on) if fitted.stands_on else None,
    )


def _base_of(costs: Mapping[str, FitCost]) -> Base:
    total = sum(costs.values(), FitCost())
    return Base(
        methods=tuple(costs),
        trainable_parameters=total.parameters,
        fits=total.fits,
        fit_seconds=round(total.seconds, 2),
        steps=total.steps,
        tokens=total.tokens,
    )


def _validation_loss(adapters: Iterable[Mapping[str, Any]]) -> float | None:
    """Mean over the adapters of the loss (nats a token) by which their best epoch was chosen; None without any."""
    best: list[float] = []
    for report in adapters:
        start = report["start_validation_loss"]
        if report["validation_loss"]:
            best.append(min([*report["validation_loss"], *([] if start is None else [start])]))
    return sum(best) / len(best) if best else None


def _changed(config: RunConfig, chain: Mapping[str, tuple[Method, Any]], benchmark: Benchmark) -> dict[str, Any]:
    """Options that are not their plugin's defaults, by dotted name, and changed protocol fields."""
    found = {name: _differences(plain(options), plain(m.card.options())) for name, (m, options) in chain.items()}
    own = next(iter(chain))
    found = {"method" if name == own else name: values for name, values in found.items()}
    found["benchmark"] = _differences(
        plain(config.benchmark_options), plain(benchmark.card.options()), leave_out="personas"
    )
    found["protocol"] = plain(dict(config.protocol))
    return {target: values for target, values in found.items() if values}


def _differences(given: Mapping[str, Any], default: Mapping[str, Any], leave_out: str = "") -> dict[str, Any]:
    """Dotted name -> value, where two nested mappings differ."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": v for inner, v in _differences(value, default.get(name, {})).items()}
        elif name != leave_out and value != default.get(name):
            found[name] = value
    return found


def flags_of(
    fitted: FitFacts, replies: Sequence[str], changed: Sequence[str] = (), learning: Learning | None = None
) -> list[Flag]:
    """What a reader of the run's figures should know of its fit and replies.

    changed   what its plugins left changed in the process, as `harness.contract.in_words` has it
    learning  of the fit, where a validation loss is known
    """
    flags: list[Flag] = []
    empty = sum(not r.strip() for r in replies) / len(replies)
    if empty > EMPTY_SHARE_FLAGGED:
        flags.append(EmptyReplies(share=empty))
    states = [state["status"] for state in fitted.report.get("adapters", {}).values()]
    if count := states.count("diverged"):
        flags.append(DivergedAdapters(count=count, of=len(states)))
    if count := states.count("no data"):
        flags.append(AdaptersWithoutData(count=count, of=len(states)))
    fits = fitted.report.get("adapters", {}).values()
    if count := sum(any(has_spike(fit.get(f"{of}_loss", ())) for of in ("train", "validation")) for fit in fits):
        flags.append(LossSpikes(count=count, of=len(states)))
    if learning and learning.last_fall >= STILL_LEARNING:
        flags.append(StillLearning(fall=round(learning.last_fall, 4)))
    if hidden := fitted.report.get("hidden"):
        flags.append(HiddenPrompt(count=hidden))
    if fitted.report.get("rewaved"):
        flags.append(Rewaved())
    if fitted.adds_text:
        flags.append(AddsText())
    if changed:
        flags.append(ChangedGlobalState(what=tuple(changed)))
    return flags
