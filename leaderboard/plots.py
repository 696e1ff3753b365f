"""Draws the plots of `figures` with matplotlib. That of costs is `cost_plot`'s; how one becomes an SVG, `svg`'s.

Everything is placed in pixels, by the length of its text: no label lies on another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

from harness.show import interval, number

from . import cost_plot, svg
from .figures import MOST_ROWS, Figure, Panel, compared_lines, curves, panels, rung_metric, rungs, unit_words
from .svg import BLUE, COLUMN, GREY, MUTED, ORANGE, WIDTH
from .text import columns, short


def draw(figures: Iterable[Figure]) -> dict[str, str]:
    """File name -> SVG of each plot."""
    drawers: dict[str, Callable[[Figure], str]] = {
        "forest": _forest, "personas": _personas, "yardsticks": _yardsticks, "cost": cost_plot.draw,
        "learning": _learning,
    }  # fmt: skip
    with svg.drawing():  # once: setting matplotlib up costs as much as a plot
        return {figure.file: drawers[figure.kind](figure) for figure in figures}


def _up(figure: Figure) -> bool:
    return figure.group.lines[0].row.higher_is_better


# ---- differences with intervals ----


def _forest(figure: Figure) -> str:
    lines = compared_lines(figure.group)[:MOST_ROWS]
    names = [short(line.name, 36) for line in lines]
    rows = []
    for line in lines:
        c = line.comparison
        assert c
        rows.append((c, number(c.delta_pts, sign=True) + (f"  {interval(c.sim_ci_pts)}" if c.sim_ci_pts else "")))
    left = 20 + COLUMN * max(map(columns, names))
    right = 20 + COLUMN * max(len(text) for _, text in rows)
    top, step = 42, 24
    height = top + step * len(lines) + 52
    canvas = svg.canvas(WIDTH, height)
    axes = svg.panel(canvas, left, top, WIDTH - left - right, step * len(lines))
    low, high = _forest_range([c for c, _ in rows])
    for place, (c, text) in enumerate(rows):
        colour, mark, filled = {"better": (BLUE, "o", True), "worse": (ORANGE, "s", True)}.get(
            c.verdict_kind, (GREY, "D", False)
        )
        ends = c.sim_ci_pts or (c.delta_pts, c.delta_pts)
        a, b = (low if ends[0] is None else ends[0], high if ends[1] is None else ends[1])
        axes.plot([_r(a), _r(b)], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        face = colour if filled else svg.PAPER
        axes.plot([_r(c.delta_pts)], [place], mark, color=colour, markerfacecolor=face, markersize=7, mew=1.6)
        svg.write(canvas, left - 10, top + step * (place + 0.5), names[place], ha="right", va="center")
        svg.write(canvas, WIDTH - right + 12, top + step * (place + 0.5), text, ha="left", va="center")
    axes.axvline(0, color=MUTED, linewidth=1.2, zorder=1)
    axes.set(xlim=(low, high), ylim=(len(lines) - 0.5, -0.5), yticks=[])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    assert figure.group.baseline
    unit = unit_words(figure.group)
    label = f"difference from {short(figure.group.baseline.name)}" + (f", {unit}" if unit else "")
    axes.set_xlabel(label, labelpad=8, parse_math=False)
    zero = left + (WIDTH - left - right) * (0 - low) / (high - low)
    worse, better = ("← worse", "better →") if _up(figure) else ("← better", "worse →")
    svg.write(canvas, zero - 8, top - 14, worse, ha="right", va="center", color=MUTED, fontsize=11)
    svg.write(canvas, zero + 8, top - 14, better, ha="left", va="center", color=MUTED, fontsize=11)
    return svg.to_svg(canvas, figure.alt)


def _forest_range(comparisons: Sequence) -> tuple[float, float]:
    """All finite ends and zero, with room at both sides for the words above zero."""
    ends = [0.0]
    for c in comparisons:
        ends += [c.delta_pts, *(x for x in c.sim_ci_pts or () if x is not None)]
    span = max(max(ends) - min(ends), 1e-3)
    return _r(min(ends) - 0.12 * span), _r(max(ends) + 0.12 * span)


def _r(value: float) -> float:
    return round(float(value), 4)


# ---- panels of methods ----


SIDE, GAP, HEAD = 216, 62, 66  # of a panel in pixels: its sides, and the room between and above


def _places(count: int) -> tuple[int, list[tuple[float, float]]]:
    """The height of so many panels, at most three beside each other, and the upper left corner of each."""
    across = min(3, count)
    start = (WIDTH - across * SIDE - (across - 1) * GAP) / 2 + 14
    rows = [divmod(place, across) for place in range(count)]
    corners: list[tuple[float, float]] = [
        (start + column * (SIDE + GAP), HEAD - 20 + row * (SIDE + HEAD)) for row, column in rows
    ]
    return math.ceil(count / across) * (SIDE + HEAD) + 34, corners


def _head(canvas, left: float, top: float, name: str, words: str) -> None:
    svg.write(canvas, left, top - 25, short(name, 33), ha="left", va="center")
    svg.write(canvas, left, top - 10, words, ha="left", va="center", color=MUTED, fontsize=11)


def _personas(figure: Figure) -> str:
    found = panels(figure.group)
    height, corners = _places(len(found))
    canvas = svg.canvas(WIDTH, height)
    ends = [x for panel in found for x in (*panel.differences, *(end for pair in panel.ends or () for end in pair))]
    low, high = min(0.0, *ends), max(0.0, *ends)
    room = 0.05 * max(high - low, 1e-3)
    sign = 1 if _up(figure) else -1
    assert figure.group.baseline
    base, unit = short(figure.group.baseline.name, 20), unit_words(figure.group)
    for place, (panel, (left, top)) in enumerate(zip(found, corners, strict=True)):
        axes = svg.panel(canvas, left, top, SIDE, SIDE)
        axes.axhline(0, color=MUTED, linewidth=1.2, zorder=1)
        kinds = _kinds(panel, sign)
        for colour, kind in ((GREY, 0), (ORANGE, -1), (BLUE, 1)):
            where = [i for i, own in enumerate(kinds) if own == kind]
            if panel.ends:
                _strokes(axes, [(i, *panel.ends[i]) for i in where], colour)
            _dots(axes, where, [panel.differences[i] for i in where], colour)
        axes.set(xlim=(-0.7, len(kinds) - 0.3), ylim=(_r(low - room), _r(high + room)), xticks=[])
        axes.locator_params(axis="y", nbins=5)
        _head(canvas, left, top, panel.name, f"{panel.share_improved:.0%} of {len(kinds)} personas improved")
        if left == corners[0][0]:
            axes.set_ylabel(f"minus {base}" + (f", {unit}" if unit else ""), parse_math=False)
        if place + 3 >= len(found):
            axes.set_xlabel("personas, least difference first", parse_math=False)
    return svg.to_svg(canvas, figure.alt)


def _kinds(panel: Panel, sign: int) -> list[int]:
    """1: better, -1: worse, by the interval where there is one, else by the difference; 0: neither."""
    if panel.ends:
        return [sign * ((low > 0) - (high < 0)) for low, high in panel.ends]
    return [sign * ((value > 0) - (value < 0)) for value in panel.differences]


def _strokes(axes: Axes, lines: Sequence[tuple[float, float, float]], colour: str) -> None:
    """Vertical lines (x, low, high) as one path."""
    if not lines:
        return
    corners = [corner for x, low, high in lines for corner in ((x, low), (x, high))]
    outline = Outline(corners, [Outline.MOVETO, Outline.LINETO] * len(lines))
    axes.add_patch(PathPatch(outline, edgecolor=colour, linewidth=1.1, capstyle="butt", fill=False, alpha=0.6))


def _dots(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str) -> None:
    """All dots as one path of lines without length and round ends: a tenth of the bytes of markers."""
    if not x:
        return
    corners = [corner for xy in zip(x, y, strict=True) for corner in (xy, xy)]
    outline = Outline(corners, [Outline.MOVETO, Outline.LINETO] * len(x))
    axes.add_patch(PathPatch(outline, edgecolor=colour, linewidth=3.6, capstyle="round", fill=False, snap=False))


def _learning(figure: Figure) -> str:
    found = curves(figure.group)
    height, corners = _places(len(found))
    canvas = svg.canvas(WIDTH, height)
    values = [x for curve in found for x in (*curve.learning.low, *curve.learning.high)]
    room = 0.05 * max(max(values) - min(values), 1e-3)
    last = max(curve.learning.epochs[-1] for curve in found)
    first = min(curve.learning.epochs[0] for curve in found)
    for place, (curve, (left, top)) in enumerate(zip(found, corners, strict=True)):
        axes = svg.panel(canvas, left, top, SIDE, SIDE)
        one = curve.learning
        epochs = list(one.epochs)
        if one.adapters > 1:
            axes.fill_between(epochs, one.low, one.high, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(epochs, one.mean, color=BLUE, linewidth=2, marker="o", markersize=3.5)
        axes.set(xlim=(first - 0.3, max(last, first + 1) + 0.3), ylim=(_r(min(values) - room), _r(max(values) + room)))
        axes.locator_params(axis="x", integer=True, nbins=6)
        axes.locator_params(axis="y", nbins=5)
        _head(canvas, left, top, curve.name, f"{one.adapters} adapter{'s' * (one.adapters != 1)}")
        if left == corners[0][0]:
            axes.set_ylabel("nats a token", parse_math=False)
        if place + 3 >= len(found):
            axes.set_xlabel("epoch", parse_math=False)
    return svg.to_svg(canvas, figure.alt)


# ---- methods beside predictors without a model ----


def _yardsticks(figure: Figure) -> str:
    found = rungs(figure.group)
    left, right, top, step = 250, 80, 14, 24
    canvas = svg.canvas(WIDTH, top + step * len(found) + 52)
    axes = svg.panel(canvas, left, top, WIDTH - left - right, step * len(found))
    marks = {"method": ("o", BLUE), "yardstick": ("o", GREY), "base rate": ("s", ORANGE), "oracle": ("^", GREY)}
    for place, rung in enumerate(found):
        mark, colour = marks[rung.kind]
        face = colour if rung.kind == "method" else svg.PAPER
        axes.plot([rung.value], [place], mark, color=colour, markerfacecolor=face, markersize=7, mew=1.6)
        middle = top + step * (place + 0.5)
        svg.write(canvas, left - 10, middle, short(rung.name, 33), ha="right", va="center")
        svg.write(canvas, WIDTH - right + 12, middle, number(rung.value), ha="left", va="center")
        if rung.kind == "base rate":
            axes.axvline(rung.value, color=ORANGE, linewidth=1.2, zorder=1)
    values = [rung.value for rung in found]
    span = max(max(values) - min(values), 1e-3)
    limits = _r(min(values) - 0.06 * span), _r(max(values) + 0.06 * span)
    axes.set(xlim=limits, ylim=(len(found) - 0.5, -0.5), yticks=[])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(short(rung_metric(figure.group)), labelpad=8, parse_math=False)
    return svg.to_svg(canvas, figure.alt)
