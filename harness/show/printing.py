"""Text for people: the small table and the sentence after a run, listings. Stored runs: `stored_text`. No computing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from harness.compare import row_name
from harness.scoring import metric_named, scale
from harness.store import StoredRun

if TYPE_CHECKING:
    from harness.runner import Outcome
    from harness.statistics import ComparisonRow


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


def table(rows: Sequence[Mapping[str, Any]], form: str = "simple") -> str:
    """Rows with the same keys as a table (`form` is tabulate's); columns that are empty everywhere are left out."""
    keys = [key for key in rows[0] if any(row.get(key) not in (None, "") for row in rows)]
    return tabulate(
        [[row.get(key) for key in keys] for row in rows],
        headers=keys,
        tablefmt=form,
        disable_numparse=True,
    )


def shown(name: str, value: float | None) -> float | None:
    """A stored score in the unit in which people read it."""
    if value is None:
        return None
    return value * scale(metric_named(name).unit)


def metric_head(name: str) -> str:
    """A metric as the head of a column, with its unit."""
    unit = metric_named(name).unit
    return f"{name} ({unit})" if unit != "raw" else name


def score_line(
    name: str, head: str, score: float | None, row: ComparisonRow | None, cost: Mapping[str, Any]
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
        "parameters": f"{cost['trainable_parameters']:,}",
        "fit s": f"{cost['fit_seconds']:.0f}",
        "reply s": f"{cost['predict_seconds']:.0f}",
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
    record, row = outcome.run.record, outcome.row
    decides = record["metrics"][0]
    head = metric_head(decides)
    lines = []
    for run, delta in ((outcome.run, row), (outcome.baseline, None)):
        if run.id == outcome.baseline.id and lines and outcome.row is None:
            break
        score = shown(decides, run.record["scores"][decides])
        lines.append(score_line(row_name(run.record), head, score, delta, run.record["cost"]))
    for ceiling in outcome.ceilings:
        lines.append({"": ceiling["name"], head: number(shown(decides, ceiling["scores"][decides]))})
    keys = list(lines[0])
    text = [table([{key: line.get(key, "") for key in keys} for line in lines]), ""]
    others = [m for m in record["metrics"][1:] if record["scores"].get(m) is not None]
    if others:
        compared = [
            {"also measured": m}
            | {
                row_name(run.record): number(
                    shown(m, run.record["scores"].get(m)), 3 if metric_named(m).unit != "pt" else 2
                )
                for run in ([outcome.run, outcome.baseline] if row else [outcome.run])
            }
            for m in others
        ]
        text += [table(compared), ""]
    text.append(
        f"{record['n_personas']} personas, {record['n_replies']} replies, seed {record['seed']}, run {outcome.run.id}"
    )
    if unseen := record.get("unseen"):
        before = (outcome.baseline.record.get("unseen") or {}).get("scores", {}).get(decides)
        text.append(
            f"{unseen['n_personas']} personas held out of all training, {unseen['n_replies']} replies: "
            f"{number(shown(decides, unseen['scores'].get(decides)))}"
            + (f" (baseline {number(shown(decides, before))})" if row else "")
        )
    text += note_lines(record.get("notes") or {})
    for run in dict.fromkeys([outcome.run.id, outcome.baseline.id]):
        flags = (outcome.run if run == outcome.run.id else outcome.baseline).record["flags"]
        if flags:
            text.append(f"flags of {run}: {'; '.join(flags)}")
    if row:
        if row.flags:
            text.append("flags of the comparison: " + ", ".join(row.flags))
        text.append(f"{row_name(record)}: {row.verdict}")
    own = row or outcome.baseline_row
    if own.reference:
        against = own.reference
        text.append(
            f"against the published {against.score_pts:.2f} ({against.source}): {against.delta_pts:+.2f}, "
            f"p {p_value(against.p)}; " + against.caveat
        )
    return "\n".join(text)


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The run as one JSON object; scores and differences in points where the metric is a share."""
    import dataclasses

    record, row = outcome.run.record, outcome.row
    decides = record["metrics"][0]
    own = row or outcome.baseline_row
    return {
        "method": record["method"],
        "control": record["config"]["control"],
        "metric": decides,
        "score": shown(decides, record["scores"][decides]),
        "baseline": outcome.baseline.record["method"],
        "baseline_score": shown(decides, outcome.baseline.record["scores"][decides]),
        "delta_pts": row.delta_pts if row else None,
        "se": row.se_pts if row else own.se_micro_pts,
        "ci95": row.ci95_pts if row else None,
        "sim_ci": row.sim_ci_pts if row else None,
        "p_raw": row.p_raw if row else None,
        "p_adj": row.p_adj if row else None,
        "verdict": row.verdict if row else "this is the baseline",
        "reference": dataclasses.asdict(own.reference) if own.reference else None,
        "scores": {m: shown(m, record["scores"].get(m)) for m in record["metrics"]},
        "ceilings": {c["name"]: shown(decides, c["scores"][decides]) for c in outcome.ceilings},
        "n_personas": record["n_personas"],
        "n_replies": record["n_replies"],
        "seed": record["seed"],
        "cost": record["cost"],
        "flags": [*record["flags"], *(row.flags if row else ())],
        "run": outcome.run.id,
        "baseline_run": outcome.baseline.id,
        "comparison": dataclasses.asdict(row) if row else None,
    }


def run_line(run: StoredRun) -> dict[str, Any]:
    """One line of `list runs`."""
    record = run.record
    if not run.complete:
        return {
            "run": run.id,
            "status": record.get("status"),
            "method": record.get("method"),
            "error": record.get("error"),
        }
    decides = record["metrics"][0]
    return {
        "run": run.id,
        "status": "ok",
        "method": row_name(record),
        "benchmark": record["benchmark"]["name"],
        "backbone": record["config"]["backbone"],
        "personas": record["n_personas"],
        "replies": record["n_replies"],
        "seed": record["seed"],
        "metric": decides,
        "score": number(shown(decides, record["scores"][decides])),
        "created": record["created"],
        "error": None,
    }
