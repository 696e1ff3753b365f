"""The guard that refuses unlike runs, and stored runs -> rows of statistics. Formulas live in `harness.statistics`.

Two runs are alike when they answered the same prompts, were scored against the same references by the same metrics
and scorer, under the same protocol, on the same backbone. Anything else is reported with what exactly differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.compare.naming import short_names
from harness.contract import ReferenceScore
from harness.errors import HarnessError
from harness.runs import RunHead, StillLearning, StoredRun
from harness.scoring import PersonaSums, scale
from harness.statistics import ComparisonRow, Estimand, PersonaScores, ScoreRow, compare, score_row
from harness.store import canonical_hash

NOT_TUNED_ALIKE, NOT_COMPUTED_ALIKE = "not-tuned-alike", "not-computed-alike"
BASELINE_STILL_LEARNING = "baseline-still-learning"
ESTIMAND: Estimand = "micro"  # the published reference is a mean over replies
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


def differences(a: StoredRun, b: StoredRun, *, detail: bool = False) -> list[str]:
    """What keeps two runs from being compared, in words; empty if nothing does.

    detail   also say how many replies both have, where both runs store their examples
    """
    found = []
    ours, theirs = a.head.hashes, b.head.hashes
    ours_is, theirs_is = _called(a, b)
    imported = [run for run in (a, b) if run.head.imported]
    if len(imported) == 1:
        words = "was imported: nothing is known of its prompts, so it is compared with imports of the same label only"
        return [f"{imported[0].id} {words}; {ours_is} has {_size(a)}, {theirs_is} {_size(b)}"]
    names = a.head.benchmark.name, b.head.benchmark.name
    if names[0] != names[1]:
        found.append(f"benchmarks differ ({names[0]} and {names[1]})")
    for name, words in GUARDED.items():
        if ours.get(name) != theirs.get(name):
            found.append(f"{words} differ ({_what_differs(name, a, b)})")
    if ours.get("examples") != theirs.get("examples"):
        found.append(f"{ours_is} has {_size(a)}, {theirs_is} {_size(b)}")
        if detail and (shared := _shared_examples(a, b)):
            found.append(shared)
    elif not found and (unlike := _unlike_replies(a, b)):
        found.append(f"{unlike}; {ours_is} has {_size(a)}, {theirs_is} {_size(b)}")
        if detail and (shared := _shared_examples(a, b)):
            found.append(shared)
    return found


def _what_differs(name: str, a: StoredRun, b: StoredRun) -> str:
    """Both sides of one guarded thing: in words where the records have them, else the hashes' beginnings."""
    if name == "protocol":
        ours, theirs = a.head.protocol, b.head.protocol
        fields = [f for f in sorted({*ours, *theirs}) if ours.get(f) != theirs.get(f)]
        if fields:
            return "; ".join(f"{f} {ours.get(f)!r} and {theirs.get(f)!r}" for f in fields)
    pair = []
    for run in (a, b):
        record = run.head
        short = record.hashes.get(name, "none")[:8]
        word = record.imported.example_set if record.imported and name == "examples" else None
        word = record.config.backbone if name == "backbone" else word
        pair.append(f"'{word}' {short}" if word else short)
    return " and ".join(pair)


def _called(a: StoredRun, b: StoredRun) -> tuple[str, str]:
    """What two runs are called in a refusal: their rows' names, or their ids where those are the same."""
    names = a.head.row_name, b.head.row_name
    return names if names[0] != names[1] else (a.id, b.id)


def _size(run: StoredRun) -> str:
    return f"{run.head.n_replies} replies of {run.head.n_personas} personas"


def _shared_examples(a: StoredRun, b: StoredRun) -> str:
    """How many replies two runs have in common; empty where one has only sums."""
    sets = []
    for run in (a, b):
        replies = run.replies()
        if replies is None:
            return ""
        hashes = zip(replies.column("prompt_hash"), replies.column("reference_hash"), strict=True)
        sets.append(dict(zip(replies.column("id"), hashes, strict=True)))
    ours, theirs = sets
    shared = ours.keys() & theirs.keys()
    ours_is, theirs_is = _called(a, b)
    parts = [f"{len(shared)} examples in both", f"{len(ours) - len(shared)} only in {ours_is}"]
    parts.append(f"{len(theirs) - len(shared)} only in {theirs_is}")
    for place, what in enumerate(("prompt", "reference")):
        if other := sum(ours[i][place] != theirs[i][place] for i in shared):
            parts.append(f"{other} of the shared ones with another {what}")
    return ", ".join(parts)


def _unlike_replies(a: StoredRun, b: StoredRun) -> str:
    """Runs of one label can still hold other personas, numbers of replies or examples: a label is only a word."""
    same = _people(a.record.sums) == _people(b.record.sums)  # in one order, as runs of one data set are
    ours, theirs = ({}, {}) if same else (dict(zip(*_people(run.record.sums), strict=True)) for run in (a, b))
    if extra := sorted(ours.keys() ^ theirs.keys()):
        return f"personas differ ({len(ours)} and {len(theirs)}; {extra[0]} is on one side only)"
    if unlike := sorted(p for p in ours if ours[p] != theirs[p]):
        first = unlike[0]
        words = f"example sets differ: {len(unlike)} personas have other numbers of replies"
        return f"{words} ({first}: {ours[first]} and {theirs[first]})"
    named = [run.head.hashes.get("example_ids") for run in (a, b)]
    if a.head.imported and None not in named and named[0] != named[1]:
        return f"example sets differ: '{a.head.imported.example_set}' names other examples in each file"
    return ""


def _people(sums: PersonaSums) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return sums.personas, sums.replies


def check_comparable(a: StoredRun, b: StoredRun) -> None:
    """Raises NotComparableError with everything that differs."""
    for run in (a, b):
        if not run.complete:
            raise NotComparableError(f"{run.id} is {run.head.status}: {run.head.error or 'not finished'}")
    if found := differences(a, b, detail=True):
        raise NotComparableError(f"not comparable: {' and '.join(_called(a, b))}: " + "; ".join(found))


def families(runs: Sequence[StoredRun]) -> list[Family]:
    """Complete runs grouped by everything but the seed; seeds ascending."""
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        if run.complete:
            groups.setdefault(family_key(run.head), []).append(run)
    found = []
    for members in groups.values():
        # The newest of two runs of one seed (another number of threads, say) stands for it.
        members.sort(key=lambda run: (run.head.seed, run.head.created, run.id))
        seeds = {run.head.seed: run for run in members}
        found.append(Family(members[0].head.row_name, tuple(seeds.values())))
    return sorted(found, key=lambda family: (family.name, family.first.id))


def family_key(record: RunHead) -> str:
    """Hash of everything that makes a method's row, the training seed left out."""
    plugin = record.plugin.model_dump()
    options = [record.method_options, record.changed_below, record.tuning and record.tuning.id]
    return canonical_hash([record.method, plugin, options, record.config.control, record.hashes])


def world_key(record: RunHead) -> str:
    """Hash of what comparable runs have in common."""
    return canonical_hash([record.benchmark.name, *(record.hashes.get(name) for name in GUARDED)])


def persona_scores(family: Family, metric: str) -> PersonaScores:
    """Per-persona sums of a metric over the family's seeds, for personas where it is defined.

    A pooled metric (F1 from counts) gives jackknife pseudo-values, moved so that their mean is the metric itself:
    one value a persona, micro and macro alike.
    Raises NotComparableError for a metric that was not scored, or seeds that were scored on different replies.
    """
    per_seed = [(run.id, run.record.sums) for run in family.runs]
    return scores_of(family.name, per_seed, tuple(run.head.seed for run in family.runs), metric)


def scores_of(
    name: str, per_seed: Sequence[tuple[str, PersonaSums]], seeds: tuple[int, ...], metric: str
) -> PersonaScores:
    """The same of sums with what each is called, one a seed; `name` is that of all."""
    entries = []
    for run, sums in per_seed:
        if metric not in sums.metrics:
            has = ", ".join(sums.metrics) or "none"
            raise NotComparableError(f"{name} ({run}) has no metric '{metric}'; it has {has}")
        entries.append(sums.metrics[metric])
    personas = per_seed[0][1].personas
    order = []  # imported files may name the personas in another order
    for run, sums in per_seed:
        if sums.personas == personas:
            order.append(slice(None))
            continue
        place = {p: i for i, p in enumerate(sums.personas)}
        if place.keys() != set(personas):
            raise NotComparableError(f"the seeds of {name} have different personas ({run})")
        order.append([place[p] for p in personas])
    if entries[0].pooled:
        if None in [entry.values for entry in entries]:
            raise NotComparableError(
                f"{name} cannot be compared by '{metric}': it is undefined with one persona left out, because "
                "that one holds all counts; or the run is of an earlier harness, and the metric's plugin is missing"
            )
        values = [np.array(entry.values)[at] for entry, at in zip(entries, order, strict=True)]
        return PersonaScores(personas, seeds, np.array(values), np.ones(len(personas)))
    n = np.array([np.array(entry.n)[at] for entry, at in zip(entries, order, strict=True)])
    if (n != n[0]).any():
        raise NotComparableError(f"the seeds of {name} were scored on different numbers of replies")
    kept = n[0] > 0
    if not kept.any():
        raise NotComparableError(f"{name} has no value of '{metric}': it is undefined for all its replies")
    sums = np.array([np.array(entry.sum, dtype=float)[at] for entry, at in zip(entries, order, strict=True)])
    names = personas if kept.all() else tuple(p for p, keep in zip(personas, kept, strict=True) if keep)
    return PersonaScores(names, seeds, sums[:, kept], n[0][kept])


def reference_of(record: RunHead, metric: str, estimand: Estimand = ESTIMAND) -> ReferenceScore | None:
    """The published score, if the run carries one for this metric that is a mean of this kind."""
    reference = record.reference
    return reference if reference and record.metric == metric and reference.aggregation == estimand else None


def comparison_rows(
    baseline: Family,
    methods: Sequence[Family],
    metric: str | None = None,
    *,
    margin: float | None = None,
    estimand: Estimand = ESTIMAND,
) -> tuple[ScoreRow, list[ComparisonRow]]:
    """The baseline's own row and one row per method against it, jointly tested.

    metric   the benchmark's deciding one by default
    margin   of equivalence, on the scale of the scores; None: what the methods' runs stated before they were made
    Raises NotComparableError if any pair is unlike, naming all of them.
    """
    faults = []
    for run in (*baseline.runs[1:], *(run for family in methods for run in family.runs)):
        try:
            check_comparable(baseline.first, run)
        except NotComparableError as error:
            faults.append(str(error))
    if faults:
        raise NotComparableError("\n".join(faults))
    record = baseline.first.record
    metric = metric or record.metric
    base = persona_scores(baseline, metric)
    entry = record.sums.metrics[metric]
    reference = reference_of(record, metric, estimand)
    if margin is None and metric == record.metric:
        margin = stated_margin(methods, entry.unit)
    own = score_row(
        baseline.name,
        base,
        estimand,
        reference,
        unit=entry.unit,
        higher_is_better=entry.higher_is_better,
    )
    if not methods:
        return own, []
    labels = labels_of([baseline, *methods])
    rows = compare(
        base,
        {name: persona_scores(family, metric) for name, family in zip(labels[1:], methods, strict=True)},
        estimand,
        reference,
        margin,
        baseline_name=baseline.name,
        unit=entry.unit,
        higher_is_better=entry.higher_is_better,
    )
    unlike = (_unlike(family, baseline) for family in methods)
    return own, [replace(row, flags=(*row.flags, *found)) for row, found in zip(rows, unlike, strict=True)]


def _unlike(family: Family, baseline: Family) -> list[str]:
    """Flags for what does not keep two families from being compared, and yet may make a difference."""
    checks = {NOT_TUNED_ALIKE: _tuned_in, NOT_COMPUTED_ALIKE: _computed_on}
    found = [flag for flag, what in checks.items() if what(family) != what(baseline)]
    if any(isinstance(flag, StillLearning) for run in baseline.runs for flag in run.record.flags):
        found.append(BASELINE_STILL_LEARNING)
    return found


def _tuned_in(family: Family) -> str | None:
    """The id of the study in which the family's options were found; None: in none."""
    tuning = family.first.head.tuning
    return tuning and tuning.id


def _computed_on(family: Family) -> set[tuple[Any, ...]]:
    """What decides on the last bits of a score, and by them on single replies."""
    heads = (run.head for run in family.runs)
    return {
        (head.hardware.get("processor"), *(head.numerics.get(name) for name in ("device", "threads", "torch")))
        for head in heads
    }


def stated_margin(methods: Sequence[Family], unit: str) -> float | None:
    """The margin of equivalence, on the scale of the scores, that the configuration of every run states; None where one
    states none or another one."""
    stated = {run.head.config.margin for family in methods for run in family.runs}
    found = stated.pop() if len(stated) == 1 else None
    return None if found is None else float(found) / scale(unit)


def labels_of(families: Sequence[Family]) -> list[str]:
    """The families' names; where two rows would have the same one, with what differs between them."""
    names = [family.name for family in families]
    distinct = short_names([family.first.head for family in families])
    return [name if names.count(name) == 1 else distinct[place] for place, name in enumerate(names)]
