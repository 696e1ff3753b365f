"""The leaderboard as one HTML file that needs nothing else: data as JSON, and page.css, page.js put into page.html.

The page's script writes data into the document as text alone, and a policy in its head forbids every other script and
every address: neither a name nor a reply can be more than text. Layout and behaviour are in the files beside.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import warnings
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from harness.show import interval, number, p_value
from harness.text import one_line, script_json, without_places

from .figures import Figure, figures, whole_cost
from .headline import counts, headline
from .picking import EXAMPLES, RULE
from .replies import MOST_CHARACTERS, Examples, examples
from .rows import Board, Group, Line, flags_of, glossary, unseen
from .tables import Other, others, rank_text
from .titles import titles

REPLIES_WORDS = (
    "Published records contain sums per persona and no replies. Replies are shown only for methods whose stored run is "
    "available, or of which a sample was published."
)


def render(
    board: Board,
    drawn: Mapping[str, str],
    most_examples: int = EXAMPLES,
    readme: str = "README.md",
    note: Callable[[str], None] = warnings.warn,
) -> str:
    """The page. `drawn`: file name -> SVG of every plot; `readme`: the markdown beside it; `note`: see `examples`."""
    names, first = titles(board.groups), headline(board)
    data = {
        "readme": readme,
        "headline": first and {"place": first.place, "sentences": first.sentences},
        "groups": [
            _group(group, place, name, drawn, examples(group, most_examples, note))
            for place, (group, name) in enumerate(zip(board.groups, names, strict=True), 1)
        ],
        "outsiders": [
            {
                "method": outsider.family.name,
                "benchmark": outsider.family.first.record.benchmark.name,
                "reason": outsider.reason,
                "runs": [run.id for run in outsider.family.runs],
            }
            for outsider in board.outsiders
        ],
        "unfinished": [
            {"run": r.id, "status": r.record.status, "reason": without_places(r.record.error or "not finished")}
            for r in board.unfinished
        ],
        "rule": RULE,
        "words": REPLIES_WORDS,
        "most_characters": MOST_CHARACTERS,
    }
    style, script = _part("page.css"), _part("page.js")
    page = _part("page.html")
    # The template first names each part once; the data go in last, so that nothing in them is taken for a part.
    for name, text in (
        ("POLICY", f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"),
        ("STYLE", style),
        ("SCRIPT", script),
        ("DATA", script_json(data)),
    ):
        before, mark, after = page.partition(f"@@{name}@@")
        assert mark, f"page.html has no place for {name}"
        page = before + text + after
    return page


def _part(name: str) -> str:
    return files(__name__.rpartition(".")[0]).joinpath(name).read_text(encoding="utf-8")


def _group(group: Group, place: int, name: str, drawn: Mapping[str, str], shown: Examples) -> dict[str, Any]:
    row = group.lines[0].row
    reference = next((line.row.reference for line in group.lines if line.row.reference), None)
    return {
        "key": group.key,
        "place": place,
        "title": name,
        "facts": one_line(group.title),
        "finding": counts(group),
        "metric": group.metric,
        "unit": row.unit,
        "higher_is_better": row.higher_is_better,
        "summary": group.summary,
        "estimand": row.estimand,
        "n_personas": group.record.n_personas,
        "n_replies": group.record.n_replies,
        "backbone": None if group.record.imported else group.record.config.backbone,
        "baseline": group.baseline.name if group.baseline else None,
        "caveat": reference.caveat if reference else None,
        "reference": number(reference.score_pts) if reference else None,
        "reference_note": group.record.reference and group.record.reference.note,
        "rows": [
            *(_row(line, group.metric) for line in group.lines),
            *map(_other, others(group)),
        ],
        "glossary": glossary(group.lines),
        "plots": [_plot(figure, drawn[figure.file]) for figure in figures(group)],
        "examples": _examples(group, shown),
    }


def _plot(figure: Figure, svg: str) -> dict[str, Any]:
    """A plot with its size in pixels, so that the page keeps its place before it is drawn."""
    width, height = (float(found.group(1)) for name in ("width", "height") if (found := _size(name).search(svg)))
    words = {"kind": figure.kind, "title": figure.title, "alt": figure.alt, "caption": figure.caption}
    return {**words, "width": round(width), "height": round(height), "svg": svg}


def _size(name: str) -> re.Pattern[str]:
    return re.compile(rf'<svg[^>]*? {name}="([\d.]+)"')


def _row(line: Line, metric: str) -> dict[str, Any]:
    row, c = line.row, line.comparison
    kind = "baseline" if line.is_baseline else "method"
    flags = flags_of(line)
    low = c.sim_ci_pts[0] if c and c.sim_ci_pts else None
    cells = {
        "rank": _cell(rank_text(line.rank), line.place),
        "method": _cell(line.name, line.name.lower()),
        "score": _figure(row.score_micro_pts),
        "se": _figure(row.se_micro_pts),
        "flags": _cell(", ".join(flags), len(flags)),
        "verdict": _cell("baseline", "baseline") if line.is_baseline else _cell("", None),
        "unseen": _figure(unseen(line.family, metric)),
        "seeds": _cell(str(len(row.seeds)), len(row.seeds)),
    }
    if line.cost:
        cells |= {"parameters": _whole(line, "trainable_parameters"), "fit": _whole(line, "fit_seconds")}
    if c:
        cells |= {
            "delta": _figure(c.delta_pts, sign=True),
            "ci": _cell(interval(c.sim_ci_pts) if c.sim_ci_pts else "", low),
            "p": _cell(p_value(c.p_adj) if c.p_adj is not None else "", c.p_adj),
            "improved": _cell(f"{c.share_improved:.0%}", c.share_improved),
            "verdict": _cell(c.verdict_kind, c.verdict_kind),
        }
    runs = [run.id for run in line.family.runs]
    return {"kind": kind, "flags": flags, "runs": runs, "cells": cells, "words": line.words, "cost": _cost_words(line)}


def _whole(line: Line, cost: str) -> list[Any]:
    """A cost of the whole chain; at least so much where that of the base is not known."""
    amount, known = whole_cost(line, cost)
    return _cell(f"{'' if known else '≥ '}{amount:,.0f}", amount)


def _cost_words(line: Line) -> str:
    """How a row's cost is made up: the method's own, and that of what it stands on."""
    cost = line.cost
    if cost is None:
        return ""
    own = f"own {cost.trainable_parameters:,} parameters, {cost.fit_seconds:,.0f} s"
    base = cost.stands_on
    if base and base.methods:
        below = f"{', '.join(base.methods)} {base.trainable_parameters:,} parameters, {base.fit_seconds:,.0f} s"
        return f"{own}; {below}"
    return own if whole_cost(line, "fit_seconds")[1] else f"{own}; without its base, whose cost is not known"


def _other(other: Other) -> dict[str, Any]:
    """A ceiling, a yardstick or the published score: a row without rank."""
    cells = {"method": _cell(other.name, other.name.lower()), "score": _figure(other.score), "se": _figure(other.se)}
    return {"kind": "other", "flags": [], "runs": [], "cells": cells, "words": other.note, "cost": ""}


def _figure(value: float | None, digits: int = 2, *, sign: bool = False) -> list[Any]:
    return _cell("" if value is None else number(value, digits, sign), value)


def _cell(text: str, value: float | str | None) -> list[Any]:
    """[what is read, as in the markdown; what is sorted by, with as many decimals as are the same on every machine]."""
    return [text, round(value, 4) if isinstance(value, float) else value]


def _examples(group: Group, found: Examples) -> dict[str, Any]:
    return {
        "of": found.n_replies,
        "without": [group.lines[place].name for place in found.without],
        "chosen": [dataclasses.asdict(example) for example in found.chosen],
    }
