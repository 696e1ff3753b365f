"""The guard that refuses unlike runs, and stored runs -> rows of statistics. Formulas live in `harness.statistics`.

Two runs are alike when they answered the same prompts, were scored against the same references by the same metrics
and scorer, under the same protocol, on the same backbone. Anything else is reported with what exactly differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import HarnessError
from harness.records import ReferenceScore
from harness.statistics import ComparisonRow, PersonaScores, ScoreRow, compare, score_row
from harness.store import StoredRun, canonical_hash

ESTIMAND = "micro"  # the published reference is a mean over replies
GUARDED = {
    "protocol": "protocol (prompt, decoding, metrics)",
    "examples": "example sets",
    "split": "splits",
    "backbone": "backbones",
    "scorer": "scorers of the similarity metric",
}


class NotComparableError(HarnessError):
    """Runs that must not be paired; the message says what differs and how many replies each has."""


@dataclass(frozen=True)
class Family:
    """Runs of one configuration that differ in the training seed alone. `name` is what its row is called."""

    name: str
    runs: tuple[StoredRun, ...]

    @property
    def first(self) -> StoredRun:
        return self.runs[0]


def row_name(record: Mapping[str, Any]) -> str:
    """The method's name, with the control where the run is one."""
    control = record["config"].get("control")
    return f"{record['method']} (control: {control})" if control else str(record["method"])


def differences(a: StoredRun, b: StoredRun) -> list[str]:
    """What keeps two runs from being compared, in words; empty if nothing does."""
    found = []
    ours, theirs = a.record["hashes"], b.record["hashes"]
    for name, words in GUARDED.items():
        if ours.get(name) != theirs.get(name):
            found.append(f"{words} differ ({ours.get(name, 'none')[:8]} and {theirs.get(name, 'none')[:8]})")
    if ours.get("examples") != theirs.get("examples"):
        found.append(f"{row_name(a.record)} has {a.record['n_replies']} replies of {a.record['n_personas']} personas, ")
        found[-1] += f"{row_name(b.record)} {b.record['n_replies']} of {b.record['n_personas']}"
    return found


def check_comparable(a: StoredRun, b: StoredRun) -> None:
    """Raises NotComparableError with everything that differs."""
    for run in (a, b):
        if not run.complete:
            why = run.record.get("error", "not finished")
            raise NotComparableError(f"{run.id} is {run.record.get('status')}: {why}")
    if found := differences(a, b):
        raise NotComparableError(f"not comparable: {row_name(a.record)} and {row_name(b.record)}: " + "; ".join(found))


def families(runs: Sequence[StoredRun]) -> list[Family]:
    """Complete runs grouped by everything but the seed; seeds ascending."""
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        if run.complete:
            groups.setdefault(family_key(run.record), []).append(run)
    found = []
    for members in groups.values():
        members.sort(key=lambda run: (run.record["seed"], run.id))
        seeds = {run.record["seed"]: run for run in members}
        found.append(Family(row_name(members[0].record), tuple(seeds.values())))
    return sorted(found, key=lambda family: (family.name, family.first.id))


def family_key(record: Mapping[str, Any]) -> str:
    """Hash of everything that makes a method's row, the training seed left out."""
    return canonical_hash(
        [
            record["method"],
            record["plugin"],
            record["method_options"],
            record["config"].get("control"),
            record["hashes"],
        ]
    )


def world_key(record: Mapping[str, Any]) -> str:
    """Hash of what comparable runs have in common."""
    return canonical_hash([record["benchmark"]["name"], *(record["hashes"].get(name) for name in GUARDED)])


def persona_scores(family: Family, metric: str) -> PersonaScores:
    """Per-persona sums of a plain metric over the family's seeds, for personas where it is defined.

    Raises NotComparableError for a metric that was not scored or is pooled.
    """
    per_seed = [run.per_persona() for run in family.runs]
    entry = per_seed[0]["metrics"].get(metric)
    if entry is None or "sum" not in entry:
        known = [name for name, e in per_seed[0]["metrics"].items() if "sum" in e]
        has = ", ".join(known) or "none"
        raise NotComparableError(f"{family.name} has no per-reply metric '{metric}'; it has {has}")
    n = np.array(entry["n"])
    kept = n > 0
    personas = [p for p, keep in zip(per_seed[0]["personas"], kept, strict=True) if keep]
    sums = np.array([seed["metrics"][metric]["sum"] for seed in per_seed], dtype=float)[:, kept]
    return PersonaScores(tuple(personas), tuple(run.record["seed"] for run in family.runs), sums, n[kept])


def reference_of(record: Mapping[str, Any], metric: str) -> ReferenceScore | None:
    """The published score, if the run carries one for this metric."""
    reference = record.get("reference")
    return ReferenceScore(**reference) if reference and record["metrics"][0] == metric else None


def comparison_rows(
    baseline: Family, methods: Sequence[Family], metric: str | None = None, *, margin: float | None = None
) -> tuple[ScoreRow, list[ComparisonRow]]:
    """The baseline's own row and one row per method against it, jointly tested.

    Raises NotComparableError if any pair is unlike, naming all of them.
    """
    faults = []
    for family in methods:
        for run in family.runs:
            try:
                check_comparable(baseline.first, run)
            except NotComparableError as error:
                faults.append(str(error))
    if faults:
        raise NotComparableError("\n".join(faults))
    record = baseline.first.record
    metric = metric or str(record["metrics"][0])
    entry = baseline.first.per_persona()["metrics"][metric]
    reference = reference_of(record, metric)
    base = persona_scores(baseline, metric)
    own = score_row(
        baseline.name,
        base,
        ESTIMAND,
        reference,
        unit=entry["unit"],
        higher_is_better=entry["higher_is_better"],
    )
    if not methods:
        return own, []
    rows = compare(
        base,
        {_label(family, methods): persona_scores(family, metric) for family in methods},
        ESTIMAND,
        reference,
        margin,
        baseline_name=baseline.name,
        unit=entry["unit"],
        higher_is_better=entry["higher_is_better"],
    )
    return own, rows


def _label(family: Family, families: Sequence[Family]) -> str:
    """The family's name, with its first run's id where two rows would have the same one."""
    twins = [other for other in families if other.name == family.name]
    return family.name if len(twins) == 1 else f"{family.name} [{family.first.id.rsplit('-', 1)[-1]}]"
