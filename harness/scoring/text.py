"""Metrics that compare a reply with its reference as text, as a choice, or as a number.

Plain functions of one reply each; names, units and batches are `harness.scoring.registry`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def normalised(text: str) -> str:
    """Runs of white space become one space, none at the ends; nothing else changes (case counts)."""
    return " ".join(text.split())


def exact_match(reply: str, reference: str) -> float:
    """1.0 if the texts are equal up to white space, else 0.0."""
    return float(normalised(reply) == normalised(reference))


def number(text: str) -> float | None:
    """The finite number that the whole text is, or None: "4", " 4.0 "; not "4 stars"."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def absolute_error(reply: str, reference: str, choices: Sequence[str] = ()) -> float:
    """Absolute difference of two numbers, in their own unit.

    A reply that is no number is as wrong as the worst of `choices`; without choices it is undefined (nan),
    and so is everything where the reference is no number.
    """
    wanted, got = number(reference), number(reply)
    if wanted is None:
        return math.nan
    if got is not None:
        return abs(got - wanted)
    errors = [abs(value - wanted) for value in map(number, choices) if value is not None]
    return max(errors, default=math.nan)


def most_probable(log_probs: Sequence[float], choices: Sequence[str]) -> str:
    """The choice with the highest log probability; the first of equals."""
    if len(log_probs) != len(choices):
        raise ValueError(f"{len(log_probs)} probabilities for {len(choices)} choices")
    return choices[max(range(len(choices)), key=lambda i: log_probs[i])]
