"""Which examples of a section stand side by side on the page. Scores are not used."""

from __future__ import annotations

import math

import numpy as np

from harness.compare import evenly
from harness.runs import Replies

EXAMPLES = 20  # per group, by default
EACH = 4  # examples of one persona
RULE = (
    "personas evenly spread in the order of the data set, and of each the replies evenly spread, first and last "
    "included; scores are not used"
)


def picked(replies: Replies, most: int) -> list[int]:
    """Rows of at most so many examples: of most / EACH personas, about EACH of each; all where there are no more."""
    owners = replies.owners
    people = evenly(int(owners.max()) + 1, math.ceil(most / EACH)) if len(owners) and most > 0 else []
    rows: list[int] = []
    for place, person in enumerate(people):
        left = most - len(rows)
        own = np.flatnonzero(owners == person)
        rows += [int(own[i]) for i in evenly(len(own), math.ceil(left / (len(people) - place)))]
    return rows
