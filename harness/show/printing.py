"""Text for people: the small table and the sentence after a run, listings. Stored runs: `stored_text`. No computing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.compare import Family, NotComparableError, against_base_rates, comparison_rows
from harness.runs import Cost, RunRecord, StoredRun
from harness.scoring import scale
from harness.show.layout import Block, as_text
from harness.statistics import ComparisonRow, row_json

if TYPE_CHECKING:
    from harness.runner import Outcome


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A figure for a table; a plain dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def p_value(p: float | None) -> str:
    """A p-value as papers print it."""
    return "-" if p is None else "<.001" if p < 0.001 else f"{p:.3f}"


def interval(pair: Sequence[float | None] | None, sign: bool = True, digits: int = 2) -> str:
    """`[+1.20, +2.60]`, unbounded sides as infinities; "-" where there is none."""
    if pair is None:
        return "-"
    ends = zip(pair, ("-inf", "inf"), strict=True)
    low, high = (number(x, digits, sign) if x is not None else end for x, end in ends)
    return f"[{low}, {high}]"


def shown(record: RunRecord, name: str, value: float | None) -> float | None:
    """A stored score of a run's metric in the unit in which people read it."""
    return None if value is None else value * scale(record.metric_sums(name).unit)


def metric_head(record: RunRecord, name: str) -> str:
    """A run's metric as the head of a column, with its unit."""
    unit = record.metric_sums(name).unit
    return f"{name} ({unit})" if unit != "raw" else name


def score_line(
    name: str, head: str, score: float | None, row: ComparisonRow | None, cost: Cost | None
) -> dict[str, str]:
    """One line of the table of scores: a method with its difference from the baseline and what it cost."""
    return {
        "": name,
        head: number(score),
        "delta": number(row.delta_pts, sign=True) if row else "",
        "95 % CI": interval(row.ci95_pts) if row else "",
        "simultaneous CI": interval(row.sim_ci_pts) if row else "",
        "p": p_value(row.p_raw) if row else "",
        "p adj.": p_value(row.p_adj) if row else "",
        "parameters": f"{cost.trainable_parameters:,}" if cost else "",
        "fit s": f"{cost.fit_seconds:.0f}" if cost else "",
        "base fit s": f"{cost.stands_on.fit_seconds:.0f}" if cost and cost.stands_on else "",
        "reply s": f"{cost.predict_seconds:.0f}" if cost else "",
    }


def note_lines(notes: Mapping[str, Any], most: int = 5) -> list[str]:
    """What a method has noted, a line each; of a long mapping the first few entries."""
    lines = []
    for name, value in notes.items():
        if isinstance(value, Mapping):
            items = [f"{key}: {' '.join(map(str, v)) if isinstance(v, list) else v}" for key, v in value.items()]
            more = [f"and {len(items) - most} more in the record"] if len(items) > most + 1 else []
            lines.append(f"{name}: " + "; ".join([*(items[:most] if more else items), *more]))
        else:
            lines.append(f"{name}: {value}")
    return lines


def outcome_text(outcome: Outcome) -> str:
    """The table, ceilings and verdict of a run."""
    return as_text(outcome_blocks(outcome))


def outcome_blocks(outcome: Outcome) -> list[Block]:
    """Tables of scores, of other metrics and of yardsticks, then sentences."""
    record, row = outcome.run.record, outcome.row
    decides = record.metric
    head = metric_head(record, decides)
    runs = [outcome.run, outcome.baseline] if row else [outcome.run]
    lines = []
    for run in runs:
        score = shown(run.record, decides, run.record.scores[decides])
        lines.append(score_line(run.record.row_name, head, score, None if lines else row, run.record.cost))
    for ceiling in outcome.ceilings:
        lines.append({"": ceiling.name, head: number(shown(record, decides, ceiling.scores[decides]))})
    keys = list(lines[0])
    text: list[Block] = [[{key: line.get(key, "") for key in keys} for line in lines]]
    others = [m for m in record.metrics[1:] if record.scores.get(m) is not None]
    if others:
        text.append([_also(runs, m, row is not None) for m in others])
    if yardsticks := yardstick_lines(record):
        text.append(yardsticks)
    text.append(f"{record.n_personas} personas, {record.n_replies} replies, seed {record.seed}, run {record.id}")
    if unseen := record.unseen:
        before = outcome.baseline.record.unseen
        text.append(
            f"{unseen.n_personas} personas held out of all training, {unseen.n_replies} replies: "
            f"{number(shown(record, decides, unseen.scores.get(decides)))}"
            + (f" (baseline {number(shown(record, decides, before.scores.get(decides)))})" if row and before else "")
        )
    text += note_lines(record.notes)
    for run in runs:
        if run.record.flags:
            text.append(f"flags of {run.id}: {'; '.join(map(str, run.record.flags))}")
    if row:
        if row.flags:
            text.append("flags of the comparison: " + ", ".join(row.flags))
        text.append(f"{record.row_name}: {row.verdict}")
    text += base_rate_lines([Family(run.record.row_name, (run,)) for run in runs])
    own = row or outcome.baseline_row
    if own.reference:
        against = own.reference
        text.append(
            f"against the published {against.score_pts:.2f} ({against.source}): {against.delta_pts:+.2f}, "
            f"p {p_value(against.p)}; " + against.caveat
        )
    return text


def _also(runs: Sequence[StoredRun], metric: str, compared: bool) -> dict[str, str]:
    """A metric that does not decide: both scores, and the difference with its own 95 % interval where it has one."""
    record = runs[0].record
    digits = digits_of(record, metric)
    line = {"also measured": metric_head(record, metric)}
    for run in runs:
        line[run.record.row_name] = number(shown(run.record, metric, run.record.scores.get(metric)), digits)
    if compared:
        row = None
        with contextlib.suppress(NotComparableError):  # undefined for one of the two
            method, baseline = (Family(name, (run,)) for name, run in zip(("method", "baseline"), runs, strict=True))
            (row,) = comparison_rows(baseline, [method], metric)[1]
        line["delta"] = number(row.delta_pts, digits, sign=True) if row else ""
        line["95 % CI"] = interval(row.ci95_pts, digits=digits) if row and row.ci95_pts else ""
    return line


def digits_of(record: RunRecord, metric: str) -> int:
    """Decimals with which a metric's scores are shown."""
    return 2 if record.metric_sums(metric).unit == "pt" else 3


def yardstick_lines(record: RunRecord) -> list[dict[str, str]]:
    """The record's yardsticks, one a line, under all metrics that they have values of."""
    lines = []
    for one in record.yardsticks:
        line = {"yardstick": f"{one.name} (oracle)" if one.oracle else one.name}
        for metric in record.metrics:
            value = shown(record, metric, one.scores.get(metric))
            line[metric_head(record, metric)] = "" if value is None else number(value, digits_of(record, metric))
        lines.append(line)
    return lines


def base_rate_lines(families: Sequence[Family]) -> list[str]:
    """A sentence for each method and base rate: whether it beats it."""
    return [
        f"{against.sentence(row)}: {number(row.delta_pts, 3, sign=True)} {interval(row.sim_ci_pts, digits=3)}, "
        f"p adj. {p_value(row.p_adj)}"
        for against in against_base_rates(families)
        for row in against.rows
    ]


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The run as one JSON object; scores and differences in points where the metric is a share."""
    record, row = outcome.run.record, outcome.row
    decides = record.metric
    own = row or outcome.baseline_row
    return {
        **row_json(own),
        "se": row.se_pts if row else own.se_micro_pts,
        "method": record.method,
        "control": record.config.control,
        "metric": decides,
        "score": shown(record, decides, record.scores[decides]),
        "baseline": outcome.baseline.record.method,
        "baseline_score": shown(outcome.baseline.record, decides, outcome.baseline.record.scores[decides]),
        "verdict": outcome.verdict,
        "scores": {m: shown(record, m, record.scores.get(m)) for m in record.metrics},
        "ceilings": {c.name: shown(record, decides, c.scores[decides]) for c in outcome.ceilings},
        **yardsticks_json([Family(record.method, (outcome.run,))]),
        "n_personas": record.n_personas,
        "n_replies": record.n_replies,
        "seed": record.seed,
        "cost": record.cost and record.cost.model_dump(),
        "flags": [*map(str, record.flags), *(row.flags if row else ())],
        "run": outcome.run.id,
        "baseline_run": outcome.baseline.id,
    }


def yardsticks_json(families: Sequence[Family]) -> dict[str, Any]:
    """Scores of the yardsticks, and every method against the base rates; as shown."""
    if not families:
        return {}
    record = families[0].first.record
    return {
        "yardsticks": {
            one.name: {m: shown(record, m, one.scores[m]) for m in record.metrics if m in one.scores}
            for one in record.yardsticks
        },
        "against_base_rates": [
            {"yardstick": against.yardstick.name, "metric": against.metric, **row_json(row)}
            for against in against_base_rates(families)
            for row in against.rows
        ],
    }


def run_line(run: StoredRun) -> dict[str, Any]:
    """One line of `list runs`; the score in its unit, as people read it."""
    record = run.head
    known = {
        "run": run.id,
        "status": record.status,
        "method": record.row_name,
        "benchmark": record.benchmark.name,
        "backbone": record.config.backbone,
        "seed": record.seed,
        "created": record.created,
        "error": record.error,
    }
    if not run.complete:
        return known
    score, unit = record.scores.get(record.metric), record.unit or run.record.unit
    return {
        **known,
        "personas": record.n_personas,
        "replies": record.n_replies,
        "metric": record.metric,
        "unit": unit,
        "score": None if score is None else score * scale(unit),
    }


def run_cells(line: Mapping[str, Any]) -> dict[str, Any]:
    """The same line as cells of a table: a status where the run is not complete, the score beside its metric."""
    score = f"{line['metric']} {number(line['score'])}" if "metric" in line else ""
    return {
        "run": line["run"],
        "status": "" if line["status"] == "ok" else line["status"],
        "method": line["method"],
        "score": score,
        "seed": line["seed"],
        "personas": line.get("personas"),
        "replies": line.get("replies"),
        "benchmark": line["benchmark"],
        "backbone": line["backbone"],
        "created": line["created"][:16].replace("T", " "),
        "error": line["error"],
    }
