"""The leaderboard as one HTML file that needs nothing else: data as JSON, and page.css, page.js put into page.html.

The page's script writes data into the document as text alone, and a policy in its head forbids every other script and
every address: neither a name nor a reply can be more than text. Layout and behaviour are in the files beside.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from harness.show import interval, number, p_value
from harness.text import script_json, without_places

from .figures import figures
from .replies import EXAMPLES, MOST_CHARACTERS, RULE, Examples, examples
from .rows import Board, Group, Line, flags_of, glossary, unseen
from .tables import Other, others

REPLIES_WORDS = (
    "Published records keep sums per persona and no replies: only methods whose stored run is at hand have any here."
)


def render(
    board: Board,
    drawn: Mapping[str, str],
    most_examples: int = EXAMPLES,
    readme: str = "README.md",
    note: Callable[[str], None] = warnings.warn,
) -> str:
    """The page. `drawn`: file name -> SVG of every plot; `readme`: the markdown beside it; `note`: see `examples`."""
    data = {
        "readme": readme,
        "groups": [
            _group(group, place, drawn, examples(group, most_examples, note))
            for place, group in enumerate(board.groups, 1)
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


def _group(group: Group, place: int, drawn: Mapping[str, str], shown: Examples) -> dict[str, Any]:
    row = group.lines[0].row
    reference = next((line.row.reference for line in group.lines if line.row.reference), None)
    return {
        "key": group.key,
        "place": place,
        "title": group.title,
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
            *(_row(line, rank, group.metric) for rank, line in enumerate(group.lines, 1)),
            *map(_other, others(group)),
        ],
        "glossary": glossary(group.lines),
        "plots": [{"title": f.title, "alt": f.alt, "caption": f.caption, "svg": drawn[f.file]} for f in figures(group)],
        "examples": _examples(group, shown),
    }


def _row(line: Line, rank: int, metric: str) -> dict[str, Any]:
    row, c = line.row, line.comparison
    kind = "baseline" if line.is_baseline else "method"
    flags = flags_of(line)
    low = c.sim_ci_pts[0] if c and c.sim_ci_pts else None
    cells = {
        "rank": _cell(str(rank), rank),
        "method": _cell(line.name, line.name.lower()),
        "score": _figure(row.score_micro_pts),
        "se": _figure(row.se_micro_pts),
        "flags": _cell(", ".join(flags), len(flags)),
        "verdict": _cell("baseline", "baseline") if line.is_baseline else _cell("", None),
        "words": _cell("the baseline", "the baseline") if line.is_baseline else _cell("", None),
        "unseen": _figure(unseen(line.family, metric)),
        "seeds": _cell(str(len(row.seeds)), len(row.seeds)),
        "published": _figure(row.reference.delta_pts if row.reference else None, sign=True),
    }
    if cost := line.cost:
        trained, base = cost.trainable_parameters, cost.stands_on
        cells |= {"parameters": _cell(f"{trained:,}", trained), "fit": _figure(cost.fit_seconds, 0)}
        cells |= {"base": _figure(base.fit_seconds, 0)} if base and base.methods else {}
    if c:
        cells |= {
            "delta": _figure(c.delta_pts, sign=True),
            "ci": _cell(interval(c.sim_ci_pts) if c.sim_ci_pts else "", low),
            "p": _cell(p_value(c.p_adj) if c.p_adj is not None else "", c.p_adj),
            "improved": _cell(f"{c.share_improved:.0%}", c.share_improved),
            "verdict": _cell(c.verdict_kind, c.verdict_kind),
            "words": _cell(c.verdict, c.verdict.lower()),
        }
    return {"kind": kind, "flags": flags, "runs": [run.id for run in line.family.runs], "cells": cells}


def _other(other: Other) -> dict[str, Any]:
    """A ceiling, a yardstick or the published score: a row without rank."""
    cells = {"method": _cell(other.name, other.name.lower()), "score": _figure(other.score), "se": _figure(other.se)}
    words = _cell(other.note, other.note.lower())
    return {"kind": "other", "flags": [], "runs": [], "cells": cells | {"words": words}}


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
