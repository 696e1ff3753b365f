"""The plot of score against cost: two panels, each method's name beside its mark, its colour that of its adapters.

A name stands on the first of its sides where it covers no mark and no other name; where there is none, in a column at
the right with a line to its mark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes

from harness.show import number

from . import svg
from .figures import FAMILIES, Figure, Point, marked, points, unit_words
from .svg import BLUE, COLUMN, GREEN, GREY, INK, MUTED, PAPER, PURPLE, WIDTH
from .tables import others
from .text import columns, short

COLOURS: dict[str, str] = dict(zip(FAMILIES, (BLUE, GREEN, PURPLE, GREY), strict=True))
PANELS = (("trained parameters, base included", "trainable_parameters", 0.0),
          ("fit seconds, base included", "fit_seconds", 1.0))  # fmt: skip
LEFT, RIGHT, TOP, BETWEEN = 62, 218, 40, 64  # pixels
LINE = 14  # pixels from one name in the column to the next
NAME = COLUMN * 11 / 12  # pixels of a column of 11-pixel text
MOST_COLUMNS = 30  # of a name

# Where a name may stand: its end that is beside the mark, and how far from it in pixels.
SIDES: tuple[tuple[Literal["left", "center", "right"], float, float], ...] = (
    ("left", 9, 0), ("right", -9, 0), ("center", 0, -14), ("center", 0, 14),
    ("left", 7, -12), ("left", 7, 12), ("right", -7, -12), ("right", -7, 12),
)  # fmt: skip
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Name:
    """A text beside its mark. x: in pixels, of the end that `side` names;  y: of its middle."""

    text: str
    x: float
    y: float
    side: Literal["left", "center", "right"]


def draw(figure: Figure) -> str:
    """The SVG of a figure of kind "cost"."""
    group = figure.group
    found = [points(group, cost) for _, cost, _ in PANELS]
    kept = marked(found)
    found = [[point for point in panel if point.place in kept] for panel in found]
    low, high, known = _range(figure, [point.score for point in found[0]])
    wide, tall = WIDTH - LEFT - RIGHT, max(250, LINE * (len(kept) + len(known)) + 10)
    canvas = svg.canvas(WIDTH, TOP + 2 * (tall + BETWEEN))
    _key(canvas, {point.family for point in found[0]})
    unit = unit_words(group)
    for row, (panel, (words, _, least)) in enumerate(zip(found, PANELS, strict=True)):
        top = TOP + row * (tall + BETWEEN)
        axes = svg.panel(canvas, LEFT, top, wide, tall)
        for _, score in known:
            axes.axhline(score, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.set_ylim(low, high)
        place = _scatter(axes, panel, least)
        axes.set_xlabel(words, labelpad=6, parse_math=False)
        axes.set_ylabel(short(group.metric) + (f", {unit}" if unit else ""), parse_math=False)
        (x0, x1) = axes.get_xlim()

        def spot(cost: float, score: float, top=top, x0=x0, x1=x1, place=place) -> tuple[float, float]:
            x = LEFT + wide * (place(cost) - x0) / (x1 - x0)
            return x, top + tall * (high - score) / (high - low)

        marks = [(spot(point.cost, point.score), _words(point)) for point in panel]
        lines = [(spot(least, score)[1], f"{short(name, 20)} {number(score)}") for name, score in known]
        _write(canvas, marks, lines, (LEFT, top, LEFT + wide, top + tall))
    return svg.to_svg(canvas, figure.alt)


def _words(point: Point) -> str:
    name = short(point.name, MOST_COLUMNS) + (" (baseline)" if point.is_baseline else "")
    return name if point.is_whole else f"{name} +"


def _range(figure: Figure, scores: Sequence[float]) -> tuple[float, float, list[tuple[str, float]]]:
    """Limits of the scores, and those ceilings and references that lie near them."""
    span = max(max(scores) - min(scores), 0.02 * abs(max(scores)), 1e-3)
    low, high = min(scores) - 0.12 * span, max(scores) + 0.12 * span
    known = [(other.name, round(other.score, 4)) for other in others(figure.group)]
    near = [(name, score) for name, score in known if low - 0.5 * span <= score <= high + 0.5 * span]
    ends = [score for _, score in near]
    return min([low, *(x - 0.04 * span for x in ends)]), max([high, *(x + 0.04 * span for x in ends)]), near


def _key(canvas, present: set[str]) -> None:
    x = float(LEFT)
    for family, colour in COLOURS.items():
        if family in present:
            svg.write(canvas, x, 16, f"● {family}", ha="left", va="center", color=colour)
            x += COLUMN * (columns(family) + 4)


def _scatter(axes: Axes, found: Sequence[Point], least: float):
    """Marks on a logarithmic axis; costs of at most `least` have one place of their own at its left. Returns the
    function from a cost to its place."""
    paid = [p.cost for p in found if p.cost > least] or [max(least, 1.0)]
    first, last = math.floor(math.log10(min(paid))), math.ceil(math.log10(max(paid)))
    last = max(last, first + 1)
    free = any(p.cost <= least for p in found)
    start = first - max(0.18 * (last - first), 0.5) if free else first

    def place(cost: float) -> float:
        return start if cost <= least else round(math.log10(cost), 5)

    ticks = list(range(first, last + 1, max(1, math.ceil((last - first) / 6))))
    labels = [_amount(10.0**tick) for tick in ticks]
    axes.set_xticks(
        [*([start] if free else []), *ticks], [*([f"≤{least:g}" if least else "0"] if free else []), *labels]
    )
    room = 0.05 * (last - start)
    axes.set_xlim(start - room, last + room)
    front = sorted((place(p.cost), p.score) for p in found if p.on_front)
    if len(front) > 1:
        axes.step([x for x, _ in front], [y for _, y in front], where="post", color=GREY, linewidth=1.4, zorder=2)
    for p in found:
        mark, colour = "x" if p.is_control else "s" if p.is_baseline else "o", COLOURS[p.family]
        face = colour if p.on_front else PAPER
        axes.plot([place(p.cost)], [p.score], mark, color=colour, markerfacecolor=face, markersize=8, mew=1.8, zorder=3)
    return place


def _amount(value: float) -> str:
    for size, word in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{word}"
    return f"{value:g}"


def _write(
    canvas, marks: Sequence[tuple[tuple[float, float], str]], lines: Sequence[tuple[float, str]], inside: Box
) -> None:
    names, rest = beside(marks, inside)
    for name in names:
        paper = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5, "alpha": 0.8}  # over the lines of the grid
        svg.write(canvas, name.x, name.y, name.text, ha=name.side, va="center", fontsize=11, color=INK, bbox=paper)
    column = [(y, None, text) for y, text in lines] + [(xy[1], xy, text) for xy, text in rest]
    spread = apart([y for y, _, _ in column], LINE, inside[1] + 4, inside[3] - 4)
    for (y, mark, text), place in zip(column, spread, strict=True):
        start = (inside[2], y) if mark is None else (mark[0] + 5, y)
        svg.leader(canvas, *start, inside[2] + 10, place)
        svg.write(
            canvas, inside[2] + 13, place, text, ha="left", va="center", fontsize=11, color=INK if mark else MUTED
        )


def beside(
    marks: Sequence[tuple[tuple[float, float], str]], inside: Box
) -> tuple[list[Name], list[tuple[tuple[float, float], str]]]:
    """Names that have a free place beside their marks, and the marks whose names have none."""
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for (x, y), _ in marks]
    names, rest = [], []
    for (x, y), text in marks:
        wide = NAME * columns(text)
        for side, dx, dy in SIDES:
            left = x + dx - wide * {"left": 0.0, "center": 0.5, "right": 1.0}[side]
            box = (left, y + dy - 7, left + wide, y + dy + 7)
            if _within(box, inside) and not any(overlap(box, other) for other in taken):
                taken.append(box)
                names.append(Name(text, x + dx, y + dy, side))
                break
        else:
            rest.append(((x, y), text))
    return names, rest


def _within(box: Box, inside: Box) -> bool:
    return inside[0] <= box[0] and inside[1] <= box[1] and box[2] <= inside[2] and box[3] <= inside[3]


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def apart(places: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """The places moved as little as a simple pass moves them, so that neighbours are `least` apart."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for before, i in zip([None, *order], order, strict=False):
        moved[i] = max(moved[i], low if before is None else moved[before] + least)
    limit = high
    for i in reversed(order):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - least
    return moved
