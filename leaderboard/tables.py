"""The leaderboard for machines and for papers: JSON, CSV and LaTeX. The markdown is `markdown`, the page is `page`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from tabulate import SEPARATING_LINE, tabulate

from harness.runs import Ceiling, Yardstick
from harness.show import csv_text, interval, number, p_value, shown
from harness.statistics import Rank, row_values, verdict
from harness.text import json_text, one_line

from .rows import Board, Group, Line, Outsider, flags_of, unseen

COSTS = ("trainable_parameters", "parameters_per_adapter", "adapters", "stored_bytes", "fits", "epochs", "steps",
         "tokens", "fit_seconds", "predict_seconds", "peak_memory_bytes")  # fmt: skip
BASE_COSTS = ("trainable_parameters", "fits", "steps", "tokens", "fit_seconds")  # columns named base_...
COLUMNS: tuple[str, ...] = (
    "group", "kind", "rank", "rank_low", "rank_high", "method", "benchmark", "metric", "unit", "estimand", "score",
    "se", "baseline", "delta", "sim_low", "sim_high", "p", "p_adj", "share_improved", "hedges_g", "n_personas",
    "n_replies", "seeds", "unseen_score", "verdict_kind", "verdict", *COSTS,
    *(f"base_{name}" for name in BASE_COSTS), "stands_on", "trials", "flags", "runs", "note",
)  # fmt: skip


def rows_as_json(board: Board) -> list[dict[str, Any]]:
    """All rows as plain data, group by group; last those that belong to no group, with the reason."""
    rows = [
        {
            "group": number,
            "comparable": True,
            "benchmark": group.record.benchmark.name,
            "metric": group.metric,
            "example_set": group.record.hashes.get("examples"),
            "place": line.place,
            "rank": line.rank.tier,
            "rank_low": line.rank.low,
            "rank_high": line.rank.high,
            "is_baseline": line.is_baseline,
            "runs": [run.id for run in line.family.runs],
            "score": line.row.score_micro_pts,
            "cost": line.cost and line.cost.model_dump(),
            **row_values(line.row),
            "flags": flags_of(line),
        }
        for number, group in enumerate(board.groups, 1)
        for line in group.lines
    ]
    for outsider in board.outsiders:
        record = outsider.family.first.record
        kind, words = _not_comparable(outsider)
        rows.append(
            {
                "group": None,
                "comparable": False,
                "benchmark": record.benchmark.name,
                "metric": record.metric,
                "example_set": record.hashes.get("examples"),
                "method": outsider.family.name,
                "place": None,
                "rank": None,
                "rank_low": None,
                "rank_high": None,
                "runs": [run.id for run in outsider.family.runs],
                "n_personas": record.n_personas,
                "n_replies": record.n_replies,
                "verdict_kind": kind,
                "verdict": words,
                "reason": outsider.reason,
            }
        )
    return rows


def as_json(board: Board) -> str:
    """The rows as strict JSON with a final newline."""
    return json_text(rows_as_json(board), indent=2) + "\n"


def _not_comparable(outsider: Outsider) -> tuple[str, str]:
    baseline = str(outsider.family.first.record.config.baseline)
    return verdict(baseline, 0.0, None, p_adj=None, n_personas=0, not_comparable=outsider.reason)


def as_csv(board: Board) -> str:
    """One line per row of every table, those without a method included."""
    return csv_text(list(flat(board)), COLUMNS)


def flat(board: Board) -> Iterator[dict[str, Any]]:
    """Every row of every table as plain values under some of COLUMNS."""
    for place, group in enumerate(board.groups, 1):
        common = {"group": place, "benchmark": group.title, "metric": group.metric, "unit": group.lines[0].row.unit}
        for line in group.lines:
            yield {**common, "kind": "baseline" if line.is_baseline else "method", **_figures(line)}
        for other in others(group):
            figures = {"method": other.name, "score": other.score, "se": other.se, "note": other.note}
            yield {**common, "kind": other.kind, **figures}
    for outsider in board.outsiders:
        record = outsider.family.first.record
        kind, words = _not_comparable(outsider)
        metric = record.metric
        yield {
            "kind": "not comparable",
            "method": outsider.family.name,
            "benchmark": record.benchmark.name,
            "metric": metric,
            "score": shown(record, metric, record.scores.get(metric)),
            "n_personas": record.n_personas,
            "n_replies": record.n_replies,
            "verdict_kind": kind,
            "verdict": words,
            "runs": " ".join(run.id for run in outsider.family.runs),
            "note": outsider.reason,
        }


def _figures(line: Line) -> dict[str, Any]:
    row, c, record = line.row, line.comparison, line.family.first.record
    found = {
        "rank": line.rank.tier,
        "rank_low": line.rank.low,
        "rank_high": line.rank.high,
        "method": line.name,
        "estimand": row.estimand,
        "score": row.score_micro_pts,
        "se": row.se_micro_pts,
        "n_personas": row.n_personas,
        "n_replies": row.n_replies,
        "seeds": " ".join(map(str, row.seeds)),
        "unseen_score": unseen(line.family, record.metric),
        **_cost(line),
        "trials": record.trials,
        "flags": "; ".join(flags_of(line)),
        "runs": " ".join(run.id for run in line.family.runs),
    }
    if c:
        low, high = c.sim_ci_pts or (None, None)
        found |= {
            "baseline": c.baseline,
            "delta": c.delta_pts,
            "sim_low": low,
            "sim_high": high,
            "p": c.p_raw,
            "p_adj": c.p_adj,
            "share_improved": c.share_improved,
            "hedges_g": c.hedges_g,
            "verdict_kind": c.verdict_kind,
            "verdict": c.verdict,
        }
    return found


def _cost(line: Line) -> dict[str, Any]:
    """The method's own cost and, apart, that of what it stands on."""
    own = line.cost
    if own is None:
        return {}
    found = {name: getattr(own, name) for name in COSTS}
    if base := own.stands_on:
        found |= {f"base_{name}": getattr(base, name) for name in BASE_COSTS}
        found["stands_on"] = " ".join(base.methods)
    return found


def rank_text(rank: Rank) -> str:
    """`3 (2-4)`; the rank alone where the interval holds no other."""
    return str(rank.tier) if rank.low == rank.high else f"{rank.tier} ({rank.low}-{rank.high})"


OtherKind = Literal["ceiling", "oracle", "yardstick", "reference"]


class Other(NamedTuple):
    """A row that is no method. se: of the score, where it is known; note: what it is, in words."""

    kind: OtherKind
    name: str
    score: float
    se: float | None
    note: str


def others(group: Group) -> Iterator[Other]:
    """Ceilings, yardsticks and the published score, of those that have the deciding metric."""
    found: list[tuple[OtherKind, Ceiling | Yardstick, str]] = []
    for ceiling in group.record.ceilings:
        found.append(("ceiling", ceiling, f"ceiling: knows {ceiling.knows}"))
    for one in group.record.yardsticks:
        kind: OtherKind = "oracle" if one.oracle else "yardstick"
        found.append((kind, one, f"{kind}: {one.knows}"))
    for what, one, note in found:
        value = shown(group.record, group.metric, one.scores.get(group.metric))
        if value is not None:
            yield Other(what, one.name, value, None, note)
    if reference := group.record.reference:
        yield Other("reference", "published", reference.score, reference.se, reference.source)


def as_latex(board: Board) -> str:
    """One booktabs tabular, a rule between groups; tabulate escapes the cells. Needs \\usepackage{booktabs}.

    Rows that cannot be compared stay out of a paper's table; a comment says how many.
    """
    head = ["group", "rank", "method", "score", "s.e.", "delta", "simultaneous 95 % CI", "p adj.", "parameters",
            "fit s", "verdict"]  # fmt: skip
    rows: list[Any] = []
    notes = ["% Made by `harness leaderboard --format latex`; needs \\usepackage{booktabs}."]
    for place, group in enumerate(board.groups, 1):
        row = group.lines[0].row
        facts = f"{row.n_personas} personas, {row.n_replies} replies, {group.metric} in {row.unit}"
        notes.append(f"% group {place}: {one_line(group.title)}; {one_line(facts)}")
        if reference := group.record.reference:
            notes.append(f"%   published: {one_line(reference.source)}; a constant, not a measured comparison")
        if rows:
            rows.append(SEPARATING_LINE)
        rows += _latex_rows(place, group)
    if board.outsiders:
        notes.append(f"% not comparable with any group, and not shown: {len(board.outsiders)}")
    align = ("right", "right", "left", *["right"] * 7, "left")
    text = (
        tabulate(rows, headers=head, tablefmt="latex_booktabs", disable_numparse=True, colalign=align) if rows else ""
    )
    return "\n".join([*notes, text]).rstrip("\n") + "\n"


def _latex_rows(place: int, group: Group) -> Iterator[Sequence[str]]:
    for line in group.lines:
        row, c, cost = line.row, line.comparison, line.cost
        yield [
            str(place),
            rank_text(line.rank),
            one_line(line.name),
            number(row.score_micro_pts),
            number(row.se_micro_pts),
            number(c.delta_pts, sign=True) if c else "",
            interval(c.sim_ci_pts) if c else "",
            p_value(c.p_adj) if c else "",
            f"{cost.trainable_parameters:,}" if cost else "",
            f"{cost.fit_seconds:.0f}" if cost else "",
            c.verdict_kind if c else "baseline" if line.is_baseline else "",
        ]
    for other in others(group):
        se = "" if other.se is None else number(other.se)
        yield [str(place), "", one_line(other.name), number(other.score), se, *[""] * 6]
