"""A sweep for people and as JSON: the joint table, the list of a dry run. No computing.

The single run's text is `harness.show.printing`'s, a plan's `harness.sweeps.plan_text`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_jsonable_python

from harness import show
from harness.runs import Cost, StoredRun
from harness.statistics import row_json
from harness.sweeps.sweep import Made, Order, Row, SweepOutcome, Workshop
from harness.text import as_lines


def sweep_text(outcome: SweepOutcome) -> str:
    """The joint table, what else was measured, verdicts, flags and failures."""
    shown = [row for row in outcome.rows if row.family]
    text = []
    if shown:
        text += [*_table(outcome), ""]
        if others := _others(shown):
            text += [*show.table_lines(others), ""]
        families = [row.family for row in shown if row.family]
        if yardsticks := show.yardstick_lines(families[0].first.record):
            text += [*show.table_lines(yardsticks), ""]
        text.append(_size(outcome, shown))
        for row in shown:
            text += _lines(row)
        text += show.base_rate_lines(families)
        text += _reference(shown)
    text += failures(outcome.made)
    stored = sum(made.stored for made in outcome.made)
    text.append(f"{len(outcome.made)} runs: {_counts(outcome.made, stored)}")
    return as_lines(text)


def sweep_json(outcome: SweepOutcome) -> dict[str, Any]:
    """The sweep as one JSON object: rows with their comparison, every run, and what failed."""
    sweep = outcome.sweep
    return {
        "sweep": sweep.name,
        "benchmark": sweep.shared.benchmark,
        "baseline": sweep.baseline.label,
        "seeds": list(sweep.seeds),
        "rows": [row_as_json(row) for row in outcome.rows],
        "ceilings": _ceilings(outcome),
        **show.yardsticks_json([row.family for row in outcome.rows if row.family]),
        "runs": [made_json(made) for made in outcome.made],
        "failed": sum(made.run is None for made in outcome.made),
    }


def row_as_json(row: Row) -> dict[str, Any]:
    """One row: what it is, its score and its comparison in points, its runs, flags and failures."""
    runs = row.family.runs if row.family else ()
    return {
        **row_json(row.score),
        "label": row.entry.label,
        "method": row.entry.config.method,
        "control": row.entry.config.control,
        "options": to_jsonable_python(row.entry.config.method_options),
        "required_options": to_jsonable_python(row.entry.config.required_options),
        "status": "failed" if not runs else "incomplete" if row.failed else "ok",
        "metric": runs[0].record.metric if runs else None,
        "runs": [run.id for run in runs],
        "flags": _flags(row),
        "errors": [{"seed": made.order.seed, "error": made.error} for made in row.failed],
    }


def made_json(made: Made) -> dict[str, Any]:
    return {
        "label": made.order.entry.label,
        "seed": made.order.seed,
        "run": made.run.id if made.run else None,
        "status": "failed" if made.run is None else "stored" if made.stored else "made",
        "error": made.error or None,
    }


def failures(made: Sequence[Made]) -> list[str]:
    """One line for every run that failed."""
    return [f"failed: {m.order.entry.label}, seed {m.order.seed}: {m.error}" for m in made if m.run is None]


def preview(orders: Sequence[tuple[str, Order]], workshop: Workshop) -> list[dict[str, Any]]:
    """What a dry run lists: every run once, with its phase, its id and how it stands in the store."""
    rows: dict[str, dict[str, Any]] = {}
    for phase, order in orders:
        run_id, run = workshop.stored(order)
        row = {"phase": phase, "method": order.entry.label, "seed": order.seed, "run": run_id, "stored": _state(run)}
        rows.setdefault(run_id, row)
    return list(rows.values())


def preview_text(rows: Sequence[dict[str, Any]]) -> str:
    """The list of a dry run and its sum."""
    stored = sum(row["stored"] == "complete" for row in rows)
    return f"{show.table(rows)}\n\n{len(rows)} runs: {stored} stored, {len(rows) - stored} to make"


def _state(run: StoredRun | None) -> str:
    if run is None:
        return "no"
    if run.complete:
        return "complete"
    if run.record.status == "failed":
        return f"failed, will be tried again: {run.record.error}"
    return "started, continues where it stopped"


def _table(outcome: SweepOutcome) -> list[str]:
    first = next(row.family.first for row in outcome.rows if row.family)
    head = show.metric_head(first.record, first.record.metric)
    lines: list[dict[str, str]] = []
    for row in outcome.rows:
        if row.family and row.score:
            cost = _mean_cost(row.family.runs)
            lines.append(show.score_line(row.entry.label, head, row.score.score_micro_pts, row.comparison, cost))
        else:
            lines.append({"": row.entry.label, head: "failed"})
    lines += [{"": name, head: show.number(score)} for name, score in _ceilings(outcome).items()]
    keys = list(dict.fromkeys(key for line in lines for key in line))
    return show.table_lines([{key: line.get(key, "") for key in keys} for line in lines])


def _mean_cost(runs: Sequence[StoredRun]) -> Cost | None:
    """The first seed's cost with the mean seconds of all."""
    costs = [run.record.cost for run in runs if run.record.cost]
    if not costs:
        return None
    names = ("fit_seconds", "predict_seconds")
    return costs[0].model_copy(update={n: sum(getattr(c, n) for c in costs) / len(costs) for n in names})


def _others(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The metrics that do not decide, a column a method; means over seeds."""
    lines = []
    assert rows[0].family
    record = rows[0].family.first.record
    for name in record.metrics[1:]:
        values = {row.entry.label: _mean(row, name) for row in rows}
        if any(value is not None for value in values.values()):
            digits = 2 if record.metric_sums(name).unit == "pt" else 3
            lines.append({"also measured": name} | {k: show.number(v, digits) for k, v in values.items()})
    return lines


def _mean(row: Row, metric: str) -> float | None:
    runs = row.family.runs if row.family else ()
    values = [show.shown(run.record, metric, run.record.scores.get(metric)) for run in runs]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _size(outcome: SweepOutcome, shown: Sequence[Row]) -> str:
    assert shown[0].family
    record = shown[0].family.first.record
    seeds = outcome.sweep.seeds
    which = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    compared = sum(row.comparison is not None for row in shown)
    joint = f"; {compared} methods tested jointly against {outcome.sweep.baseline.label}" if compared else ""
    return f"{record.n_personas} personas, {record.n_replies} replies, {which}{joint}"


def _lines(row: Row) -> list[str]:
    assert row.family
    text = []
    if row.comparison:
        text.append(f"{row.entry.label}: {row.comparison.verdict}")
    flags = _flags(row)
    return text + ([f"flags of {row.entry.label}: {'; '.join(flags)}"] if flags else [])


def _reference(rows: Sequence[Row]) -> list[str]:
    """All rows against the published score in one line: it is a constant, and its caveat is said once."""
    against = [(row.entry.label, row.score.reference) for row in rows if row.score and row.score.reference]
    if not against:
        return []
    _, first = against[0]
    each = ", ".join(f"{label} {ref.delta_pts:+.2f} (p {show.p_value(ref.p)})" for label, ref in against)
    return [f"against the published {first.score_pts:.2f} ({first.source}): {each}; {first.caveat}"]


def _ceilings(outcome: SweepOutcome) -> dict[str, float | None]:
    run = next((row.family.first for row in outcome.rows if row.family), None)
    if run is None:
        return {}
    decides = run.record.metric
    return {c.name: show.shown(run.record, decides, c.scores[decides]) for c in outcome.ceilings}


def _counts(made: Sequence[Made], stored: int) -> str:
    failed = sum(m.run is None for m in made)
    new = len(made) - stored - failed
    return f"{new} made, {stored} from the store" + (f", {failed} failed" if failed else "")


def _flags(row: Row) -> list[str]:
    """In words: those of the runs, each once, then of the comparison, then of runs that failed."""
    runs = row.family.runs if row.family else ()
    found = list(dict.fromkeys(str(flag) for run in runs for flag in run.record.flags))
    found += row.comparison.flags if row.comparison else ()
    if row.failed:
        seeds = ", ".join(str(made.order.seed) for made in row.failed)
        found.append(f"failed: {row.failed[0].error}" if row.family is None else f"failed with seed {seeds}")
    return found
