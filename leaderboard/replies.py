"""Examples whose replies stand side by side on the page: which ones, and what each run replied.

Published records keep sums per persona and no replies; only runs whose scores.jsonl is at hand can show any.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.scoring import scale
from harness.show import number

from .rows import Group, Line

EXAMPLES = 20  # per group, by default
MOST_CHARACTERS = 2_000  # of one reply on the page
RULE = (
    "evenly spread over the replies in the order of the data set, first and last included; the rule looks at no score"
)


@dataclass(frozen=True)
class Reply:
    """One run's reply, cut at MOST_CHARACTERS; score as shown, None where undefined or pooled."""

    line: int  # place of the method in its group
    run: str
    text: str
    left_out: int  # characters
    score: str | None


@dataclass(frozen=True)
class Example:
    id: str
    persona: str
    user: str | None  # what was asked, where the runs stored it
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class Examples:
    """The chosen examples of a group, out of so many; `without`: places of methods with no replies at hand."""

    chosen: tuple[Example, ...]
    n_replies: int
    without: tuple[int, ...]


def examples(group: Group, most: int = EXAMPLES) -> Examples:
    """The group's examples with the replies of each method's first seed. Raises StoreError for a broken line."""
    logs = {place: _Log(line, group) for place, line in enumerate(group.lines) if _file(line).is_file()}
    logs = {place: log for place, log in logs.items() if log.has_replies}
    without = tuple(place for place in range(len(group.lines)) if place not in logs)
    if not logs or most <= 0:
        return Examples((), 0, without)
    # The order is that of the baseline's run, or of the best method's that has replies.
    first = next((logs[k] for k in logs if group.lines[k].is_baseline), next(iter(logs.values())))
    count = len(first)
    number_of = min(most, count)
    places = [round(i * (count - 1) / max(number_of - 1, 1)) for i in range(number_of)]
    chosen = []
    for place in places:
        asked = first.at(place)
        found = [(k, log.find(str(asked["id"]), place)) for k, log in logs.items()]
        replies = tuple(logs[k].reply(k, line) for k, line in found if line is not None)
        user = next((str(line["user"]) for _, line in found if line and line.get("user")), None)
        chosen.append(Example(str(asked["id"]), str(asked["persona"]), user, replies))
    return Examples(tuple(chosen), count, without)


def _file(line: Line) -> Path:
    return line.family.first.path / "scores.jsonl"


class _Log:
    """The lines of one scores.jsonl; only those that are asked for are parsed."""

    def __init__(self, line: Line, group: Group) -> None:
        self.run, self.path, self.metric = line.family.first.id, _file(line), group.metric
        self.factor = scale(line.row.unit)
        try:
            with self.path.open("rb") as file:  # not splitlines: a reply may hold U+2028
                self.lines: Sequence[bytes] = file.readlines()
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror or error}") from error
        self.places: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def has_replies(self) -> bool:
        return bool(self.lines) and self.at(0).get("reply") is not None

    def at(self, place: int) -> dict[str, Any]:
        try:
            value = json.loads(self.lines[place])
            _ = value["id"], value["persona"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.path}:{place + 1}: not a line of scores ({error}); run it again") from error
        return value

    def find(self, name: str, near: int) -> dict[str, Any] | None:
        """The line of an example: alike runs keep them in one order, so it is looked for at that place first."""
        if near < len(self.lines) and (line := self.at(near))["id"] == name:
            return line
        if self.places is None:
            self.places = {str(self.at(place)["id"]): place for place in range(len(self.lines))}
        return self.at(self.places[name]) if name in self.places else None

    def reply(self, place: int, line: dict[str, Any]) -> Reply:
        text = str(line.get("reply") or "")
        score = line.get(self.metric)
        shown = None if score is None else number(float(score) * self.factor)
        return Reply(place, self.run, text[:MOST_CHARACTERS], max(0, len(text) - MOST_CHARACTERS), shown)
