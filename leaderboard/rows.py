"""Runs -> groups of comparable rows, ranked. What the groups look like on paper is `leaderboard.markdown`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.comparison import Family, comparison_rows, families, world_key
from harness.statistics import ComparisonRow, ScoreRow
from harness.store import StoredRun


@dataclass(frozen=True)
class Line:
    """One method in a group; `row` is a ComparisonRow except for the baseline, or where there is none."""

    family: Family
    row: ScoreRow
    is_baseline: bool

    @property
    def comparison(self) -> ComparisonRow | None:
        return self.row if isinstance(self.row, ComparisonRow) else None


@dataclass(frozen=True)
class Group:
    """Runs on the same replies, protocol, backbone and scorer: only these are ranked together."""

    lines: tuple[Line, ...]
    baseline: Family | None

    @property
    def record(self) -> Mapping[str, Any]:
        return self.lines[0].family.first.record

    @property
    def metric(self) -> str:
        return str(self.record["metrics"][0])


def groups(runs: Sequence[StoredRun]) -> list[Group]:
    """Complete runs in comparable groups, the ones with most replies first; rows by score, best first."""
    worlds: dict[str, list[Family]] = {}
    for family in families(runs):
        worlds.setdefault(world_key(family.first.record), []).append(family)
    made = [_group(members) for members in worlds.values()]
    return sorted(
        made,
        key=lambda g: (-g.record["n_replies"], g.record["benchmark"]["name"], g.lines[0].family.first.id),
    )


def _group(members: Sequence[Family]) -> Group:
    baseline = _baseline(members)
    lines = []
    if baseline:
        others = [family for family in members if family is not baseline]
        own, rows = comparison_rows(baseline, others)
        lines = [Line(baseline, own, True)]
        lines += [Line(family, row, False) for family, row in zip(others, rows, strict=True)]
    else:
        lines = [Line(family, comparison_rows(family, [])[0], False) for family in members]
    up = lines[0].row.higher_is_better
    lines.sort(key=lambda line: ((-1 if up else 1) * line.row.score_micro_pts, line.family.name))
    return Group(tuple(lines), baseline)


def _baseline(members: Sequence[Family]) -> Family | None:
    """The family that the runs name as their baseline, without a control; the one with most seeds if several."""
    found = [
        family
        for family in members
        if family.first.record["method"] == family.first.record["config"].get("baseline")
        and not family.first.record["config"].get("control")
    ]
    plain = [family for family in found if not family.first.record.get("changed")]
    return max(plain or found, key=lambda family: (len(family.runs), family.first.id), default=None)


def rows_as_json(runs: Sequence[StoredRun]) -> list[dict[str, Any]]:
    """All rows as plain data, group by group."""
    return [
        {
            "group": number,
            "benchmark": group.record["benchmark"]["name"],
            "metric": group.metric,
            "method": line.family.name,
            "rank": rank,
            "is_baseline": line.is_baseline,
            "runs": [run.id for run in line.family.runs],
            "score": line.row.score_micro_pts,
            "cost": line.family.first.record["cost"],
            "flags": line.family.first.record["flags"],
            **dataclasses.asdict(line.row),
        }
        for number, group in enumerate(groups(runs), 1)
        for rank, line in enumerate(group.lines, 1)
    ]
