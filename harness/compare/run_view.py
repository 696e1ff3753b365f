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
from harness.runs import StoredRun
from harness.scoring import metric_named, scale
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
    unit = metric_named(metric).unit
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
    up = 1 if metric_named(metric).higher_is_better else -1
    rows.sort(key=lambda row: (-up * (row.mean if row.estimate is None else row.estimate), row.persona))
    clusters = _clusters(labels, scores.personas, means, scores.n, factor) if any(labels.values()) else ()
    if not clusters:
        notes.append("no clusters are stored with this run")
    spread = None if shrunk is None else math.sqrt(shrunk.tau2) * factor
    return View(metric, unit, tuple(rows), clusters, spread, None if noise is None else noise * factor, tuple(notes))


def _shrunken(run: StoredRun, metric: str, personas: Sequence[str]) -> tuple[Any, float | None, list[str]]:
    if len(personas) < FEWEST:
        return None, None, [f"{len(personas)} personas: plain means, too few to tell spread from noise"]
    if not (run.path / "scores.jsonl").is_file():
        return None, None, ["no scores per reply are stored: plain means, which hold reply noise and have no interval"]
    place = {persona: i for i, persona in enumerate(personas)}
    lines = [line for line in run.scores() if line.get(metric) is not None]
    values = np.array([line[metric] for line in lines], dtype=float)
    owner = np.array([place[line["persona"]] for line in lines])
    names: dict[tuple[str, str], int] = {}
    # Replies of one dialogue share its luck; an example id is `<dialogue id>#<turn>`.
    dialogues = [names.setdefault((line["persona"], line["id"].rpartition("#")[0] or line["id"]), len(names))
                 for line in lines]  # fmt: skip
    try:
        means, variances, _ = sampling_variances(values, owner, np.array(dialogues))
        if not (variances > 0).all():
            return None, None, ["all replies of a persona score the same: there is no noise to take out"]
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


def samples(run: StoredRun, count: int, metric: str) -> list[dict[str, Any]]:
    """Replies spread evenly over the run: the first ones alone would all be one persona's."""
    if count <= 0 or not (run.path / "scores.jsonl").is_file():
        return []
    lines = [line for line in run.scores() if line.get("reply") is not None]
    count = min(count, len(lines))
    picked = sorted({round(i * (len(lines) - 1) / max(count - 1, 1)) for i in range(count)})
    factor = scale(metric_named(metric).unit)
    return [
        {"id": x["id"], "persona": x["persona"], "score": None if x.get(metric) is None else x[metric] * factor,
         "user": x.get("user"), "reply": x["reply"]}
        for x in (lines[i] for i in picked)
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """One example in two runs; scores and delta (second minus first) in shown units. user: if the run stored it."""

    id: str
    persona: str
    scores: tuple[float, float]
    delta: float
    replies: tuple[str | None, str | None]
    user: str | None


@dataclass(frozen=True, slots=True)
class Diff:
    """Two runs example by example, largest difference first. same_replies counts equal texts."""

    metric: str
    unit: str
    runs: tuple[str, str]
    n: int
    higher: int
    lower: int
    equal: int
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
    for run in (a, b):
        if not (run.path / "scores.jsonl").is_file():
            raise StoreError(
                f"{run.id} stores no scores per reply (only sums per persona), so there is nothing to diff"
            )
    unit = metric_named(metric).unit
    factor = scale(unit)
    others = {line["id"]: line for line in b.scores()}
    found, undefined = [], 0
    for line in a.scores():
        other = others.pop(line["id"], None)
        if other is None:
            raise NotComparableError(f"{b.id} has no example '{line['id']}', which {a.id} has")
        if line.get(metric) is None or other.get(metric) is None:
            undefined += 1
            continue
        pair = (float(line[metric]) * factor, float(other[metric]) * factor)
        replies = (line.get("reply"), other.get("reply"))
        user = line.get("user") or other.get("user")
        found.append(Difference(line["id"], line["persona"], pair, pair[1] - pair[0], replies, user))
    if others:
        raise NotComparableError(f"{a.id} has no example '{min(others)}', which {b.id} has")
    if not found:
        raise HarnessError(f"'{metric}' is undefined for every example of these runs; choose another --metric")
    found.sort(key=lambda x: (-abs(x.delta), x.id))
    pairs = [x for x in found if None not in x.replies]
    return Diff(
        metric,
        unit,
        (a.id, b.id),
        len(found),
        sum(x.delta > 0 for x in found),
        sum(x.delta < 0 for x in found),
        sum(x.delta == 0 for x in found),
        sum(x.replies[0] == x.replies[1] for x in pairs) if pairs else None,
        math.fsum(x.delta for x in found) / len(found),
        tuple(found),
    )


def _check(run: StoredRun) -> None:
    if not run.complete:
        why = run.record.error or "not finished; run the same command again"
        raise StoreError(f"{run.id} is {run.record.status}: {why}")


def _plain_metric(run: StoredRun, metric: str | None) -> str:
    """The metric, by default the first that has a value per reply. Raises HarnessError for another one."""
    plain = [m for m in run.record.metrics if not metric_named(m).pooled]
    if not plain:
        raise HarnessError(f"{run.id} has no metric with a value per reply")
    name = metric or plain[0]
    if name in run.record.metrics and name not in plain:
        raise HarnessError(f"'{name}' is counted over all replies and has no value per reply; use {', '.join(plain)}")
    if name not in plain:
        raise HarnessError(f"{run.id} has no metric '{name}'; {did_you_mean(name, plain)}")
    return name
