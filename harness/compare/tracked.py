"""A stored run as an experiment tracker takes it: parameters, words, figures, curves. `runs.trackers` sends it."""

from __future__ import annotations

import contextlib
import math

from harness.compare.guard import Family, NotComparableError, comparison_rows
from harness.config import flat
from harness.runs import Cost, RunRecord, StoredRun, Tracked, Value
from harness.scoring import scale
from harness.statistics import ComparisonRow

CURVES = {  # what it is called there -> field of Learning
    "learning/validation_loss": "mean",
    "learning/validation_loss_p10": "low",
    "learning/validation_loss_p90": "high",
    "learning/adapters_in_training": "training",
}


def tracked(run: StoredRun, row: ComparisonRow | None = None) -> Tracked:
    """What is known of a run, complete or not.

    row   its method against the baseline, where that is known; over several seeds it is of all of them
    Raises StoreError for a file of the run that cannot be read.
    """
    record = run.record.without_places()
    tags = {
        "status": record.status,
        "method": record.row_name,
        "benchmark": record.benchmark.name,
        "backbone": record.config.backbone,
        "flags": "; ".join(map(str, record.flags)),
    }
    figures: dict[str, float | None] = {}
    if run.complete:
        figures |= _scores(run) | _cost(record.cost)
    if row is not None:
        figures |= _comparison(row)
        tags |= {
            "baseline": row.baseline,
            "compared seeds": ", ".join(map(str, row.seeds)),
            "verdict": row.verdict,
            "verdict kind": row.verdict_kind,
            "comparison flags": ", ".join(row.flags),
        }
    known = {name: float(value) for name, value in figures.items() if value is not None and math.isfinite(value)}
    return Tracked(record.id, record.created, _params(record), tags, known, _curves(run))


def _params(record: RunRecord) -> dict[str, Value]:
    """The settings by their names; options behind "method.", "benchmark." and "protocol.". What is None is left out."""
    parts = {
        "": record.config.model_dump(mode="json"), "method.": record.method_options,
        "benchmark.": record.benchmark.options, "protocol.": record.protocol, "hash.": record.hashes,
    }  # fmt: skip
    found: dict[str, Value] = {}
    for path, values in parts.items():
        for name, value in flat(values, path):
            if isinstance(value, list | tuple):
                found[name] = ", ".join(map(str, value))
            elif value is not None:
                found[name] = value
    return found


def _scores(run: StoredRun) -> dict[str, float | None]:
    """Every metric as it is shown, with its standard error where it has one; of held-out personas apart."""
    found: dict[str, float | None] = {}
    record = run.record
    for metric in record.metrics:
        value, factor = record.scores.get(metric), scale(record.metric_sums(metric).unit)
        found[f"score/{metric}"] = None if value is None else value * factor
        with contextlib.suppress(NotComparableError):  # it is undefined for all replies
            found[f"score/{metric}_se"] = comparison_rows(Family(run.id, (run,)), [], metric)[0].se_micro_pts
        if record.unseen and (unseen := record.unseen.scores.get(metric)) is not None:
            found[f"score_unseen/{metric}"] = unseen * factor
    return found


def _cost(cost: Cost | None) -> dict[str, float | None]:
    if cost is None:
        return {}
    own = {f"cost/{name}": value for name, value in cost.model_dump(exclude={"stands_on"}).items()}
    below = cost.stands_on.model_dump(exclude={"methods"}) if cost.stands_on else {}
    return own | {f"cost/below_{name}": value for name, value in below.items()}


def _comparison(row: ComparisonRow) -> dict[str, float | None]:
    low, high = row.ci95_pts or (None, None)
    sim_low, sim_high = row.sim_ci_pts or (None, None)
    values = {
        "difference": row.delta_pts, "difference_se": row.se_pts, "ci95_low": low, "ci95_high": high,
        "simultaneous_low": sim_low, "simultaneous_high": sim_high, "p": row.p_raw, "p_adjusted": row.p_adj,
        "share_improved": row.share_improved,
    }  # fmt: skip
    return {f"comparison/{name}": value for name, value in values.items()}


def _curves(run: StoredRun) -> dict[int, dict[str, float]]:
    learning = run.learning()
    if learning is None:
        return {}
    values = learning.model_dump()
    found = {
        epoch: {name: float(values[field][place]) for name, field in CURVES.items()}
        for place, epoch in enumerate(learning.epochs)
    }
    for epoch, loss in enumerate(learning.train_loss, 1):
        found[epoch]["learning/train_loss"] = loss
    return found
