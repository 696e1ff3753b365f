"""What rows are called: the method, its control, and where several share that, what differs between them. No hashes."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config import flat
from harness.runs import RunHead


def short_names(records: Sequence[RunHead]) -> list[str]:
    """A name for each row, given the record of one of its runs, that no other row has: NAME, or beside a twin
    NAME (tokens=20).

    What is told, in this order and only as far as it is needed: how the options were found, the options, the version
    of the plugin, when the run was made, and last a number.
    """
    names = [_plain(record) for record in records]
    found = list(names)
    for name in set(names):
        twins = [i for i, other in enumerate(names) if other == name]
        if len(twins) > 1:
            for i, parts in zip(twins, _parts([records[i] for i in twins]), strict=True):
                found[i] = _with(name, parts)
    return found


def _plain(record: RunHead) -> str:
    control = record.config.control
    return f"{record.method} (control: {control})" if control else record.method


def _with(name: str, parts: Sequence[str]) -> str:
    if not parts:
        return name
    return f"{name[:-1]}, {', '.join(parts)})" if name.endswith(")") else f"{name} ({', '.join(parts)})"


def _parts(records: Sequence[RunHead]) -> list[list[str]]:
    """Per record the words that tell it from the others; every list differs from every other."""
    parts: list[list[str]] = [[] for _ in records]
    for words in (_tuned, _options, _versions, _dates, _numbers):
        if len({tuple(own) for own in parts}) == len(parts):
            break
        for own, more in zip(parts, words(records), strict=True):
            own += more
    return parts


def _tuned(records: Sequence[RunHead]) -> list[list[str]]:
    said = [f"tuned, {r.tuning.trials} trials" if r.tuning else "not tuned" for r in records]
    return [[words] if len(set(said)) > 1 else [] for words in said]


def _options(records: Sequence[RunHead]) -> list[list[str]]:
    """Options that differ, by the shortest end of their dotted name, behind the name of the method that a row stands on
    where they are its; what one of the records does not know is left out unless nothing else differs."""
    facts = [dict(flat(record.method_options)) | record.changed_below for record in records]
    names = list(dict.fromkeys(name for fact in facts for name in fact))
    unlike = [name for name in names if len({str(fact.get(name)) for fact in facts}) > 1]
    unlike = [name for name in unlike if all(name in fact for fact in facts)] or unlike
    below = {name for record in records for name in record.changed_below}
    said = {name: _end(name, unlike, name.partition(".")[0] if name in below else "") for name in unlike}
    return [[f"{said[name]}={fact[name]}" for name in unlike if name in fact] for fact in facts]


def _versions(records: Sequence[RunHead]) -> list[list[str]]:
    said = [f"version {record.plugin.version}" if record.plugin.version else "a loose file" for record in records]
    return [[words] if len(set(said)) > 1 else [] for words in said]


def _dates(records: Sequence[RunHead]) -> list[list[str]]:
    """The day, or the second where days are shared."""
    days = [record.created[:10] for record in records]
    said = days if len(set(days)) == len(days) else [record.created[:19].replace("T", " ") for record in records]
    return [[f"made {words}"] if len(set(said)) > 1 else [] for words in said]


def _numbers(records: Sequence[RunHead]) -> list[list[str]]:
    return [[str(place)] for place in range(1, len(records) + 1)]


def _end(name: str, names: Sequence[str], method: str = "") -> str:
    """The shortest end of a dotted name that no other of the names has, behind its method's name if that is given."""
    words = name.split(".")
    for start in range(len(words) - 1, 0, -1):
        end = ".".join(words[start:])
        if sum(other == end or other.endswith(f".{end}") for other in names) == 1:
            return f"{method}.{end}" if method else end
    return name
