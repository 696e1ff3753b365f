"""Runs -> groups of comparable rows, ranked. What the groups look like on paper is `leaderboard.markdown`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.compare import (
    ESTIMAND,
    Family,
    comparison_rows,
    differences,
    families,
    persona_scores,
    short_names,
    world_key,
)
from harness.errors import HarnessError
from harness.runs import Cost, RunRecord, StoredRun
from harness.scoring import MetricSums
from harness.show import shown
from harness.statistics import FLAGS, ComparisonRow, Rank, ScoreRow, aligned, ranks


@dataclass(frozen=True)
class Line:
    """One method in a group; `row` is a ComparisonRow except for the baseline, or where there is none.

    place   among the methods of its group by score, from 1;  rank: shared where pairwise intervals do not separate
    """

    family: Family
    row: ScoreRow
    is_baseline: bool
    place: int
    rank: Rank

    @property
    def name(self) -> str:
        """What its row is called: two configurations of one method are told apart by what differs between them."""
        return self.row.method

    @property
    def comparison(self) -> ComparisonRow | None:
        return self.row if isinstance(self.row, ComparisonRow) else None

    @property
    def words(self) -> str:
        """Its verdict in words."""
        return self.comparison.verdict if self.comparison else "the baseline" if self.is_baseline else ""

    @property
    def cost(self) -> Cost | None:
        """That of the first seed; None for imported scores."""
        return self.family.first.record.cost


@dataclass(frozen=True)
class Group:
    """Runs on the same replies, protocol, backbone and scorer: only these are ranked together."""

    lines: tuple[Line, ...]
    baseline: Family | None

    @property
    def record(self) -> RunRecord:
        """The best method's. The guard keeps imports and runs apart, so that all or none of the lines were imported."""
        return self.lines[0].family.first.record

    @property
    def metric(self) -> str:
        return self.record.metric

    @property
    def decides(self) -> MetricSums:
        """The deciding metric's sums, with its unit and direction."""
        return self.record.metric_sums(self.metric)

    @property
    def summary(self) -> str:
        """One line on the deciding metric."""
        return self.decides.summary or "not described"

    @property
    def key(self) -> str:
        """Eight hex digits that stay the same while the group's place among the others changes."""
        return world_key(self.record)[:8]

    @property
    def title(self) -> str:
        """The benchmark with its facts, unescaped."""
        facts = ", ".join(f"{k} {v}" for k, v in sorted(self.record.benchmark.facts.items()))
        return self.record.benchmark.name + (f" ({facts})" if facts else "")


@dataclass(frozen=True)
class Outsider:
    """A family that stands beside the groups because nothing may be said of it against a baseline, and why."""

    family: Family
    reason: str


@dataclass(frozen=True)
class Board:
    """All that is shown, computed once for every format."""

    groups: tuple[Group, ...]
    outsiders: tuple[Outsider, ...]
    unfinished: tuple[StoredRun, ...]
    n_runs: int


def board_of(runs: Sequence[StoredRun]) -> Board:
    """The leaderboard of these runs; their order plays no part."""
    found, outside = arranged(runs)
    unfinished = sorted((run for run in runs if not run.complete), key=lambda run: run.id)
    return Board(tuple(found), tuple(outside), tuple(unfinished), len(runs))


def arranged(runs: Sequence[StoredRun]) -> tuple[list[Group], list[Outsider]]:
    """Comparable groups, and the families that belong to none: unlike their group's baseline, or without one where
    their benchmark has a group with that baseline."""
    worlds: dict[str, list[Family]] = {}
    for family in families(runs):
        worlds.setdefault(world_key(family.first.record), []).append(family)
    made: list[Group] = []
    alone: list[list[Family]] = []
    outside: list[Outsider] = []
    for found in worlds.values():
        members, broken = _usable(found)
        outside += broken
        baseline = _baseline(members)
        alike = []
        for family in members:
            if reason := _unlike(baseline or members[0], family):
                outside.append(Outsider(family, reason))
            else:
                alike.append(family)
        if not alike:
            continue
        if baseline:
            made.append(_group(alike))
        else:
            alone.append(alike)
    made.sort(key=_place)
    for members in alone:
        near = _nearest(made, members[0])
        if near is None or near.baseline is None:
            continue
        for family in members:
            reason = "; ".join(differences(near.baseline.first, family.first))
            outside.append(Outsider(family, f"no run of {near.baseline.name} on the same replies: {reason}"))
    rest = [_group(members) for members in alone if _nearest(made, members[0]) is None]
    outside.sort(key=lambda x: (x.family.name, x.family.first.id))
    return sorted([*made, *rest], key=_place), outside


def _place(group: Group) -> tuple[int, str, str]:
    return -group.record.n_replies, group.record.benchmark.name, group.lines[0].family.first.id


def _nearest(made: Sequence[Group], family: Family) -> Group | None:
    """The largest group of the same benchmark whose baseline is the one that this family asks for."""
    record = family.first.record
    for group in made:
        baseline = group.baseline
        same = group.record.benchmark.name == record.benchmark.name
        if same and baseline and baseline.first.record.method == record.config.baseline:
            return group
    return None


def _usable(members: Sequence[Family]) -> tuple[list[Family], list[Outsider]]:
    """The families that make a row of their own, and those that make none, with the reason: their seeds are unlike, or
    nothing is defined. One of these would take every other down that is compared with it."""
    usable, broken = [], []
    for family in members:
        try:
            comparison_rows(family, [])
        except HarnessError as error:
            broken.append(Outsider(family, str(error)))
        else:
            usable.append(family)
    return usable, broken


def _unlike(baseline: Family, family: Family) -> str:
    """Why a family cannot be paired with its world's baseline; empty if it can."""
    for run in family.runs:
        if found := differences(baseline.first, run):
            return "; ".join(found)
    metric = baseline.first.record.metric
    try:
        aligned(family.name, persona_scores(family, metric), persona_scores(baseline, metric))
    except HarnessError as error:
        return str(error)
    return ""


def _group(members: Sequence[Family]) -> Group:
    names = short_names([family.first.head for family in members])
    members = [replace(family, name=name) for family, name in zip(members, names, strict=True)]
    baseline = _baseline(members)
    rows: list[tuple[Family, ScoreRow]] = []
    if baseline:
        others = [family for family in members if family is not baseline]
        own, compared = comparison_rows(baseline, others)
        rows = [(baseline, own), *zip(others, compared, strict=True)]
    else:
        rows = [(family, comparison_rows(family, [])[0]) for family in members]
    up = rows[0][1].higher_is_better
    rows.sort(key=lambda item: ((-1 if up else 1) * item[1].score_micro_pts, item[0].name))
    found = _ranks([family for family, _ in rows], up)
    lines = [
        Line(family, row, family is baseline, place, rank)
        for place, ((family, row), rank) in enumerate(zip(rows, found, strict=True), 1)
    ]
    return Group(tuple(lines), baseline)


def _ranks(members: Sequence[Family], higher_is_better: bool) -> list[Rank]:
    """Of families that are ordered by score. Seeds of one method are joined, as in its comparison with the baseline."""
    metric = members[0].first.record.metric
    scores = [persona_scores(family, metric) for family in members]
    base = scores[0].restricted_to(sorted(scores[0].personas))
    runs = [aligned(family.name, own, base) for family, own in zip(members, scores, strict=True)]
    return ranks([run.sums for run in runs], base.n, ESTIMAND, higher_is_better=higher_is_better)


def _baseline(members: Sequence[Family]) -> Family | None:
    """The family that the runs name as their baseline, without a control.

    Of several it is the one that learnt best: with the least validation loss, which knows no test score. Where none is
    known it is the one with its plugin's own options, then the one with most seeds.
    """
    found = [
        family
        for family in members
        if family.first.record.method == family.first.record.config.baseline and not family.first.record.config.control
    ]

    def order(family: Family) -> tuple[float, bool, int, str]:
        losses = [run.record.cost.validation_loss for run in family.runs if run.record.cost]
        known = [loss for loss in losses if loss is not None]
        learnt = sum(known) / len(known) if known else math.inf
        return learnt, bool(family.first.record.changed), -len(family.runs), family.first.id

    return min(found, key=order, default=None)


def unseen(family: Family, metric: str) -> float | None:
    """Mean over the seeds of the score with personas that were held out of all training; None without any."""
    found = [shown(run.record, metric, u.scores.get(metric)) for run in family.runs if (u := run.record.unseen)]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def flags_of(line: Line) -> list[str]:
    """The flags of a row in words: of all its runs, then of the comparison; each once."""
    found = [str(flag) for run in line.family.runs for flag in run.record.flags]
    return list(dict.fromkeys([*found, *(line.comparison.flags if line.comparison else ())]))


def glossary(lines: Sequence[Line]) -> dict[str, str]:
    """Name, without a run's own numbers -> meaning of every flag that occurs, by name."""
    of_runs = {flag.name: flag.meaning for line in lines for run in line.family.runs for flag in run.record.flags}
    of_rows = {name: FLAGS[name] for line in lines if line.comparison for name in line.comparison.flags}
    return dict(sorted({**of_runs, **of_rows}.items()))
