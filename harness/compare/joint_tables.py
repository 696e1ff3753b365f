"""Stored runs by name -> one joint comparison with a baseline: rows, clusters, notes. Words for people: `stored_text`.

The guard and the families are `harness.compare.guard`, the figures `harness.statistics`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.compare.guard import ESTIMAND, Family, NotComparableError, comparison_rows, families, persona_scores
from harness.compare.selection import names_of, select
from harness.errors import HarnessError, did_you_mean
from harness.runs import StoredRun
from harness.scoring import scale
from harness.statistics import ComparisonRow, Estimand, ScoreRow, Subgroups, row_json, subgroup_comparison


@dataclass(frozen=True)
class Joint:
    """Methods against one baseline, tested together. `clusters`: per row's name, where they were asked for."""

    metric: str
    estimand: Estimand
    baseline: Family
    own: ScoreRow
    methods: tuple[Family, ...]
    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]
    clusters: Mapping[str, Subgroups]

    def flags(self, place: int) -> list[str]:
        """Flags of the comparison, of the method's runs, and of unequal tuning."""
        found = list(self.rows[place].flags)
        for run in self.methods[place].runs:
            found += [str(flag) for flag in run.record.flags if str(flag) not in found]
        trials = [family.first.record.trials for family in (self.methods[place], self.baseline)]
        if None not in trials and trials[0] != trials[1]:
            found.append(f"tuned with {trials[0]} trials, the baseline with {trials[1]}")
        return found


def joint(
    runs: Sequence[StoredRun],
    baseline: str,
    names: Sequence[str],
    *,
    metric: str | None = None,
    estimand: Estimand = ESTIMAND,
    margin_pts: float | None = None,
    by_cluster: bool = False,
) -> Joint:
    """Compare the named families with the baseline's.

    margin_pts   of equivalence, in points (or in the metric's own unit where that is not pt)
    Raises       StoreError for a name that means nothing or several things, NotComparableError for unlike runs.
    """
    base = select(runs, baseline, metric)
    methods = [select(runs, name, metric) for name in names]
    seen = {base.first.id: baseline}
    for name, family in zip(names, methods, strict=True):
        if family.first.id in seen:
            raise HarnessError(f"'{name}' and '{seen[family.first.id]}' are the same run; name each one once")
        seen[family.first.id] = name
    if not methods:
        others = sorted({label for family in families(runs) for label in names_of(family)[-1:]} - {baseline})
        words = f"stored beside {baseline}: {', '.join(others)}" if others else f"nothing is stored beside {baseline}"
        raise HarnessError(f"nothing to compare: name the baseline and at least one more stored method; {words}")
    record = base.first.record
    metric = metric or record.metric
    if metric not in record.metrics:
        raise NotComparableError(f"{base.name} has no metric '{metric}'; {did_you_mean(metric, record.metrics)}")
    definition = record.metric_sums(metric)
    if margin_pts is not None and not 0 < margin_pts < float("inf"):
        raise HarnessError(f"--margin must be a positive number of points, not {margin_pts:g}")
    margin = None if margin_pts is None else margin_pts / scale(definition.unit)
    own, rows = comparison_rows(base, methods, metric, margin=margin, estimand=estimand)
    notes = []
    reference = record.reference
    if reference and metric == record.metric and reference.aggregation != estimand:
        kind = reference.aggregation
        notes.append(f"the published {reference.score:g} is a {kind} mean and is not tested under {estimand}")
    if definition.pooled:
        notes.append(f"{metric} is pooled over replies: jackknife over personas, micro and macro are the same")
    if margin is not None:
        notes.append("the margin was given in the command: equivalence is valid only if it was fixed before the scores")
    clusters = {}
    if by_cluster:
        labels = cluster_labels(base.first)
        for row, family in zip(rows, methods, strict=True):
            clusters[row.method] = _subgroups(base, family, metric, labels, estimand)
    return Joint(metric, estimand, base, own, tuple(methods), tuple(rows), tuple(notes), clusters)


def cluster_labels(run: StoredRun) -> dict[str, str]:
    """Persona -> cluster, as the run stored it. Raises HarnessError if the benchmark knows no clusters."""
    sums = run.record.sums
    if sums.clusters is None:
        raise HarnessError(f"{run.id} stores no clusters: its benchmark has none, or it was made before they were kept")
    return {p: "none" if c is None else str(c) for p, c in zip(sums.personas, sums.clusters, strict=True)}


def _subgroups(
    baseline: Family, method: Family, metric: str, labels: Mapping[str, str], estimand: Estimand
) -> Subgroups:
    base = persona_scores(baseline, metric)
    other = persona_scores(method, metric).restricted_to(base.personas)
    owners = [labels[p] for p in base.personas]
    found = subgroup_comparison(other.sums, base.sums, base.n, owners, estimand)
    sums = baseline.first.record.sums
    if not sums.metrics[metric].pooled:
        return found
    # A pooled metric has one value a persona; how many replies are behind it, the run knows.
    behind = dict(zip(sums.personas, sums.replies, strict=True))
    replies = {group: sum(behind[p] for p in base.personas if labels[p] == group) for group in owners}
    rows = tuple(dataclasses.replace(row, n_replies=replies[row.group]) for row in found.rows)
    return dataclasses.replace(found, rows=rows)


def as_json(found: Joint) -> dict[str, Any]:
    """The comparison as plain data; differences in points, or in the metric's unit where that is not pt."""
    return {
        "metric": found.metric,
        "unit": found.own.unit,
        "higher_is_better": found.own.higher_is_better,
        "estimand": found.estimand,
        "n_personas": found.own.n_personas,
        "n_replies": found.baseline.first.record.n_replies,
        "notes": list(found.notes),
        "baseline": _family_json(found.baseline, found.own),
        "methods": [_method_json(found, place) for place in range(len(found.rows))],
    }


def _family_json(family: Family, row: ScoreRow) -> dict[str, Any]:
    return {"method": row.method, "runs": [run.id for run in family.runs], **row_json(row)}


def _method_json(found: Joint, place: int) -> dict[str, Any]:
    row = found.rows[place]
    entry = _family_json(found.methods[place], row)
    entry |= {
        "flags": found.flags(place),
        "comparison": entry["comparison"] | {"n_replies": found.baseline.first.record.n_replies},
    }
    if row.method in found.clusters:
        entry["clusters"] = _clusters_json(found.clusters[row.method], scale(row.unit))
    return entry


def _clusters_json(groups: Subgroups, factor: float) -> dict[str, Any]:
    rows = [
        {
            "cluster": g.group,
            "n_personas": g.n_personas,
            "n_replies": g.n_replies,
            "delta_pts": g.delta * factor,
            "se": None if g.se is None else g.se * factor,
            "sim_ci": None if g.ci is None else [bound * factor for bound in g.ci],
            "p_adj": g.p_adj,
        }
        for g in groups.rows
    ]
    return {"heterogeneity_p": groups.heterogeneity_p, "how_to_read": groups.sentence, "rows": rows}
