"""Draws the plots of `figures` with matplotlib. How a drawing becomes an SVG is `svg`'s.

Everything is placed in pixels, by the length of its text: no label lies on another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

from harness.show import interval, number

from . import svg
from .figures import MOST_ROWS, Figure, Point, compared_lines, marked, pairs, points, rung_metric, rungs, unit_words
from .svg import BLUE, GREY, INK, MUTED, ORANGE
from .tables import others
from .text import columns, short

WIDTH = 860
COLUMN = 7.3  # pixels of a column of 12-pixel text, on the wide side


def draw(figures: Iterable[Figure]) -> dict[str, str]:
    """File name -> SVG of each plot."""
    drawers: dict[str, Callable[[Figure], str]] = {
        "forest": _forest, "personas": _personas, "yardsticks": _yardsticks, "cost": _cost,
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


# ---- persona by persona ----


def _personas(figure: Figure) -> str:
    panels = pairs(figure.group)
    across = min(3, len(panels))
    side, gap, top = 216, 62, 66
    down = math.ceil(len(panels) / across)
    canvas = svg.canvas(WIDTH, down * (side + top) + 34)
    values = [x for pair in panels for x in (*pair.method, *pair.baseline)]
    span = max(max(values) - min(values), 1e-3)
    limits = (min(values) - 0.05 * span, max(values) + 0.05 * span)
    start = (WIDTH - across * side - (across - 1) * gap) / 2 + 14
    sign = 1 if _up(figure) else -1
    assert figure.group.baseline
    base = short(figure.group.baseline.name, 24)
    for place, pair in enumerate(panels):
        row, column = divmod(place, across)
        left, above = start + column * (side + gap), top - 20 + row * (side + top)
        axes = svg.panel(canvas, left, above, side, side)
        axes.plot(limits, limits, color=MUTED, linewidth=1.2, zorder=1)
        gains = [sign * (m - b) for m, b in zip(pair.method, pair.baseline, strict=True)]
        for colour, chosen in ((GREY, 0), (ORANGE, -1), (BLUE, 1)):
            where = [i for i, gain in enumerate(gains) if (gain > 0) - (gain < 0) == chosen]
            _dots(axes, [pair.baseline[i] for i in where], [pair.method[i] for i in where], colour)
        axes.set(xlim=limits, ylim=limits)
        axes.locator_params(nbins=4)
        svg.write(canvas, left, above - 25, short(pair.name, 33), ha="left", va="center")
        share = f"{pair.share_improved:.0%} of {len(gains)} personas improved"
        svg.write(canvas, left, above - 10, share, ha="left", va="center", color=MUTED, fontsize=11)
        if column == 0:
            axes.set_ylabel("under the method", parse_math=False)
        if place + across >= len(panels):
            axes.set_xlabel(f"under {base}", parse_math=False)
    return svg.to_svg(canvas, figure.alt)


def _dots(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str) -> None:
    """All dots as one path of lines without length and round ends: a tenth of the bytes of markers."""
    if not x:
        return
    corners = [corner for xy in zip(x, y, strict=True) for corner in (xy, xy)]
    outline = Outline(corners, [Outline.MOVETO, Outline.LINETO] * len(x))
    axes.add_patch(PathPatch(outline, edgecolor=colour, linewidth=4.5, capstyle="round", fill=False, snap=False))


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


# ---- score against cost ----


def _cost(figure: Figure) -> str:
    group = figure.group
    costs = (("trained parameters, base included", "trainable_parameters", 0.0),
             ("fit seconds, base included", "fit_seconds", 1.0))  # fmt: skip
    panels = [points(group, cost) for _, cost, _ in costs]
    kept = marked(panels)
    panels = [[point for point in found if point.rank in kept] for found in panels]
    in_key = math.ceil(len(kept) / 2)
    top, side, tall = 36, 310, 270
    canvas = svg.canvas(WIDTH, top + tall + 74 + 18 * in_key)
    scores = [point.score for point in panels[0]]
    span = max(max(scores) - min(scores), 0.02 * abs(max(scores)), 1e-3)
    low, high = min(scores) - 0.12 * span, max(scores) + 0.12 * span
    known = [(other.name, round(other.score, 4)) for other in others(group)]
    near = [score for _, score in known if low - 0.5 * span <= score <= high + 0.5 * span]
    low, high = min([low, *(x - 0.04 * span for x in near)]), max([high, *(x + 0.04 * span for x in near)])
    inside = [(name, score) for name, score in known if low <= score <= high]
    lefts = (62, 62 + side + 34)
    for left, found, (words, _, least) in zip(lefts, panels, costs, strict=True):
        axes = svg.panel(canvas, left, top, side, tall)
        for _, score in inside:
            axes.axhline(score, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.set_ylim(low, high)
        _scatter(axes, found, least)
        axes.set_xlabel(words, labelpad=6, parse_math=False)
    canvas.axes[1].tick_params(labelleft=False)
    unit = unit_words(group)
    canvas.axes[0].set_ylabel(short(group.metric) + (f", {unit}" if unit else ""), parse_math=False)
    edge = lefts[1] + side
    places = [top + tall * (high - score) / (high - low) for _, score in inside]
    for (name, score), y, spread in zip(inside, places, _apart(places, 15, top, top + tall), strict=True):
        _leader(canvas, edge, y, edge + 12, spread)
        svg.write(
            canvas, edge + 16, spread, f"{short(name, 16)} {number(score)}", va="center", color=MUTED, fontsize=10
        )
    for place, point in enumerate(panels[1]):
        column, row = divmod(place, in_key)
        words = f"{point.rank}  {short(point.name, 44)}" + (", baseline" if point.is_baseline else "")
        words += "" if point.is_whole else ", without its base"
        svg.write(canvas, 62 + column * 400, top + tall + 66 + 18 * row, words, va="center")
    return svg.to_svg(canvas, figure.alt)


def _scatter(axes: Axes, found: Sequence[Point], least: float) -> None:
    """Dots with their ranks on a logarithmic axis; costs of at most `least` have one place of their own at its left."""
    paid = [p.cost for p in found if p.cost > least] or [max(least, 1.0)]
    first, last = math.floor(math.log10(min(paid))), math.ceil(math.log10(max(paid)))
    last = max(last, first + 1)
    free = any(p.cost <= least for p in found)
    start = first - max(0.18 * (last - first), 0.5) if free else first

    def place(cost: float) -> float:
        return start if cost <= least else round(math.log10(cost), 5)

    every = max(1, math.ceil((last - first) / 6))
    ticks = list(range(first, last + 1, every))
    labels = [_amount(10.0**tick) for tick in ticks]
    axes.set_xticks(
        [*([start] if free else []), *ticks], [*([f"≤{least:g}" if least else "0"] if free else []), *labels]
    )
    room = 0.08 * (last - start)
    axes.set_xlim(start - room, last + room)
    front = sorted((place(p.cost), p.score) for p in found if p.on_front)
    if len(front) > 1:
        axes.step([x for x, _ in front], [y for _, y in front], where="post", color=BLUE, linewidth=1.4, zorder=2)
    for p in found:
        mark = "x" if p.is_control else "s" if p.is_baseline else "o"
        face = BLUE if p.on_front else svg.PAPER
        colour = BLUE if p.on_front else GREY
        axes.plot([place(p.cost)], [p.score], mark, color=colour, markerfacecolor=face, markersize=8, mew=1.6, zorder=3)
    _ranks(axes, [(place(p.cost), p.score, str(p.rank)) for p in found])


def _amount(value: float) -> str:
    for size, word in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{word}"
    return f"{value:g}"


def _ranks(axes: Axes, marks: Sequence[tuple[float, float, str]]) -> None:
    """Each rank beside its dot, on the first of eight sides where it covers no dot and no other rank."""
    box = axes.get_window_extent()
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    dots = [((x - x0) / (x1 - x0) * box.width, (y - y0) / (y1 - y0) * box.height) for x, y, _ in marks]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    for (x, y), (_, _, text) in zip(dots, marks, strict=True):
        wide, tall = 7.5 * len(text), 11
        sides = [(i * (7 + wide / 2), j * 12) for i, j in
                 ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))]  # fmt: skip
        boxes = [(x + dx - wide / 2, y + dy - tall / 2, x + dx + wide / 2, y + dy + tall / 2) for dx, dy in sides]
        free = [b for b in boxes if not any(_overlap(b, other) for other in taken)]
        b = (free or boxes)[0]
        taken.append(b)
        at = ((b[0] + b[2]) / 2 / box.width, (b[1] + b[3]) / 2 / box.height)
        paper = {"facecolor": svg.PAPER, "edgecolor": "none", "pad": 0.5}  # over the lines, under the dots
        style = {"ha": "center", "va": "center_baseline", "color": INK, "fontsize": 11, "bbox": paper, "zorder": 2.5}
        axes.text(*at, text, transform=axes.transAxes, **style)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _apart(places: Sequence[float], least: float, low: float, high: float) -> list[float]:
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


def _leader(canvas, x0: float, y0: float, x1: float, y1: float) -> None:
    from matplotlib.lines import Line2D

    width, height = canvas.get_size_inches() * 72
    xs, ys = [x0 / width, x1 / width], [1 - y0 / height, 1 - y1 / height]
    canvas.add_artist(Line2D(xs, ys, color=GREY, linewidth=1, transform=canvas.transFigure))
