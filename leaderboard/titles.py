"""What sections are called by people: what was asked of whom, how many, and what is unusual about it. No hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.text import one_line

from .rows import Group

# A benchmark says its own title in its facts, as "title"; these are of records that were made before that.
KNOWN = {
    "smarthome": "Simulated smart home",
    "edgewise": "EdgeWisePersona's smart home",
    "convincing": "Real people: which argument convinces",
    "jokes": "Real people: how funny a joke is",
    "offensiveness": "Real people: how offensive a comment is",
    "lamp": "LaMP",
    "jsonl": "Your own data",
}
TITLE = "title"


def titles(groups: Sequence[Group]) -> list[str]:
    """A title for each group that no other has: its subject, personas, seeds, and facts that few other groups share."""
    found = [_usual(group, groups) for group in groups]
    for title, count in Counter(found).items():
        if count == 1:
            continue
        twins = [i for i, other in enumerate(found) if other == title]
        more = [_unlike(groups[i], [groups[k] for k in twins]) for i in twins]
        if len({tuple(words) for words in more}) < len(more):
            more = [[*words, f"no. {place}"] for place, words in enumerate(more, 1)]
        for i, words in zip(twins, more, strict=True):
            found[i] = ", ".join([title, *words])
    return found


def subject(group: Group) -> str:
    """What was asked of whom, on one line."""
    benchmark = group.record.benchmark
    return one_line(benchmark.facts.get(TITLE) or KNOWN.get(benchmark.name) or benchmark.name)


def people(group: Group) -> str:
    """`60 personas`; where the data are of real people, `60 people`."""
    n = group.record.n_personas
    word = ("person", "people") if "people" in group.record.benchmark.facts else ("persona", "personas")
    return f"{n} {word[n != 1]}"


def _usual(group: Group, groups: Sequence[Group]) -> str:
    seeds = max(len(line.row.seeds) for line in group.lines)
    parts = [subject(group), people(group), f"{seeds} seed{'s' * (seeds != 1)}"]
    alike = [other for other in groups if subject(other) == subject(group)]
    for name, value in sorted(group.record.benchmark.facts.items()):
        values = Counter(other.record.benchmark.facts.get(name) for other in alike)
        if name not in (TITLE, "personas", "people") and values[value] * 2 < len(alike):
            parts.append(one_line(f"{name} {value}"))
    backbones = Counter(other.record.config.backbone for other in groups)
    if backbones[group.record.config.backbone] * 2 < len(groups) and not group.record.imported:
        parts.append(f"on {one_line(group.record.config.backbone)}")
    return ", ".join(parts)


def _unlike(group: Group, twins: Sequence[Group]) -> list[str]:
    """In what a group differs from its twins: facts, else backbones, else protocol."""
    said = [_said(twin) for twin in twins]
    for own, others in zip(_said(group), zip(*said, strict=True), strict=True):
        names = [name for name in sorted(own) if len({str(other.get(name)) for other in others}) > 1]
        if names:
            return [one_line(f"{name} {own[name]}") for name in names[:3]]
    return []


def _said(group: Group) -> tuple[Mapping[str, Any], ...]:
    record = group.record
    facts = {name: value for name, value in record.benchmark.facts.items() if name != TITLE}
    return facts, {"backbone": record.config.backbone}, record.protocol
