"""Replies -> scores per example -> sums per persona. The benchmark names the metric that decides.

Sums are what comparisons and the published records are made of; see `persona_sums` for their form. No statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.contract import Dataset, Example
from harness.scoring.registry import MetricBatch, expand_metrics, metric_named, score_columns
from harness.scoring.similarity import Embedder

EMPTY_SHARE_FLAGGED = 0.05  # FAIR_COMPARISON row 8


def score_replies(
    dataset: Dataset,
    examples: Sequence[Example],
    replies: Sequence[str],
    embedder: Embedder | None,
    nll: Sequence[tuple[float, int]] | None = None,
    choice_log_probs: NDArray[np.float64] | None = None,
) -> dict[str, list[float]]:
    """Column -> one value per example (nan where undefined), for all metrics of the data set."""
    batch = MetricBatch(dataset, examples, replies, nll, choice_log_probs, embedder)
    return score_columns(dataset.metrics, batch)


def needs_embedder(dataset: Dataset) -> bool:
    """Whether a metric of the data set wants sentence embeddings."""
    return any("embedder" in metric_named(name).needs for name in expand_metrics(dataset.metrics))


def persona_sums(
    dataset: Dataset, examples: Sequence[Example], columns: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Sums per persona, for personas with at least one example, in data set order.

    Returns {"personas": [G ids], "clusters": [G], "replies": [G counts], "metrics": {name: {"unit", "higher_is_better",
    "sum": [G], "n": [G]}}}; a pooled metric has "counts": {column: [G]} in place of sum and n.
    A plain metric counts the examples where it is defined. "clusters" is left out where no persona has one.
    """
    owners: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        owners.setdefault(example.prompt.persona, []).append(i)
    personas = [p.id for p in dataset.personas if p.id in owners]
    found: dict[str, Any] = {}
    for name in expand_metrics(dataset.metrics):
        metric = metric_named(name)
        entry: dict[str, Any] = {"unit": metric.unit, "higher_is_better": metric.higher_is_better}
        if metric.pooled:
            entry["counts"] = {c: [_total(columns[c], owners[p])[0] for p in personas] for c in metric.columns}
        else:
            totals = [_total(columns[name], owners[p]) for p in personas]
            entry["sum"] = [total for total, _ in totals]
            entry["n"] = [n for _, n in totals]
        found[name] = entry
    clusters = {p.id: p.cluster for p in dataset.personas}
    labels = [clusters[p] for p in personas]
    known = {"clusters": labels} if any(label is not None for label in labels) else {}
    return {"personas": personas, **known, "replies": [len(owners[p]) for p in personas], "metrics": found}


def overall(sums: Mapping[str, Any], name: str) -> float:
    """A metric's micro figure from per-persona sums: mean over examples, or the pooled figure; nan if undefined."""
    entry = sums["metrics"][name]
    if "counts" in entry:
        metric = metric_named(name)
        assert metric.figure is not None
        return float(metric.figure(np.array([math.fsum(entry["counts"][c]) for c in metric.columns])))
    n = sum(entry["n"])
    return math.fsum(entry["sum"]) / n if n else math.nan


def scale(unit: str) -> float:
    """Factor from stored values to shown ones: shares are shown in points."""
    return 100.0 if unit == "pt" else 1.0


def _total(values: Sequence[float], places: Sequence[int]) -> tuple[float, int]:
    defined = [values[i] for i in places if not math.isnan(values[i])]
    return math.fsum(defined), len(defined)
