"""A tuning for people and as JSON: the budget of each method, what was chosen, then the table of its sweep."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_jsonable_python

from harness import show
from harness.sweeps import sweep_text
from harness.sweeps.trials import Best
from harness.sweeps.tuning import TuningOutcome
from harness.text import as_lines


def tuning_text(outcome: TuningOutcome) -> str:
    """The budget, the choices, and the comparison."""
    who = f"{len(outcome.tuning_personas)} personas"
    who += " that are not among those below" if outcome.apart else ", the same that are reported below"
    tuning = outcome.tuning
    return as_lines([
        *show.table_lines([_line(best) for best in outcome.best]),
        f"{tuning.trials} trials each ({tuning.sampler}, pruner {tuning.pruner}) on the validation replies of {who}"
        + ("" if tuning.sampler == "grid" else "; the first trial of each is its defaults"),
        "",
        *sweep_text.sweep_text(outcome.sweep).split("\n"),
    ])  # fmt: skip


def tuning_json(outcome: TuningOutcome) -> dict[str, Any]:
    return {
        **sweep_text.sweep_json(outcome.sweep),
        "tuning": {
            "trials": outcome.tuning.trials,
            "sampler": outcome.tuning.sampler,
            "pruner": outcome.tuning.pruner,
            "personas": list(outcome.tuning_personas),
            "apart": outcome.apart,
            "methods": [
                {
                    "label": best.tuned.entry.label,
                    "loss": best.loss,
                    "default_loss": best.default_loss,
                    "options": to_jsonable_python(best.options),
                    "trials": [to_jsonable_python(trial) for trial in best.trials],
                }
                for best in outcome.best
            ],
        },
    }


def _line(best: Best) -> dict[str, str]:
    states = [trial.state for trial in best.trials]
    chosen = min((t for t in best.trials if t.loss is not None), key=lambda t: (t.loss, t.number), default=None)
    return {
        "method": best.tuned.entry.label,
        "trials": str(len(states)) if states else "nothing to tune",
        "pruned": str(states.count("pruned")) if states else "",
        "failed": str(states.count("fail")) if "fail" in states else "",
        "loss of the defaults": show.number(best.default_loss, 4) if states and not best.grid else "",
        "best loss": show.number(best.loss, 4) if states else "",
        "chosen": ", ".join(f"{name}={_value(value)}" for name, value in chosen.options.items()) if chosen else "",
    }


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
