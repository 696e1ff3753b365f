"""A comparison, and two runs side by side, as tables for papers and spreadsheets: markdown, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from harness.compare import Diff, Joint
from harness.show.layout import table
from harness.show.stored_text import joint_lines
from harness.text import csv_cell, markdown

_TABULATE = {"markdown": "github", "latex": "latex_booktabs"}


def joint_table(found: Joint, form: str) -> str:
    """A row for each method, the baseline last. CSV has full figures, the others those of the text."""
    if form == "csv":
        return csv_text(joint_rows(found))
    verdicts = [row.verdict for row in found.rows]
    lines = [{"method": line.pop(""), **line} for line in joint_lines(found)]
    kinds = [row.verdict_kind for row in found.rows]
    last = verdicts if form == "markdown" else kinds  # a paper's table has no room for sentences
    return _printed([{**line, "verdict": words} for line, words in zip(lines, [*last, ""], strict=True)], form)


def joint_rows(found: Joint) -> list[dict[str, Any]]:
    """The same rows as plain values, with full figures in the metric's unit."""
    return [_figures(row, found) for row in (*found.rows, found.own)]


def diff_table(found: Diff, top: int, form: str) -> str:
    """A row for each of the examples that differ most."""
    first, second = found.runs
    rows = [
        {
            "example": x.id,
            "persona": x.persona,
            first: x.scores[0],
            second: x.scores[1],
            "difference": x.delta,
            "prompt": x.prompt,
            "reference": x.reference,
            f"reply of {first}": x.replies[0],
            f"reply of {second}": x.replies[1],
        }
        for x in found.examples[:top]
    ]
    if form == "csv":
        return csv_text(rows)
    return _printed([{name: _shown(value) for name, value in row.items()} for row in rows], form)


def _shown(value: Any) -> Any:
    return f"{value:.3f}" if isinstance(value, float) else value


def _figures(row: Any, found: Joint) -> dict[str, Any]:
    """One row of CSV, in the metric's unit."""
    micro, compared = found.estimand == "micro", row is not found.own
    values = {
        "method": row.method,
        "kind": "method" if compared else "baseline",
        "metric": found.metric,
        "unit": row.unit,
        "estimand": found.estimand,
        "score": row.score_micro_pts if micro else row.score_macro_pts,
        "seeds": " ".join(map(str, row.seeds)),
        "personas": row.n_personas,
    }
    names = ("delta", "se", "df", "ci95_low", "ci95_high", "sim_low", "sim_high", "p", "p_adj", "verdict_kind")
    if not compared:
        return {**values, **dict.fromkeys(names)}
    own, joint = row.ci95_pts or (None, None), row.sim_ci_pts or (None, None)
    figures = (row.delta_pts, row.se_pts, row.df, *own, *joint, row.p_raw, row.p_adj, row.verdict_kind)
    return {**values, **dict(zip(names, figures, strict=True))}


def _printed(rows: Sequence[Mapping[str, Any]], form: str) -> str:
    if not rows:
        return ""
    if form == "markdown":
        rows = [{markdown(k): None if v is None else markdown(v) for k, v in row.items()} for row in rows]
    return table(rows, _TABULATE[form]) + "\n"


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as CSV: RFC 4180 with plain newlines.

    columns  None: those of the first row. What a row does not have is empty
    Text that a spreadsheet would take for a formula has an apostrophe in front.
    """
    file = io.StringIO()
    names = columns or (list(rows[0]) if rows else [])
    if names:
        writer = csv.DictWriter(file, names, lineterminator="\n")  # refuses what is in no column
        writer.writerow({name: csv_cell(name) for name in names})
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.10g}"  # enough digits for any use, and the same ones on every machine
    return value if value is None or isinstance(value, int) else csv_cell(value)
