"""What a user may write for an option: closed sets of replies ("1..5", "yes,no", or a list), and counts.

Parsing only; what a benchmark does with it is its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from harness import ConfigError

Count = Annotated[int, Field(ge=0)]
Some = Annotated[int, Field(ge=1)]
_RANGE = re.compile(r"\s*(-?\d+)\s*\.\.\s*(-?\d+)\s*")
_MOST = 1000  # every choice is scored for every prompt


def parse_choices(choices: str | Sequence[object]) -> tuple[str, ...]:
    """The choices as texts; numbers in ascending order (a median needs an order), words as given.

    Raises ConfigError for an empty or reversed range, a repeated choice, or fewer than two. No choices: ().
    """
    if isinstance(choices, str):
        span = _RANGE.fullmatch(choices)
        if span:
            low, high = int(span[1]), int(span[2])
            if not low < high < low + _MOST:
                raise ConfigError(
                    f"choices={choices} should go from a smaller to a larger whole number, at most {_MOST}"
                )
            return tuple(str(number) for number in range(low, high + 1))
        choices = choices.split(",") if choices.strip() else []
    found = [str(choice).strip() for choice in choices]
    if not found:
        return ()
    if "" in found:
        raise ConfigError("one of the choices is empty")
    twice = sorted({choice for choice in found if found.count(choice) > 1})
    if twice:
        raise ConfigError(f"choices name {', '.join(twice)} twice")
    if len(found) < 2:
        raise ConfigError(f"choices={found[0]} is one choice; give at least two, such as 1..5 or yes,no")
    numbers = as_numbers(found)
    if numbers is None:
        return tuple(found)
    return tuple(choice for _, choice in sorted(zip(numbers, found, strict=True)))


def as_numbers(choices: Sequence[str]) -> tuple[float, ...] | None:
    """The choices as finite numbers, or None if there are none or one of them is no number."""
    try:
        numbers = tuple(float(choice) for choice in choices)
    except ValueError:
        return None
    return numbers if numbers and all(abs(number) < float("inf") for number in numbers) else None
