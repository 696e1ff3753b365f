"""Metrics by name: those of the core, defined here, and those of plugins. All have one signature, a `harness.Metric`.

No statistics (`harness.statistics`) and no running of models. No torch at import time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.contract import Columns, Listing, Metric, MetricBatch, extensions_of, list_extensions, of_the_core
from harness.errors import ConfigError, PluginError, did_you_mean
from harness.statistics import f1
from harness.store import plugin_hash

# Of a value: sums, squares and their sums over all examples stay finite.
LARGEST = 1e100


def metric_named(name: str) -> Metric:
    """The metric of that name; ConfigError with the nearest known name otherwise."""
    if name in CORE:
        return CORE[name]
    found = {extension.item.name: extension.item for extension in extensions_of("metric")}
    if name not in found:
        raise ConfigError(f"unknown metric '{name}': {did_you_mean(name, [*CORE, *found, *_groups()])}{_unusable()}")
    return found[name]


def expand_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """Metric names with groups (such as "actions") replaced by their members, each once, all known."""
    found: list[str] = []
    for name in names:
        for member in [name] if name in CORE else _groups().get(name, [name]):
            metric_named(member)
            if member not in found:
                found.append(member)
    return tuple(found)


def list_metrics() -> list[Listing]:
    """A line for each metric, and for each plugin of metrics that cannot be used."""
    return [
        *(of_the_core("metric", metric, __file__).listing() for metric in CORE.values()),
        *list_extensions("metric"),
    ]


def metric_sources(names: Iterable[str]) -> list[str]:
    """Hashes of the code of the plugins that bring these metrics, with all that it imports from its own package.

    The core's own metrics are hashed with the rest of the core.
    """
    sources = {extension.source for extension in extensions_of("metric") if extension.item.name in {*names} - {*CORE}}
    return sorted(map(plugin_hash, sources))


def score_columns(names: Iterable[str], batch: MetricBatch) -> Columns:
    """All columns of several metrics; metrics that share a computation share its result.

    Raises PluginError for a metric that returns other columns than it names, or not one value an example.
    """
    columns: Columns = {}
    computed: dict[object, Columns] = {}
    owner: dict[str, object] = {}
    for name in expand_metrics(names):
        metric = metric_named(name)
        if metric.compute not in computed:
            computed[metric.compute] = metric.compute(batch)
            if not isinstance(computed[metric.compute], Mapping):
                got = type(computed[metric.compute]).__name__
                raise PluginError(f"metric '{name}' returned {got}; it must return column -> numbers")
        for column in metric.columns_in(computed[metric.compute]):
            values = _numbers(name, column, computed[metric.compute].get(column), len(batch.examples))
            if name not in CORE and (wrong := [x for x in values if abs(x) > LARGEST]):  # nan is not larger
                raise PluginError(
                    f"metric '{name}': {wrong[0]:g} in column '{column}'; a value must lie within "
                    f"{LARGEST:g}, or be nan where it is undefined"
                )
            if owner.setdefault(column, metric.compute) != metric.compute:
                raise PluginError(f"metric '{name}': another metric has a column '{column}' too; name it otherwise")
            columns[column] = values
    return columns


def _numbers(name: str, column: str, values: Any, count: int) -> list[float]:
    """The values of a metric's column. Raises PluginError where they are not so many numbers."""
    try:
        found = [] if values is None else [float(value) for value in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise PluginError(f"metric '{name}': column '{column}' holds what is no number ({error})") from error
    if len(found) != count:
        got = "nothing" if values is None else f"{len(found)} values"
        raise PluginError(f"metric '{name}': {got} for column '{column}', wanted {count} values")
    return found


def value(name: str, columns: Mapping[str, Sequence[float]]) -> float:
    """The figure over all given examples: mean of the defined values, or the pooled counts' figure."""
    metric = metric_named(name)
    if metric.figure is not None:
        sums = np.array([np.sum(np.asarray(columns[column], dtype=float)) for column in metric.columns_in(columns)])
        return float(metric.figure(sums))
    values = np.asarray(columns[metric.name], dtype=float)
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _groups() -> dict[str, list[str]]:
    """Group -> its metrics, in the order of their plugin."""
    found: dict[str, list[str]] = {}
    for metric in (extension.item for extension in extensions_of("metric")):
        if metric.group:
            found.setdefault(metric.group, []).append(metric.name)
    return found


def _unusable() -> str:
    """The end of a message on an unknown metric: plugins that could not be loaded may have brought it."""
    broken = [line.error for line in list_extensions("metric") if line.error]
    if broken:
        return "\n" + "\n".join(broken)
    return ". A plugin that brings it must be installed, or installed again where its entry points have changed"


def normalised(text: str) -> str:
    """Runs of white space become one space, none at the ends; nothing else changes (case counts)."""
    return " ".join(text.split())


def exact_match(reply: str, reference: str) -> float:
    """1.0 if the texts are equal up to white space, else 0.0."""
    return float(normalised(reply) == normalised(reference))


def number(text: str) -> float | None:
    """The number that the whole text is, or None: "4", " 4.0 "; not "4 stars", nor one that no sum could hold."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None


def absolute_error(reply: str, reference: str, choices: Sequence[str] = ()) -> float:
    """Absolute difference of two numbers, in their own unit.

    A reply that is no number is as wrong as the worst of `choices`; without choices it is undefined (nan),
    and so is everything where the reference is no number.
    """
    wanted, got = number(reference), number(reply)
    if wanted is None:
        return math.nan
    if got is not None:
        return abs(got - wanted)
    errors = [abs(value - wanted) for value in map(number, choices) if value is not None]
    return max(errors, default=math.nan)


def most_probable(log_probs: Sequence[float], choices: Sequence[str]) -> str:
    """The choice with the highest log probability; the first of equals."""
    if len(log_probs) != len(choices):
        raise ValueError(f"{len(log_probs)} probabilities for {len(choices)} choices")
    return choices[max(range(len(choices)), key=lambda i: log_probs[i])]


def _similarity(batch: MetricBatch) -> Columns:
    from harness.scoring.similarity import similarity

    if batch.embedder is None:
        raise ValueError("similarity needs an embedder")
    return {"similarity": similarity(batch.embedder, batch.replies, batch.references)}


def _exact_match(batch: MetricBatch) -> Columns:
    return {"exact_match": [exact_match(*pair) for pair in batch.pairs()]}


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rougeL"], use_stemmer=False)


def _rouge(batch: MetricBatch) -> Columns:
    """F-measures of Lin (2004), as the package rouge-score computes them, without stemming."""
    found = [_rouge_scorer().score(reference, reply) for reply, reference in batch.pairs()]
    return {
        "rouge_1": [score["rouge1"].fmeasure for score in found],
        "rouge_l": [score["rougeL"].fmeasure for score in found],
    }


def _labels(batch: MetricBatch) -> list[tuple[str, str]]:
    """(most probable choice, or the reply where there are no weights, reference) of each example."""
    choices, replies = batch.dataset.protocol.choices, list(batch.replies)
    if batch.choice_log_probs is not None:
        replies = [most_probable(row.tolist(), choices) for row in batch.choice_log_probs]
    return list(zip(replies, batch.references, strict=True))


def _accuracy(batch: MetricBatch) -> Columns:
    return {"accuracy": [exact_match(*pair) for pair in _labels(batch)]}


def _class_counts(batch: MetricBatch) -> Columns:
    """Of each choice: true positives, false positives, false negatives."""
    pairs = [(normalised(got), normalised(wanted)) for got, wanted in _labels(batch)]
    columns: Columns = {}
    for choice in map(normalised, batch.dataset.protocol.choices):
        for name, hit in (("tp", (True, True)), ("fp", (True, False)), ("fn", (False, True))):
            columns[f"macro_f1:{choice}:{name}"] = [float((g == choice, w == choice) == hit) for g, w in pairs]
    return columns


def macro_f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean F1 of the choices that were given or wanted; counts [..., 3 C] -> [...], nan where there is none."""
    each = f1(counts.reshape(*counts.shape[:-1], -1, 3))
    known = ~np.isnan(each)
    number = known.sum(axis=-1)
    return np.where(number > 0, np.where(known, each, 0.0).sum(axis=-1) / np.maximum(number, 1), np.nan)


def _mae(batch: MetricBatch) -> Columns:
    choices = batch.dataset.protocol.choices
    return {"mae": [absolute_error(reply, reference, choices) for reply, reference in batch.pairs()]}


def _squares(batch: MetricBatch) -> Columns:
    errors = _mae(batch)["mae"]
    return {"rmse:squares": [error**2 for error in errors], "rmse:n": [float(not math.isnan(e)) for e in errors]}


def rmse(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root of the mean squared error from [..., 2]: summed squares, number of errors."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(sums[..., 0] / sums[..., 1])


def _nll(batch: MetricBatch) -> Columns:
    if (pairs := batch.nll) is None:
        return {"nll": [math.nan] * len(batch.examples)}
    return {"nll": [nats / tokens if tokens else math.nan for nats, tokens in pairs]}


_LIKELIHOOD = "the reference's negative log-likelihood per token"
_COSINE = "cosine of all-MiniLM-L6-v2 embeddings of reply and reference"
CORE: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("similarity", _COSINE, _similarity, needs=("embedder",)),
        Metric("exact_match", "reply equal to the reference up to white space", _exact_match),
        Metric("rouge_1", "ROUGE-1: F-measure of the words that reply and reference share", _rouge),
        Metric("rouge_l", "ROUGE-L: F-measure of their longest common subsequence of words", _rouge),
        Metric("accuracy", "most probable choice (or reply) equal to the reference", _accuracy),
        Metric("macro_f1", "F1 of each choice, averaged over the choices", _class_counts, needs=("choices",),
               figure=macro_f1),
        Metric("mae", "absolute error of the reply, a number", _mae, unit="raw", higher_is_better=False),
        Metric("rmse", "root of the mean squared error of the reply, a number", _squares, unit="raw",
               higher_is_better=False, figure=rmse),
        Metric("nll", _LIKELIHOOD, _nll, unit="nats", higher_is_better=False, needs=("nll",)),
    )
}  # fmt: skip
