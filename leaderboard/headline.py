"""What the page opens with: one section, and what it found, in sentences. Every word follows from the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare import against_base_rates
from harness.statistics import ComparisonRow, quantity
from harness.text import one_line

from .rows import Board, Group, Line


@dataclass(frozen=True)
class Headline:
    """place   of its group on the board, from 0;  sentences: unescaped text"""

    place: int
    sentences: tuple[str, ...]


def headline(board: Board) -> Headline | None:
    """The first section of data that no simulator made (it has no ceilings), else the first; None where no section has
    a method beside its baseline."""
    compared = [place for place, group in enumerate(board.groups) if any(line.comparison for line in group.lines)]
    if not compared:
        return None
    place = next((place for place in compared if not board.groups[place].record.ceilings), compared[0])
    return Headline(place, tuple(finding(board.groups[place])))


def finding(group: Group) -> list[str]:
    """What a section found: how its candidates fare against the baseline, and against the person's base rate. Controls
    are no candidates. Empty where nothing is compared."""
    rows = [line for line in group.lines if line.comparison and not is_control(line)]
    if not rows or group.baseline is None:
        return []
    sentences = [f"{_beside(rows, one_line(group.baseline.name))}."]
    families = [line.family for line in group.lines]
    candidates = {line.name for line in rows}
    for against in against_base_rates(families):
        own = [row for row in against.rows if row.method in candidates]
        beat = [row for row in own if row.verdict_kind == "better"]
        words = (
            f"{_count(len(beat)).capitalize()} of these {_verb(len(beat), 'beat')}" if beat else "None is shown to beat"
        )
        sentences.append(f"{words} {one_line(against.yardstick.name)}.")
    return sentences


def counts(group: Group) -> str:
    """`3 of 5 methods better than unified`; empty where nothing is compared."""
    rows = [line.comparison for line in group.lines if line.comparison and not is_control(line)]
    if not rows or group.baseline is None:
        return ""
    better = sum(row.verdict_kind == "better" for row in rows)
    return f"{better} of {len(rows)} method{'s' * (len(rows) != 1)} better than {one_line(group.baseline.name)}"


def is_control(line: Line) -> bool:
    return bool(line.family.first.record.config.control)


def _beside(rows: Sequence[Line], baseline: str) -> str:
    kinds = Counter(row.comparison.verdict_kind for row in rows if row.comparison)
    better, total = kinds["better"], len(rows)
    if not better:
        return f"No method of {total} is shown to be better than {baseline}" if total > 1 else _alone(rows[0], baseline)
    if total == 1:
        return _alone(rows[0], baseline)
    best = next(row for row in rows if row.comparison and row.comparison.verdict_kind == "better")
    assert best.comparison
    whole = "Both" if total == 2 else f"All {_count(total)}"
    share = whole if better == total else f"{_count(better).capitalize()} of {_count(total)}"
    verb = _verb(better, "beat")
    by = _by(best.comparison, best.family.first.record.metric)
    return f"{share} methods {verb} {baseline}; the best, {one_line(best.name)}, by {by}"


def _alone(row: Line, baseline: str) -> str:
    c = row.comparison
    assert c
    name, metric = one_line(row.name), row.family.first.record.metric
    match c.verdict_kind:
        case "better":
            return f"{name} beats {baseline} by {_by(c, metric)}"
        case "worse":
            return f"{name} is worse than {baseline} by {_by(c, metric)}"
    return f"{name} is not shown to differ from {baseline}"


def _by(c: ComparisonRow, metric: str) -> str:
    """The size of a difference that is shown, without its sign, and with its interval."""
    size = f"{quantity(abs(c.delta_pts), c.unit)} of {one_line(metric)}"
    ends = sorted(abs(x) for x in c.sim_ci_pts or () if x is not None)
    if len(ends) < 2:
        return size
    low, high = (quantity(end, "raw") for end in ends)
    return f"{size} (95 % simultaneous interval {low} to {high})"


def _verb(count: int, verb: str) -> str:
    return verb if count != 1 else f"{verb}s"


def _count(n: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[n] if n < len(words) else str(n)
