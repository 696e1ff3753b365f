"""What run.json and scores.jsonl say of a run: configuration, cost, flags, one line per example. No decisions here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.config import RunConfig
from harness.contract import Benchmark, Dataset, Example, Method
from harness.engines import Fitted
from harness.model import Backbone
from harness.scoring import EMPTY_SHARE_FLAGGED, expand_metrics
from harness.store import SCHEMA_VERSION, canonical_hash, git_state, hardware, numerics, peak_memory_bytes, versions


def opening(
    run_id: str,
    config: RunConfig,
    method: Method,
    options: Any,
    control: str | None,
    benchmark: Benchmark,
    dataset: Dataset,
    backbone: Backbone,
    hashes: Mapping[str, str],
    subset: bool,
) -> dict[str, Any]:
    """The record of a run that is about to begin; `subset`: not all personas of the data set are scored."""
    asked = {**config.as_dict(), "method": method.name, "control": control}
    for name in ("method_options", "benchmark_options", "runs_dir"):
        asked.pop(name)  # options stand beside; where runs lie is no part of a run
    source = method.source
    return {
        "schema_version": SCHEMA_VERSION,
        "id": run_id,
        "method": method.name,
        "plugin": {
            "distribution": source.distribution,
            "version": source.version,
            "file": Path(source.file).name,
            "sha256": source.sha256,
        },
        "summary": method.card.summary,
        "requires": list(method.requires(options)),
        "shares": method.card.shares,
        "trials": method.card.trials,
        "validation": method.card.validation,
        "method_options": plain(options),
        "changed": _changed(config, method, options, benchmark),
        "config": asked,
        "seed": config.seed,
        "subset": subset,
        "benchmark": {
            "name": dataset.name,
            "options": plain(config.benchmark_options),
            "facts": dict(dataset.facts),
            "sha256": benchmark.source.sha256,
        },
        "protocol": plain(dataset.protocol),
        "metrics": list(expand_metrics(dataset.metrics)),
        "reference": plain(dataset.reference) if dataset.reference else None,
        "hashes": dict(hashes),
        "numerics": numerics(backbone),
        "versions": versions(),
        "hardware": hardware(backbone.device.type),
        "git": git_state(Path(__file__).parent),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cost_of(fitted: Fitted, fit: float, predict: float, score: float) -> dict[str, Any]:
    """What the run's own adapters cost; what it stands on has a run of its own. Times in seconds as measured here."""
    report, bank = fitted.report, fitted.bank
    adapters = report.get("adapters", {}).values()
    each = bank.trainable_per_adapter if bank else 0
    trained = each * len(bank) if bank and adapters else 0  # combined from others' adapters: nothing was trained
    if "personal_numbers" in report:  # adapters as functions of shared parameters
        each = report["personal_numbers"]
        trained = report["shared_numbers"] + each * len(adapters)
    return {
        "trainable_parameters": trained,
        "parameters_per_adapter": each,
        "adapters": len(bank) if bank else 0,
        "stored_bytes": bank.stored_bytes if bank else 0,
        "fit_seconds": round(float(report.get("seconds", fit)), 2),
        "predict_seconds": round(predict, 2),
        "score_seconds": round(score, 2),
        "steps": sum(a["steps"] for a in adapters),
        "epochs": max((a["epochs"] for a in adapters), default=0),
        "tokens": report.get("tokens", 0),
        "validation_loss": _validation_loss(adapters),
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _validation_loss(adapters: Iterable[Mapping[str, Any]]) -> float | None:
    """Mean over the adapters of the loss (nats a token) by which their best epoch was chosen; None without any."""
    best: list[float] = []
    for report in adapters:
        start = report["start_validation_loss"]
        if report["validation_loss"]:
            best.append(min([*report["validation_loss"], *([] if start is None else [start])]))
    return sum(best) / len(best) if best else None


def _changed(config: RunConfig, method: Method, options: Any, benchmark: Benchmark) -> dict[str, Any]:
    """Options that are not their plugin's defaults, by dotted name, and changed protocol fields."""
    found = {
        "method": _differences(plain(options), plain(method.card.options())),
        "benchmark": _differences(
            plain(config.benchmark_options), plain(benchmark.card.options()), leave_out="personas"
        ),
        "protocol": plain(dict(config.protocol)),
    }
    return {target: values for target, values in found.items() if values}


def plain(value: Any) -> Any:
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    return json.loads(json.dumps(plain, default=str))


def _differences(given: Mapping[str, Any], default: Mapping[str, Any], leave_out: str = "") -> dict[str, Any]:
    """Dotted name -> value, where two nested mappings differ."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": v for inner, v in _differences(value, default.get(name, {})).items()}
        elif name != leave_out and value != default.get(name):
            found[name] = value
    return found


def flags_of(fitted: Fitted, replies: Sequence[str]) -> list[str]:
    flags: list[str] = []
    empty = sum(not r.strip() for r in replies) / len(replies)
    if empty > EMPTY_SHARE_FLAGGED:
        flags.append(f"{empty:.0%} empty replies")
    states = fitted.report.get("adapters", {})
    for status in ("diverged", "no data"):
        if count := sum(state["status"] == status for state in states.values()):
            flags.append(f"{count} of {len(states)} adapters: {status}")
    if fitted.report.get("rewaved"):
        flags.append("rewaved")
    if fitted.adds_text:
        flags.append("adds text to the prompt")
    return flags


def score_lines(
    examples: Sequence[Example], replies: Sequence[str], columns: Mapping[str, Sequence[float]]
) -> list[str]:
    """scores.jsonl: one JSON object per example."""
    lines = []
    for i, example in enumerate(examples):
        values = {name: (None if v[i] != v[i] else v[i]) for name, v in columns.items()}
        line = {
            "id": example.prompt.id,
            "persona": example.prompt.persona,
            "prompt": canonical_hash([[m.role, m.text] for m in example.prompt.messages])[:16],
            "reference": canonical_hash(example.reference)[:16],
            "reply": replies[i],
            **values,
        }
        lines.append(json.dumps(line, ensure_ascii=False, allow_nan=False))
    return lines
