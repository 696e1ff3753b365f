"""A plan's outcome for people and as JSON: each phase, what was measured, gates, what was tried next. No computing."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.statistics import row_json
from harness.sweeps.plan import GateResult, PhaseResult, PlanOutcome, Try
from harness.sweeps.plan_file import Phase
from harness.sweeps.sweep_text import failures, made_json
from harness.text import as_lines


def plan_text(outcome: PlanOutcome) -> str:
    """Phase by phase, then the plan's last word."""
    total = len(outcome.phases)
    text = [line for i, result in enumerate(outcome.phases, 1) for line in _phase_lines(i, total, result)]
    text += failures(outcome.made)
    return as_lines([*text, outcome.ending.text])


def plan_json(outcome: PlanOutcome) -> dict[str, Any]:
    """The whole plan as one JSON object."""
    plan = outcome.plan
    return {
        "plan": plan.name,
        "benchmark": plan.shared.benchmark,
        "baseline": plan.baseline,
        "seeds": list(plan.seeds),
        "phases": [_phase_json(result) for result in outcome.phases],
        "bands": [{"from": band.low, "to": band.high, "name": band.name} for band in plan.bands],
        "ending": dataclasses.asdict(outcome.ending),
        "runs": [made_json(made) for made in outcome.made],
        "failed": sum(made.run is None for made in outcome.made),
    }


def _phase_lines(number: int, total: int, result: PhaseResult) -> list[str]:
    phase = result.phase
    lines = [f"phase {number} of {total}: {phase.name} ({_who(phase)}{_size(result)})"]
    for place, one in enumerate(result.tries):
        lines.append(f"  {one.entry.label}: {_score(one)}")
        lines += [f"    {'passed' if g.passed else 'not passed'}: {g.gate.name}: {g.text}" for g in one.gates]
        if not one.passed and place + 1 < len(result.tries):
            lines.append(f"  tried next: {result.tries[place + 1].entry.label}")
    lines += [
        f"  published beside it: {published.score:.2f} ({published.source}); measured elsewhere, not tested"
        for published in phase.published
    ]
    lines += [f"  {_state(result)}", ""]
    return lines


def _phase_json(result: PhaseResult) -> dict[str, Any]:
    phase, winner = result.phase, result.winner
    return {
        "name": phase.name,
        "persona": list(phase.persona),
        "cluster": phase.cluster,
        "status": "not reached" if not result.tries else "passed" if winner else "not passed",
        "winner": winner.entry.label if winner else None,
        "if_failed": phase.if_failed,
        "why": result.why or None,
        "tries": [_try_json(one, place + 1 < len(result.tries)) for place, one in enumerate(result.tries)],
        "not_tried": [entry.label for entry in phase.candidates[len(result.tries) :]],
        "published": [dataclasses.asdict(published) for published in phase.published],
    }


def _try_json(one: Try, more: bool) -> dict[str, Any]:
    return {
        "label": one.entry.label,
        "method": one.entry.config.method,
        "score": one.score.score_micro_pts if one.score else None,
        "n_personas": one.score.n_personas if one.score else None,
        "passed": one.passed,
        "gates": [_gate_json(gate) for gate in one.gates],
        "then": "passed" if one.passed else "the next was tried" if more else "nothing was left to try",
        "runs": [made_json(made) for made in one.made],
    }


def _gate_json(result: GateResult) -> dict[str, Any]:
    gate = result.gate
    return {
        "gate": gate.name,
        "beats": gate.beats.label if gate.beats else None,
        "reference": gate.reference,
        "source": gate.source or None,
        "passed": result.passed,
        "tested": result.tested,
        "delta_pts": result.delta_pts,
        "p": result.p,
        "text": result.text,
        "comparison": row_json(result.row)["comparison"],
    }


def _who(phase: Phase) -> str:
    if phase.persona:
        return ", ".join(phase.persona)
    return f"cluster {phase.cluster}" if phase.cluster is not None else "everybody"


def _size(result: PhaseResult) -> str:
    score = next((one.score for one in result.tries if one.score), None)
    if score is None:
        return ""
    return f"; {score.n_personas} persona{'s' if score.n_personas > 1 else ''}, {score.n_replies} replies"


def _score(one: Try) -> str:
    if one.score is None:
        return "failed"
    failed = sum(made.run is None for made in one.made)
    return f"{one.score.score_micro_pts:.2f}" + (f" ({failed} of {len(one.made)} seeds failed)" if failed else "")


def _state(result: PhaseResult) -> str:
    if not result.tries:
        return result.why
    if result.winner:
        return f"passed by {result.winner.entry.label}"
    then = "the plan stops here" if result.phase.if_failed == "stop" else "the plan goes on"
    return f"not passed by any of {len(result.tries)}; {then}"
