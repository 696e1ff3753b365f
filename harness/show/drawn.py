"""Pictures of a comparison and of two runs, for a file: matplotlib, light, no settings of the reader's own."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.compare import Diff, Joint, View
from harness.errors import HarnessError, StoreError
from harness.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".svg", ".png", ".pdf")
INK, BLUE, ORANGE, GREY = "#59636e", "#3b82d6", "#d1651f", "#808890"  # better, worse, undecided
SETTINGS: dict[Any, Any] = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "harness"}


def check_picture(path: Path | None) -> None:
    """Raises HarnessError for a file whose ending is no format of pictures."""
    if path is not None and path.suffix.lower() not in ENDINGS:
        raise HarnessError(f"--plot {path}: give it one of the endings {', '.join(ENDINGS)}")


def draw_joint(found: Joint, path: Path) -> None:
    """The forest plot in a file."""
    _written(joint_figure(found), path)


def joint_figure(found: Joint) -> Figure:
    """A forest plot: differences from the baseline, thick 95 % intervals on thin simultaneous ones."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figure.set_size_inches(8, 1.4 + 0.35 * len(found.rows))
        colours = {"better": BLUE, "worse": ORANGE}
        for place, row in enumerate(found.rows):
            colour = colours.get(row.verdict_kind, GREY)
            for ends, width in ((row.sim_ci_pts, 1.2), (row.ci95_pts, 3.2)):
                low, high = ends or (None, None)
                if low is not None and high is not None:
                    axes.plot([low, high], [place, place], color=colour, linewidth=width, solid_capstyle="butt")
            axes.plot([row.delta_pts], [place], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(found.rows)), [_short(row.method) for row in found.rows])
        axes.set_ylim(len(found.rows) - 0.5, -0.5)
        unit = "" if found.own.unit == "raw" else f" ({found.own.unit})"
        way = "higher" if found.own.higher_is_better else "lower"
        _finish(axes, f"{found.metric}: difference from {_short(found.own.method)}{unit}; {way} is better")

    return _drawn(draw)


def persona_figure(seen: View) -> Figure:
    """Every persona's score with its 95 % interval (shrunken where it has an estimate), in the order of the scores."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figure.set_size_inches(8, 4)
        rows = sorted(seen.personas, key=lambda one: one.mean if one.estimate is None else one.estimate)
        for place, one in enumerate(rows, 1):
            if one.low is not None and one.high is not None:
                axes.plot([place, place], [one.low, one.high], color=BLUE, alpha=0.35, linewidth=1.5)
        scores = [one.mean if one.estimate is None else one.estimate for one in rows]
        axes.plot(range(1, len(rows) + 1), scores, ".", color=BLUE, markersize=4)
        axes.set_xlabel("personas in the order of their scores")
        axes.set_ylabel(seen.metric if seen.unit == "raw" else f"{seen.metric} ({seen.unit})")
        axes.grid(axis="y", linewidth=0.5)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)

    return _drawn(draw)


def draw_diff(found: Diff, path: Path) -> None:
    """All examples in the order of their differences."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        figure.set_size_inches(8, 4)
        deltas = sorted((x.delta for x in found.examples), reverse=True)
        places = range(1, len(deltas) + 1)
        axes.fill_betweenx(places, deltas, color=BLUE, alpha=0.35, linewidth=0)
        axes.plot(deltas, places, ".-", color=BLUE, linewidth=1, markersize=3)
        axes.set_ylabel("examples")
        axes.invert_yaxis()
        unit = "" if found.unit == "raw" else f" ({found.unit})"
        _finish(axes, f"{found.metric}: {_short(found.runs[1])} minus {_short(found.runs[0])}{unit}")

    _written(_drawn(draw), path)


def _short(name: str) -> str:
    text = one_line(name)
    return text if len(text) <= 48 else f"{text[:47]}…"


def _finish(axes: Any, label: str) -> None:
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    axes.set_xlabel(label)
    axes.grid(axis="x", linewidth=0.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _drawn(draw: Callable[[Figure], None]) -> Figure:
    """A figure that a notebook shows as it stands, whatever backend is set there."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            with _plainly():
                self.savefig(file, format="png", dpi=100)
            return file.getvalue()

    with _plainly():
        figure = Picture(layout="constrained")
        draw(figure)
    return figure


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def _written(figure: Figure, path: Path) -> None:
    facts = {"Date": None} if path.suffix.lower() == ".svg" else None
    try:
        with _plainly():
            figure.savefig(path, dpi=150, metadata=facts)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; choose another file") from error
