"""Groups -> which plots there are, what they are called and what they say in words. Drawing is `plots`; no matplotlib.

Numbers are rounded here, so that the last bits of another machine's arithmetic move no byte of a plot.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from harness.compare import persona_scores
from harness.errors import StoreError
from harness.runs import Learning, RunRecord
from harness.scoring import scale
from harness.show import interval, number, shown
from harness.statistics import aligned
from harness.text import one_line

from .headline import is_control
from .rows import Group, Line
from .samples import differences_of, learning_of
from .text import short

Kind = Literal["forest", "personas", "yardsticks", "cost", "learning"]
MOST_ROWS = 40  # methods in a plot; the tables have all
MOST_PANELS = 12  # methods in the plots of personas and of learning: the best of the group
MOST_POINTS = 20  # methods in the plot of costs: each has its name beside it
FILE_NAME = re.compile(r"[a-z0-9_-]+-[0-9a-f]{8}-(forest|personas|yardsticks|cost|learning)\.svg")


@dataclass(frozen=True)
class Figure:
    """One plot of a group. `file` is its name in the folder of plots; title, alt and caption are unescaped text."""

    kind: Kind
    group: Group
    file: str
    title: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Panel:
    """One method's personas, least difference first: method minus baseline in shown units.

    ends   95 % intervals, each of one persona alone; None where the replies are not at hand: plain differences
    """

    name: str
    share_improved: float
    differences: tuple[float, ...]
    ends: tuple[tuple[float, float], ...] | None


@dataclass(frozen=True)
class Curve:
    """One method's validation loss by epoch, in nats a token: mean and band over its adapters."""

    name: str
    learning: Learning


@dataclass(frozen=True)
class Point:
    """One method in a plot of score against cost. A control is no candidate, so it is never on the front.

    cost     of the method and of what it stands on; is_whole is False where the latter is not known
    family   of its adapters, see `adapter_family`
    """

    place: int
    name: str
    score: float
    cost: float
    family: str
    is_whole: bool
    is_control: bool
    is_baseline: bool
    on_front: bool


def figures(group: Group) -> list[Figure]:
    """The plots of a group; those that would be empty are left out."""
    made = []
    compared = compared_lines(group)
    if compared:
        made += [_forest(group, compared), _personas(group, compared)]
    if rungs(group):
        made.append(_yardsticks(group))
    if not group.record.imported and len(group.lines) > 1:
        made.append(_cost(group))
    if found := curves(group):
        made.append(_learning(group, found))
    return made


def compared_lines(group: Group) -> list[Line]:
    return [line for line in group.lines if line.comparison]


def unit_words(group: Group) -> str:
    unit = short(group.lines[0].row.unit, 12)
    return {"pt": "points", "raw": ""}.get(unit, unit)


def _name(group: Group, kind: Kind) -> str:
    word = re.sub(r"[^a-z0-9_-]+", "-", group.record.benchmark.name.lower()).strip("-")[:40] or "group"
    return f"{word}-{group.key}-{kind}.svg"


def _forest(group: Group, compared: list[Line]) -> Figure:
    assert group.baseline
    base = one_line(group.baseline.name)
    parts = []
    for line in compared[:6]:
        c = line.comparison
        assert c
        words = f"{short(line.name)} {number(c.delta_pts, sign=True)}"
        parts.append(f"{words} {interval(c.sim_ci_pts)}" if c.sim_ci_pts else words)
    more = f"; and {len(compared) - 6} more in the table" if len(compared) > 6 else ""
    title = f"Difference from {base}"
    caption = "Each line is a method: its difference from the baseline with the simultaneous 95 % interval."
    caption += _left_out(len(compared), MOST_ROWS)
    return Figure("forest", group, _name(group, "forest"), title, f"{title}: {'; '.join(parts)}{more}", caption)


def _personas(group: Group, compared: list[Line]) -> Figure:
    assert group.baseline
    base = one_line(group.baseline.name)
    parts = []
    for line in compared[:6]:
        assert line.comparison
        parts.append(f"{short(line.name)} {line.comparison.share_improved:.0%}")
    side = "above" if group.lines[0].row.higher_is_better else "below"
    caption = (
        f"Each dot is a persona: its difference from {base}, least first; {side} the line it is better off. Vertical "
        "lines are 95 % intervals of one persona alone, around an estimate that is shrunken towards the mean; where "
        "the replies are not available, dots are plain differences, which include reply noise."
    )
    caption += _left_out(len(compared), MOST_PANELS)
    title = f"Every persona's difference from {base}"
    return Figure("personas", group, _name(group, "personas"), title, f"{title}; improved: {', '.join(parts)}", caption)


def _left_out(count: int, most: int) -> str:
    return f" The first {most} of {count} methods by rank." if count > most else ""


@dataclass(frozen=True)
class Rung:
    """One method, or one predictor without a model, on the scale of a metric, as shown."""

    name: str
    value: float
    kind: Literal["method", "yardstick", "base rate", "oracle"]


def rung_metric(group: Group) -> str | None:
    """The first metric that the yardsticks have values of: the deciding one, where that is no likelihood."""
    names = group.record.metrics
    return next((m for m in names if any(y.scores.get(m) is not None for y in group.record.yardsticks)), None)


def rungs(group: Group) -> list[Rung]:
    """The first methods by rank and the yardsticks, best first; empty for a benchmark without yardsticks."""
    metric, record = rung_metric(group), group.record
    if metric is None:
        return []
    found = []
    for line in group.lines[:MOST_ROWS]:
        values = [shown(run.record, metric, run.record.scores.get(metric)) for run in line.family.runs]
        known = [value for value in values if value is not None]
        if known:
            found.append(Rung(line.name, round(sum(known) / len(known), 4), "method"))
    for one in record.yardsticks:
        value = shown(record, metric, one.scores.get(metric))
        if value is not None:
            kind = "oracle" if one.oracle else "base rate" if one.base_rate else "yardstick"
            found.append(Rung(one.name, round(value, 4), kind))
    up = 1 if record.metric_sums(metric).higher_is_better else -1
    return sorted(found, key=lambda rung: (-up * rung.value, rung.name))


def _yardsticks(group: Group) -> Figure:
    found = rungs(group)
    title = f"Methods and yardsticks by {one_line(str(rung_metric(group)))}"
    parts = ", ".join(f"{short(rung.name)} {number(rung.value)}" for rung in found[:8])
    more = f", and {len(found) - 8} more" if len(found) > 8 else ""
    caption = (
        "Filled marks are methods, hollow ones predictors without a model; of these, triangles have seen what others "
        "replied to the test items. The line is the person's base rate." + _left_out(len(group.lines), MOST_ROWS)
    )
    return Figure("yardsticks", group, _name(group, "yardsticks"), title, f"{title}: {parts}{more}", caption)


def _cost(group: Group) -> Figure:
    fronts = []
    for words, name in (("trained parameters", "trainable_parameters"), ("fit seconds", "fit_seconds")):
        front = sorted((p for p in points(group, name) if p.on_front), key=lambda p: p.cost)
        fronts.append(f"{words}: {', '.join(short(p.name) for p in front[:6])}")
    title = "Score against trained parameters and against fit seconds"
    caption = (
        "Filled marks and the line are the Pareto front: no method of equal or lower cost scores better. Costs are the "
        "method's own and those of its base adapters, each as measured in its own run; a + means that the cost of the "
        "base is not known. Crosses are controls, not candidates. Dashed lines: ceilings and the published score, "
        "where they are near."
        + (
            f" {MOST_POINTS} of {len(group.lines)} methods, those of the fronts first."
            if len(group.lines) > MOST_POINTS
            else ""
        )
    )
    return Figure(
        "cost", group, _name(group, "cost"), title, f"{title}. On the Pareto front by {'; by '.join(fronts)}", caption
    )


def panels(group: Group) -> list[Panel]:
    """The personas of the first methods by rank, baseline left out."""
    assert group.baseline
    base = persona_scores(group.baseline, group.metric)
    base = base.restricted_to(sorted(base.personas))
    lines = compared_lines(group)[:MOST_PANELS]
    found = []
    for line, measured in zip(lines, differences_of(group, lines), strict=True):
        assert line.comparison
        factor, ends = scale(line.row.unit), None
        if measured:
            rows = sorted(zip(measured.estimate, measured.low, measured.high, strict=True))
            values = [estimate * factor for estimate, _, _ in rows]
            ends = tuple((round(low * factor, 4), round(high * factor, 4)) for _, low, high in rows)
        else:
            own = aligned(line.name, persona_scores(line.family, group.metric), base)
            values = sorted(float(x) * factor for x in (own.sums.mean(0) - base.sums.mean(0)) / base.n)
        rounded = tuple(round(value, 4) for value in values)
        found.append(Panel(line.name, line.comparison.share_improved, rounded, ends))
    return found


def curves(group: Group) -> list[Curve]:
    """How the first methods by rank learnt, of each its first seed, where that is at hand."""
    found = []
    for line in group.lines:
        try:
            learning = learning_of(line.family.first)
        except StoreError:
            continue  # the page says so beside its replies
        if learning:
            found.append(Curve(line.name, learning))
    return found[:MOST_PANELS]


def _learning(group: Group, found: Sequence[Curve]) -> Figure:
    title = "Validation loss by epoch"
    ends = ", ".join(f"{short(c.name)} {c.learning.mean[0]:.3f} to {c.learning.mean[-1]:.3f}" for c in found[:6])
    caption = (
        "Nats a token of the first seed: the line is the mean over a method's adapters, the band holds 80 % of them. "
        "An adapter that has stopped early counts with its lowest loss. Methods without a stored curve are left out."
    )
    return Figure("learning", group, _name(group, "learning"), title, f"{title}: {ends}", caption)


FAMILIES = ("LoRA", "soft prompt", "other adapters", "nothing trained")


def adapter_family(record: RunRecord) -> str:
    """One of FAMILIES, by what the method's options describe: layers that a LoRA changes, or virtual tokens."""
    cost = record.cost
    if cost is not None and not cost.trainable_parameters:
        return FAMILIES[3]
    parts = [part for part in record.method_options.values() if isinstance(part, Mapping)]
    for family, name in (("LoRA", "targets"), ("soft prompt", "tokens")):
        if any(name in part for part in parts):
            return family
    return FAMILIES[2]


def points(group: Group, cost: str) -> list[Point]:
    """Score and one cost of every method, with the Pareto front: nothing at most as dear scores better."""
    up = 1 if group.lines[0].row.higher_is_better else -1
    rows = [(line.place, line, round(line.row.score_micro_pts, 4), *whole_cost(line, cost)) for line in group.lines]
    candidates = sorted((price, score * up) for _, line, score, price, _ in rows if not is_control(line))
    prices, best = [price for price, _ in candidates], list(accumulate((score for _, score in candidates), max))
    found = []
    for rank, line, score, price, whole in rows:
        control = is_control(line)
        as_dear, cheaper = bisect_right(prices, price), bisect_left(prices, price)
        beaten = bool((as_dear and best[as_dear - 1] > score * up) or (cheaper and best[cheaper - 1] >= score * up))
        front = not control and not beaten
        kind = adapter_family(line.family.first.record)
        found.append(Point(rank, line.name, score, price, kind, whole, control, line.is_baseline, front))
    return found


def marked(panels: Sequence[Sequence[Point]]) -> set[int]:
    """The places of the methods that the plot of costs has room for: the baseline's, those on a front, the best."""
    front = {point.place for points in panels for point in points if point.on_front}
    order = sorted(panels[0], key=lambda p: (not p.is_baseline, p.place not in front, p.place))
    return {point.place for point in order[:MOST_POINTS]}


def whole_cost(line: Line, cost: str) -> tuple[float, bool]:
    """A method's own cost and that of what it stands on; False if its record does not say the latter."""
    own = line.cost
    assert own is not None
    below = getattr(own.stands_on, cost) if own.stands_on else 0.0
    return float(getattr(own, cost)) + below, own.stands_on is not None or not line.family.first.record.requires
