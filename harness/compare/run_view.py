"""A stored run read closely: its personas and clusters, and two runs example by example. Nothing here is a verdict.

Per-persona figures are shrunken estimates with intervals wherever the replies allow it: with few replies a persona's
plain mean is mostly noise. Words for people are `stored_text`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.compare.guard import Family, NotComparableError, check_comparable, persona_scores
from harness.errors import HarnessError, StoreError, did_you_mean
from harness.runs import Replies, StoredRun
from harness.scoring import scale
from harness.statistics import mean_and_se, sampling_variances, shrunken_estimates, t_interval

FEWEST = 6  # personas: fewer are described, without intervals, as everywhere


@dataclass(frozen=True, slots=True)
class PersonaRow:
    """One persona, in shown units. estimate, low and high are None where noise could not be told from spread."""

    persona: str
    cluster: str | None
    n: int
    mean: float
    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster's mean over replies, in shown units; se and ci95 are None below six personas."""

    cluster: str
    n_personas: int
    n_replies: int
    mean: float
    se: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class View:
    """A run's personas (best first) and clusters under one metric.

    spread  sd between personas once reply noise is taken out; noise: sd of a persona's mean from replies alone.
            Both None without estimates. notes: how to read the rows.
    """

    metric: str
    unit: str
    personas: tuple[PersonaRow, ...]
    clusters: tuple[ClusterRow, ...]
    spread: float | None
    noise: float | None
    notes: tuple[str, ...]


def view(run: StoredRun, metric: str | None = None) -> View:
    """Raises StoreError for an unfinished run, HarnessError for a metric that is no mean over replies."""
    _check(run)
    metric = _plain_metric(run, metric)
    entry = run.record.metric_sums(metric)
    unit = entry.unit
    factor = scale(unit)
    scores = persona_scores(Family(run.id, (run,)), metric)
    sums = run.record.sums
    labels: dict[str, str | None] = dict.fromkeys(scores.personas)
    if sums.clusters:
        labels = {p: None if c is None else str(c) for p, c in zip(sums.personas, sums.clusters, strict=True)}
    means = scores.sums[0] / scores.n
    shrunk, noise, notes = _shrunken(run, metric, scores.personas)
    rows = []
    for i, persona in enumerate(scores.personas):
        estimate: tuple[float | None, ...] = (None, None, None)
        if shrunk is not None:
            estimate = tuple(float(x[i]) * factor for x in (shrunk.estimates, shrunk.low, shrunk.high))
        rows.append(PersonaRow(persona, labels[persona], int(scores.n[i]), float(means[i]) * factor, *estimate))
    up = 1 if entry.higher_is_better else -1
    rows.sort(key=lambda row: (-up * (row.mean if row.estimate is None else row.estimate), row.persona))
    clusters = _clusters(labels, scores.personas, means, scores.n, factor) if any(labels.values()) else ()
    if not clusters:
        notes.append("no clusters are stored with this run")
    spread = None if shrunk is None else math.sqrt(shrunk.tau2) * factor
    return View(metric, unit, tuple(rows), clusters, spread, None if noise is None else noise * factor, tuple(notes))


def view_if_any(run: StoredRun, metric: str | None = None) -> View | None:
    """The same; None for an unfinished run, and where no metric is asked for and none is a mean over replies."""
    sums = run.record.metric_sums
    if not run.complete or (metric is None and all(sums(name).pooled for name in run.record.metrics)):
        return None
    return view(run, metric)


def _shrunken(run: StoredRun, metric: str, personas: Sequence[str]) -> tuple[Any, float | None, list[str]]:
    if len(personas) < FEWEST:
        return None, None, [f"{len(personas)} personas: plain means, too few to tell spread from noise"]
    replies = run.replies()
    if replies is None:
        return None, None, ["no scores per reply are stored: plain means, with reply noise and without interval"]
    place = {persona: i for i, persona in enumerate(personas)}
    owner = np.array([place.get(persona, -1) for persona in replies.column("persona")])
    values = replies.scores(metric)
    known = ~np.isnan(values) & (owner >= 0)  # held-out personas have no sums here
    try:
        means, variances, _ = sampling_variances(values[known], owner[known], replies.dialogues[known])
        if not (variances > 0).all():
            return None, None, ["all replies of a persona score the same: there is no noise to remove"]
        shrunk = shrunken_estimates(means, variances)
    except HarnessError as error:
        return None, None, [f"plain means: {error}"]
    notes = ["estimates are shrunken towards the mean; intervals are 95 %, each for one persona alone"]
    if shrunk.tau2 == 0:
        notes = ["no spread between personas beyond reply noise: no persona can be called better or worse"]
    return shrunk, float(np.sqrt(variances.mean())), notes


def _clusters(
    labels: Mapping[str, str | None], personas: Sequence[str], means: np.ndarray, n: np.ndarray, factor: float
) -> tuple[ClusterRow, ...]:
    names = {str(labels[p]) if labels[p] is not None else "none" for p in personas}
    owner = np.array([str(labels[p]) if labels[p] is not None else "none" for p in personas])
    rows = []
    for name in sorted(names, key=lambda x: (not x.isdigit(), int(x) if x.isdigit() else 0, x)):
        inside = owner == name
        mean, se = (float(x) * factor for x in mean_and_se(means[inside], n[inside]))
        size = int(inside.sum())
        enough = size >= FEWEST
        ci = t_interval(mean, se, size - 1) if enough else None
        rows.append(ClusterRow(name, size, int(n[inside].sum()), mean, se if enough else None, ci))
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class Sample:
    """One reply, what was asked and what the person really got; None where the run keeps no texts. Score as shown."""

    id: str
    persona: str
    prompt: str | None
    reference: str | None
    reply: str
    score: float | None


def samples(run: StoredRun, count: int, metric: str) -> list[Sample]:
    """Replies spread evenly over the run: the first ones alone would all be one persona's."""
    replies = run.replies() if count > 0 else None
    if replies is None:
        return []
    known = [place for place, reply in enumerate(replies.column("reply")) if reply is not None]
    picked = [known[place] for place in evenly(len(known), count)]
    scores = replies.scores(metric) * scale(run.record.metric_sums(metric).unit)
    return [
        Sample(row.id, row.persona, row.prompt, row.reference, row.reply or "", _known(scores[place]))
        for place, row in zip(picked, replies.rows(picked), strict=True)
    ]


def evenly(size: int, count: int) -> list[int]:
    """At most `count` of so many places, evenly spread, the first and the last included."""
    count = min(count, size)
    return [round(i * (size - 1) / max(count - 1, 1)) for i in range(count)]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


@dataclass(frozen=True, slots=True)
class Difference:
    """One example in two runs; scores and delta (second minus first) in shown units. Texts: None if not stored."""

    id: str
    persona: str
    scores: tuple[float, float]
    delta: float
    replies: tuple[str | None, str | None]
    prompt: str | None
    reference: str | None


@dataclass(frozen=True, slots=True)
class Diff:
    """Two runs example by example, largest difference first. same_replies counts equal texts.

    n          examples that are compared;  undefined: those left out, where the metric has no value in one of the runs
    """

    metric: str
    unit: str
    runs: tuple[str, str]
    n: int
    higher: int
    lower: int
    equal: int
    undefined: int
    same_replies: int | None
    mean_delta: float
    examples: tuple[Difference, ...]


def diff(a: StoredRun, b: StoredRun, metric: str | None = None) -> Diff:
    """Raises NotComparableError for unlike runs, StoreError where one stores no scores per reply."""
    for run in (a, b):
        _check(run)
    check_comparable(a, b)
    metric = _plain_metric(a, metric)
    _plain_metric(b, metric)
    ours, theirs = _replies(a), _replies(b)
    places = theirs.places
    if unlike := sorted(ours.places.keys() ^ places.keys()):
        has, lacks = (a, b) if unlike[0] not in places else (b, a)
        raise NotComparableError(f"{lacks.id} has no example '{unlike[0]}', which {has.id} has")
    at = [places[name] for name in ours.column("id")]
    unit = a.record.metric_sums(metric).unit
    pairs = np.stack([ours.scores(metric), theirs.scores(metric)[at]], 1) * scale(unit)  # [N, 2]
    defined = np.flatnonzero(~np.isnan(pairs).any(axis=1))
    if not len(defined):
        raise HarnessError(f"'{metric}' is undefined for every example of these runs; choose another --metric")
    found = [
        Difference(
            own.id, own.persona, (float(first), float(second)), float(second - first), (own.reply, other.reply),
            own.prompt or other.prompt, own.reference or other.reference,
        )
        for (first, second), own, other in zip(
            pairs[defined], ours.rows(defined), theirs.rows([at[i] for i in defined]), strict=True
        )
    ]  # fmt: skip
    found.sort(key=lambda x: (-abs(x.delta), x.id))
    with_texts = [x for x in found if None not in x.replies]
    return Diff(
        metric,
        unit,
        (a.id, b.id),
        len(found),
        sum(x.delta > 0 for x in found),
        sum(x.delta < 0 for x in found),
        sum(x.delta == 0 for x in found),
        len(pairs) - len(found),
        sum(x.replies[0] == x.replies[1] for x in with_texts) if with_texts else None,
        math.fsum(x.delta for x in found) / len(found),
        tuple(found),
    )


def _replies(run: StoredRun) -> Replies:
    if (found := run.replies()) is None:
        raise StoreError(f"{run.id} stores no scores per reply (only sums per persona), so there is nothing to diff")
    return found


def _check(run: StoredRun) -> None:
    if not run.complete:
        why = run.record.error or "not finished; run the same command again"
        raise StoreError(f"{run.id} is {run.record.status}: {why}")


def _plain_metric(run: StoredRun, metric: str | None) -> str:
    """The metric, by default the first that has a value per reply. Raises HarnessError for another one."""
    plain = [m for m in run.record.metrics if not run.record.metric_sums(m).pooled]
    if not plain:
        raise HarnessError(f"{run.id} has no metric with a value per reply")
    name = metric or plain[0]
    if name in run.record.metrics and name not in plain:
        raise HarnessError(f"'{name}' is counted over all replies and has no value per reply; use {', '.join(plain)}")
    if name not in plain:
        raise HarnessError(f"{run.id} has no metric '{name}'; {did_you_mean(name, plain)}")
    return name
