"""A matplotlib figure -> one SVG text: the same bytes for the same figure, readable on light and on dark.

The background is part of the picture and turns with the reader's colour scheme, as do ink and grid; so the plot reads
even where the page around it has another scheme. Colours of data stand on both. What is drawn is `plots`'s.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.text import xml

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARK = "<!-- made by harness leaderboard -->"
INK, MUTED, GRID, PAPER = "#1f2328", "#59636e", "#d1d9e0", "#ffffff"
DARK = {INK: "#e6edf3", MUTED: "#9198a1", GRID: "#3d444d", PAPER: "#0d1117"}
BLUE, ORANGE, GREY = "#3b82d6", "#d1651f", "#808890"  # better, worse, undecided: told apart by shape as well
GREEN, PURPLE = "#2e9460", "#9a63d4"  # with BLUE and GREY the families of adapters, whose names stand beside the marks
WIDTH = 860  # of every plot, in pixels
COLUMN = 7.3  # pixels of a column of 12-pixel text, on the wide side
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read out, searched, and is a tenth of the size
    "svg.hashsalt": "leaderboard",
    "path.simplify": False,
    "font.family": ["DejaVu Sans"],  # shipped with matplotlib, so that sizes are the same everywhere; wider than FONT
    "font.size": 12,
    "text.parse_math": False,  # a name may hold dollars
    "axes.unicode_minus": True,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 1,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "axes.labelsize": 12,
    "axes.axisbelow": True,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "figure.dpi": 72,
    "savefig.dpi": 72,
}


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib with these settings and none of the reader's own."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the viewer's font may have it
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty figure of so many pixels: one unit is one pixel."""
    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasSVG(figure)
    return figure


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels from the upper left corner."""
    whole_width, whole_height = figure.get_size_inches() * 72
    box = (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
    axes = figure.add_axes(box)
    axes.grid(color=GRID, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def write(figure: Figure, x: float, y: float, text: str, **settings: Any) -> None:
    """Text at a place given in pixels from the upper left corner."""
    width, height = figure.get_size_inches() * 72
    figure.text(x / width, 1 - y / height, text, parse_math=False, **settings)


def leader(figure: Figure, x0: float, y0: float, x1: float, y1: float) -> None:
    """A thin line between two places given in pixels from the upper left corner."""
    width, height = figure.get_size_inches() * 72
    xs, ys = [x0 / width, x1 / width], [1 - y0 / height, 1 - y1 / height]
    figure.add_artist(Line2D(xs, ys, color=GREY, linewidth=0.7, transform=figure.transFigure))


def to_svg(figure: Figure, title: str) -> str:
    """The figure's SVG, with a title that is read out and the colours for dark."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*? width="[\d.]+)pt("| [^>]*?" )', r"\1\2", text, count=1)
    text = re.sub(r'(<svg[^>]*? height="[\d.]+)pt"', r'\1"', text, count=1)
    text = re.sub(r"<[^>]+>", _tidy, text)
    head = text.index(">") + 1
    opening = text[: head - 1] + ' role="img">'
    return f"{MARK}\n{opening}\n <title>{xml(title)}</title>\n <style>{_dark()}</style>{text[head:]}"


def _tidy(tag: re.Match[str]) -> str:
    """Hundredths of a pixel are enough, and one font list for all."""
    text = re.sub(r"-?\d+\.\d{3,}(?![\w#])", lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), tag.group())
    text = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", text.replace("'DejaVu Sans'", FONT))
    return re.sub(r"\s*\n\s*", " ", text)


def _dark() -> str:
    rules = "".join(
        f'[style*="{name}: {light}"]{{{name}:{dark} !important}}'
        for light, dark in DARK.items()
        for name in ("fill", "stroke")
    )
    return f"@media (prefers-color-scheme: dark){{{rules}}}"
