"""The registry of metrics: name -> `Metric`, all with one signature, `compute(batch) -> columns of numbers`.

What is measured and in which unit; no statistics (`harness.statistics`) and no running of models. No torch at
import time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from harness.contract import Dataset, Example
from harness.errors import ConfigError, did_you_mean
from harness.scoring import actions, text
from harness.statistics import f1, precision, recall

if TYPE_CHECKING:
    from harness.scoring.similarity import Embedder

Need = Literal["embedder", "nll", "choices", "schema"]
Unit = Literal["pt", "raw", "nats"]
Columns = dict[str, list[float]]
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # counts [..., C] -> values [...]


@dataclass(frozen=True)
class MetricBatch:
    """Replies to score, with all that any metric may need. N examples.

    examples          prompts with their references, N
    replies           one per example, N
    nll               the reference's (summed nats, number of tokens) per example, or None where the method
                      has no likelihood
    choice_log_probs  [N, C] log probabilities of `dataset.protocol.choices`, or None
    embedder          sentence embeddings, or None if no metric asks for them
    """

    dataset: Dataset
    examples: Sequence[Example]
    replies: Sequence[str]
    nll: Sequence[tuple[float, int]] | None = None
    choice_log_probs: NDArray[np.float64] | None = None
    embedder: Embedder | None = None

    def __post_init__(self) -> None:
        sizes = {"replies": len(self.replies)}
        if self.nll is not None:
            sizes["nll"] = len(self.nll)
        if self.choice_log_probs is not None:
            sizes["choice_log_probs"] = len(self.choice_log_probs)
        wrong = {name: size for name, size in sizes.items() if size != len(self.examples)}
        if wrong:
            raise ValueError(f"{len(self.examples)} examples, but {wrong}")

    @property
    def references(self) -> list[str]:
        return [example.reference for example in self.examples]


@dataclass(frozen=True)
class Metric:
    """A metric by name.

    unit              "pt": a share in 0..1, shown x 100; "nats"; "raw": in the unit of the data
    higher_is_better  direction of improvement
    pooled            False: one value per example, averaged. True: several counts per example, to be summed
                      over examples (of a persona, of the whole run) before `figure` makes them one number
    summary           one line for the tables' legend
    columns           names of the columns that `compute` returns; a plain metric's only column is its name
    compute           MetricBatch -> column -> N floats; nan where a plain metric is undefined for an example
    figure            summed counts [..., C] in the order of `columns` -> values [...], nan where undefined
    needs             what the batch must hold for it
    """

    name: str
    unit: Unit
    higher_is_better: bool
    pooled: bool
    summary: str
    columns: tuple[str, ...]
    compute: Callable[[MetricBatch], Columns]
    figure: Statistic | None = None
    needs: tuple[Need, ...] = ()


def metric_named(name: str) -> Metric:
    """The metric of that name; ConfigError with the nearest known name otherwise."""
    try:
        return METRICS[name]
    except KeyError:
        raise ConfigError(f"unknown metric '{name}': {did_you_mean(name, [*METRICS, *GROUPS])}") from None


def expand_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """Metric names with groups (such as "actions") replaced by their members, each once, all known."""
    found: list[str] = []
    for name in names:
        for member in GROUPS.get(name, (name,)):
            metric_named(member)
            if member not in found:
                found.append(member)
    return tuple(found)


def score_columns(names: Iterable[str], batch: MetricBatch) -> Columns:
    """All columns of several metrics; metrics that share a computation share its result."""
    columns: Columns = {}
    done: set[Callable[[MetricBatch], Columns]] = set()
    for name in expand_metrics(names):
        compute = metric_named(name).compute
        if compute not in done:
            done.add(compute)
            columns.update(compute(batch))
    return columns


def value(name: str, columns: Mapping[str, Sequence[float]]) -> float:
    """The figure over all given examples: mean of the defined values, or the pooled counts' figure."""
    metric = metric_named(name)
    if metric.figure is not None:
        sums = np.array([np.sum(np.asarray(columns[column], dtype=float)) for column in metric.columns])
        return float(metric.figure(sums))
    values = np.asarray(columns[metric.name], dtype=float)
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _similarity(batch: MetricBatch) -> Columns:
    from harness.scoring.similarity import similarity

    if batch.embedder is None:
        raise ValueError("similarity needs an embedder")
    return {"similarity": similarity(batch.embedder, batch.replies, batch.references)}


def _exact_match(batch: MetricBatch) -> Columns:
    return {"exact_match": [text.exact_match(*pair) for pair in _pairs(batch)]}


def _settings_exact(batch: MetricBatch) -> Columns:
    values = []
    for reply, reference in _pairs(batch):
        # Which replies count must not depend on the method: defined where the reference makes a setting.
        wanted = dict(actions.parse(reference, batch.dataset.schema).values)
        got = dict(actions.parse(reply, batch.dataset.schema).values)
        values.append(float(got == wanted) if wanted else math.nan)
    return {"settings_exact": values}


def _actions(batch: MetricBatch) -> Columns:
    columns: Columns = {column: [] for kind in actions.KINDS for column in _count_columns(kind)}
    for reply, reference in _pairs(batch):
        for kind, counts in actions.count_actions(reply, reference, batch.dataset.schema).items():
            for column, count in zip(_count_columns(kind), counts, strict=True):
                columns[column].append(float(count))
    return columns


def _accuracy(batch: MetricBatch) -> Columns:
    choices, replies = batch.dataset.protocol.choices, list(batch.replies)
    if batch.choice_log_probs is not None:
        replies = [text.most_probable(row.tolist(), choices) for row in batch.choice_log_probs]
    pairs = zip(replies, batch.references, strict=True)
    return {"accuracy": [text.exact_match(reply, reference) for reply, reference in pairs]}


def _mae(batch: MetricBatch) -> Columns:
    choices = batch.dataset.protocol.choices
    return {"mae": [text.absolute_error(reply, reference, choices) for reply, reference in _pairs(batch)]}


def _nll(batch: MetricBatch) -> Columns:
    if batch.nll is None:
        return {"nll": [math.nan] * len(batch.examples)}
    return {"nll": [nats / tokens if tokens else math.nan for nats, tokens in batch.nll]}


def _pairs(batch: MetricBatch) -> Iterable[tuple[str, str]]:
    return zip(batch.replies, batch.references, strict=True)


def _count_columns(kind: str) -> tuple[str, str, str]:
    return f"{kind}_tp", f"{kind}_fp", f"{kind}_fn"


def _plain(
    name: str,
    unit: Unit,
    compute: Callable[[MetricBatch], Columns],
    summary: str,
    *,
    higher: bool = True,
    needs: tuple[Need, ...] = (),
) -> Metric:
    return Metric(name, unit, higher, False, summary, (name,), compute, None, needs)


_WHAT = {
    "device": "devices named",
    "parameter": "device parameters that are set, whatever to",
    "numeric": "numeric settings, the number exactly right",
    "categorical": "settings by word or yes/no, exactly right",
}
_FIGURES: dict[str, Statistic] = {"precision": precision, "recall": recall, "f1": f1}

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _plain(
            "similarity",
            "pt",
            _similarity,
            "cosine of all-MiniLM-L6-v2 embeddings of reply and reference",
            needs=("embedder",),
        ),
        _plain("exact_match", "pt", _exact_match, "reply equal to the reference up to white space"),
        _plain(
            "settings_exact",
            "pt",
            _settings_exact,
            "all device settings exactly as in the reference, of references that make any",
            needs=("schema",),
        ),
        _plain("accuracy", "pt", _accuracy, "most probable choice (or reply) equal to the reference"),
        _plain("mae", "raw", _mae, "absolute error of the reply, a number", higher=False),
        _plain(
            "nll",
            "nats",
            _nll,
            "the reference's negative log-likelihood per token",
            higher=False,
            needs=("nll",),
        ),
        *(
            Metric(
                f"{kind}_{figure}",
                "pt",
                True,
                True,
                f"{figure} of {_WHAT[kind]}; counts pooled",
                _count_columns(kind),
                _actions,
                statistic,
                ("schema",),
            )
            for kind in actions.KINDS
            for figure, statistic in _FIGURES.items()
        ),
    )
}
GROUPS: dict[str, tuple[str, ...]] = {"actions": tuple(f"{k}_{f}" for k in actions.KINDS for f in _FIGURES)}
