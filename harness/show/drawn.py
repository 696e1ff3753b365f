"""Pictures of a comparison and of two runs, for a file: matplotlib, light, no settings of the reader's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.compare import Diff, Joint
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

    _draw(draw, path)


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

    _draw(draw, path)


def _short(name: str) -> str:
    text = one_line(name)
    return text if len(text) <= 48 else f"{text[:47]}…"


def _finish(axes: Any, label: str) -> None:
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    axes.set_xlabel(label)
    axes.grid(axis="x", linewidth=0.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _draw(draw: Any, path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(layout="constrained")
        draw(figure)
        facts = {"Date": None} if path.suffix.lower() == ".svg" else None
        try:
            figure.savefig(path, dpi=150, metadata=facts)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}; choose another file") from error
