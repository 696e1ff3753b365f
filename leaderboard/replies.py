"""Examples whose prompt, reference and replies stand side by side on the page: which ones, and what each run replied.

Which these are is `picking`. Published records keep sums per persona; of some runs a sample is published, too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import StoreError
from harness.runs import Replies, StoredRun
from harness.scoring import scale
from harness.show import number

from .picking import EXAMPLES, picked
from .rows import Group
from .samples import replies_of

MOST_CHARACTERS = 2_000  # of one text on the page


@dataclass(frozen=True)
class Text:
    """A text on the page. left_out: characters beyond MOST_CHARACTERS, of a prompt the first, else the last."""

    text: str
    left_out: int


@dataclass(frozen=True)
class Shown(Text):
    """One run's reply; score as shown, None where undefined or pooled."""

    line: int  # place of the method in its group
    run: str
    score: str | None


@dataclass(frozen=True)
class Example:
    """prompt: what was asked;  reference: what the person really got;  None where no run keeps texts."""

    id: str
    persona: str
    prompt: Text | None
    reference: Text | None
    replies: tuple[Shown, ...]


@dataclass(frozen=True)
class Examples:
    """The chosen examples of a group, out of so many; `without`: places of methods with no replies at hand."""

    chosen: tuple[Example, ...]
    n_replies: int
    without: tuple[int, ...]


def examples(group: Group, most: int = EXAMPLES, note: Callable[[str], None] = warnings.warn) -> Examples:
    """The group's examples with the replies of each method's first seed.

    note   takes a line for the user on a file that is damaged: its run's replies are left out
    """
    found = {place: _replies(line.family.first, note) for place, line in enumerate(group.lines)} if most > 0 else {}
    known = {place: own for place, own in found.items() if own and own.rows([0])[0].reply is not None}
    without = tuple(place for place in found if place not in known)
    if not known or most <= 0:
        return Examples((), 0, without)
    # The order is that of the baseline's run, or of the best method's that has replies.
    first = next((known[k] for k in known if group.lines[k].is_baseline), next(iter(known.values())))
    asked = first.rows(picked(first, most))
    given = {place: _given(group, place, replies, [row.id for row in asked]) for place, replies in known.items()}
    chosen = []
    for i, row in enumerate(asked):
        rows = [own[i] for own in given.values() if own[i] is not None]
        prompt = next((reply.prompt for reply, _ in rows if reply.prompt is not None), None)
        reference = next((reply.reference for reply, _ in rows if reply.reference is not None), None)
        chosen.append(
            Example(
                row.id,
                row.persona,
                None if prompt is None else Text(prompt[-MOST_CHARACTERS:], max(0, len(prompt) - MOST_CHARACTERS)),
                None if reference is None else _start(reference),
                tuple(shown for _, shown in rows),
            )
        )
    return Examples(tuple(chosen), max(group.record.n_replies, len(first)), without)


def _replies(run: StoredRun, note: Callable[[str], None]) -> Replies | None:
    try:
        return replies_of(run)
    except StoreError as error:
        note(f"{error}; its replies are not on the page")
        return None


def _given(group: Group, place: int, replies: Replies, names: Sequence[str]) -> list[Any]:
    """(stored row, what is shown of it) of one method for each of the named examples; None where it lacks one."""
    places, line = replies.places, group.lines[place]
    at = [places[name] for name in names if name in places]
    scores = replies.scores(group.metric) * scale(line.row.unit)
    found = {}
    for row, score in zip(replies.rows(at), scores[at], strict=True):
        text = _start(row.reply or "")
        score = None if math.isnan(score) else number(float(score))
        found[row.id] = row, Shown(text.text, text.left_out, place, line.family.first.id, score)
    return [found.get(name) for name in names]


def _start(text: str) -> Text:
    return Text(text[:MOST_CHARACTERS], max(0, len(text) - MOST_CHARACTERS))
