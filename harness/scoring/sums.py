"""Replies -> scores per example -> `PersonaSums`. The benchmark names the metric that decides.

Sums are what comparisons and the published records are made of. No statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, model_validator

from harness.contract import Dataset, Example, Likelihood, MetricBatch
from harness.scoring.registry import expand_metrics, metric_named, score_columns
from harness.scoring.similarity import Embedder

EMPTY_SHARE_FLAGGED = 0.05  # a method that often says nothing may score well by it


class MetricSums(BaseModel, frozen=True, extra="forbid"):
    """One metric's sums, a value a persona (G), with all that is needed to show and compare them without its plugin.

    summary  one line on the metric; None: not known
    sum, n   of the examples where the metric is defined: their values' sum and their number
    counts   of a pooled metric, in place of sum and n: column -> [G]
    values   of a pooled metric: jackknife pseudo-values [G], moved so that their mean is the metric's figure; None
             where that is undefined with one persona left out
    """

    unit: str
    higher_is_better: bool
    summary: str | None = None
    sum: tuple[float, ...] = ()
    n: tuple[int, ...] = ()
    counts: dict[str, tuple[float, ...]] | None = None
    values: tuple[float, ...] | None = None

    @property
    def pooled(self) -> bool:
        """Whether the metric is computed from counts over all examples, in place of a mean."""
        return self.counts is not None


class PersonaSums(BaseModel, frozen=True, extra="forbid"):
    """Sums per persona, for personas with at least one example (G), in data set order.

    clusters   None where no persona has one;  replies: examples a persona
    """

    personas: tuple[str, ...]
    clusters: tuple[int | str | None, ...] | None = None
    replies: tuple[int, ...]
    metrics: dict[str, MetricSums]

    @model_validator(mode="after")
    def _alike(self) -> PersonaSums:
        lists = {"replies": self.replies, "clusters": self.personas if self.clusters is None else self.clusters}
        for name, sums in self.metrics.items():
            pooled = {f"{name}.{column}": values for column, values in (sums.counts or {}).items()}
            lists |= pooled or {f"{name}.sum": sums.sum, f"{name}.n": sums.n}
            lists |= {} if sums.values is None else {f"{name}.values": sums.values}
        if wrong := [name for name, values in lists.items() if len(values) != len(self.personas)]:
            raise ValueError(f"{', '.join(wrong)}: not one value for each of {len(self.personas)} personas")
        return self


def score_replies(
    dataset: Dataset,
    examples: Sequence[Example],
    replies: Sequence[str],
    embedder: Embedder | None,
    likelihoods: Sequence[Likelihood] | None = None,
    choice_log_probs: NDArray[np.float64] | None = None,
) -> dict[str, list[float]]:
    """Column -> one value per example (nan where undefined), for all metrics of the data set."""
    batch = MetricBatch(dataset, examples, replies, likelihoods, choice_log_probs, embedder)
    return score_columns(dataset.metrics, batch)


def needs_embedder(dataset: Dataset) -> bool:
    """Whether a metric of the data set wants sentence embeddings."""
    return any("embedder" in metric_named(name).needs for name in expand_metrics(dataset.metrics))


def persona_sums(dataset: Dataset, examples: Sequence[Example], columns: Mapping[str, Sequence[float]]) -> PersonaSums:
    """The sums of scored examples, all metrics of the data set."""
    owners: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        owners.setdefault(example.prompt.persona, []).append(i)
    people = [p for p in dataset.personas if p.id in owners]
    places = [owners[p.id] for p in people]
    metrics: dict[str, MetricSums] = {}
    for name in expand_metrics(dataset.metrics):
        metric = metric_named(name)
        empty = MetricSums(unit=metric.unit, higher_is_better=metric.higher_is_better)
        totals = {c: [_total(columns[c], own) for own in places] for c in metric.columns_in(columns)}
        if metric.pooled:
            found: dict[str, Any] = {"counts": {c: tuple(t for t, _ in values) for c, values in totals.items()}}
        else:
            found = {"sum": tuple(t for t, _ in totals[name]), "n": tuple(n for _, n in totals[name])}
        metrics[name] = empty.model_copy(update=found)
    return PersonaSums(
        personas=tuple(p.id for p in people),
        clusters=tuple(p.cluster for p in people) if any(p.cluster is not None for p in people) else None,
        replies=tuple(map(len, places)),
        metrics=metrics,
    )


def overall(sums: PersonaSums, name: str) -> float:
    """A metric's micro figure: mean over examples, or the pooled figure; nan if undefined."""
    entry = sums.metrics[name]
    if entry.counts is not None:
        metric = metric_named(name)
        assert metric.figure is not None
        return float(metric.figure(np.array([math.fsum(entry.counts[c]) for c in metric.columns_in(entry.counts)])))
    n = sum(entry.n)
    return math.fsum(entry.sum) / n if n else math.nan


def scale(unit: str) -> float:
    """Factor from stored values to shown ones: shares are shown in points."""
    return 100.0 if unit == "pt" else 1.0


def _total(values: Sequence[float], places: Sequence[int]) -> tuple[float, int]:
    defined = [values[i] for i in places if not math.isnan(values[i])]
    return math.fsum(defined), len(defined)
