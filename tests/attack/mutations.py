"""Real records, harmed in one place each: what a hostile or broken program might leave among good ones.

`mutations` of a record are the same in every process. Nothing here knows what the harness does with them.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parents[2] / "leaderboard" / "records"
HOME = "/home/alice/secret"  # must be in nothing that is published
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> &lt;",
    "x`touch pwned`; touch pwned; $(touch pwned) '\" \\\n# head\n\n| a | b |\n```\ntouch pwned\n```\n",
    "\x1b[31mred\x1b]0;title\x07 \x9b31m \x08\x00 \u202egnp.exe\u2066 a\u200bb\u200dc \u2028 \ufeff \U000e0041",
    '=HYPERLINK("http://evil.example")',
    "\t@SUM(A1:A9)|cmd",
    "\\input{/etc/passwd} $x_{$ % & # \\\\ ^^M {",
    f"{HOME}/data.jsonl",
    "../../../x",
    "\ud800 half",
    "</script><!-- ]]> --> [x](javascript:alert(3)) ![y](http://evil.example/z) **b**",
    "--plugin=evil.py !! ~root",
    "long " * 1_000,
)
NUMBERS = (math.nan, math.inf, -math.inf, 1e308, -1e308, -1, 0, 10**400, True)
TYPES = (None, "text", 7, [], {}, [[]], {"a": {"b": []}})


@dataclass(frozen=True)
class Mutation:
    """One record with one thing wrong. what: where and how, for the message of a failing test."""

    what: str
    record: Any

    def text(self) -> str:
        """As a file would have it; nan and infinities as Python writes them."""
        return json.dumps(self.record)


def real(name: str) -> dict[str, Any]:
    """A committed record with everything in it that a record may hold."""
    fields = json.loads((RECORDS / f"{name}.json").read_text("utf-8"))
    sums = fields["per_persona"]
    pooled = [name for name, entry in sums["metrics"].items() if entry["counts"]]
    fields["metrics"] = [fields["metrics"][0], pooled[0], fields["metrics"][-1]]  # each kind once
    sums["metrics"] = {name: sums["metrics"][name] for name in fields["metrics"]}
    fields |= {
        "unseen": {"n_personas": 1, "n_replies": 2, "scores": {fields["metrics"][0]: 0.5}, "per_persona": sums},
        "flags": [{"kind": "empty_replies", "share": 0.5}, {"kind": "loss_spikes", "count": 1, "of": 2}],
        "ceilings": [{"name": "oracle", "knows": "all", "scores": {fields["metrics"][0]: 0.9}}],
        "notes": {"kept": {"p1": ["a", 1]}, "said": "something"},
        "plugin_files": ["methods/mine.py"],
        "changed": {"method": {"train.epochs": 3}, "protocol": {"system": "Be brief."}, "other": {"rank": 4}},
        "requires": ["other"],
        "reference": {"score": 50.0, "aggregation": "micro", "source": "somewhere", "se": 1.0, "note": "a note"},
    }
    fields.pop("digest", None)  # a mutated record with the digest of another would never be looked at
    return fields


def old(name: str) -> dict[str, Any]:
    """The same as the harness before this one wrote it, in schema 1."""
    fields = real(name)
    flags = ["50% empty replies", "1 of 2 adapters: diverged", "imported"]
    file = {"name": "scores.csv", "sha256": "0", "unit": "pt"}
    more = {"schema_version": 1, "flags": flags, "origin": "imported", "file": file, "example_set": "all"}
    gone = ("files", "unit", "imported", "plugin_files", "tuning", "yardsticks")
    unseen = {name: value for name, value in fields["unseen"].items() if name != "per_persona"}
    return {**{key: value for key, value in fields.items() if key not in gone}, **more, "unseen": unseen}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something can be put: every field, at every depth; of a list the first element."""
    if path:
        yield path
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def mutations(record: dict[str, Any]) -> Iterator[Mutation]:
    """All of a record, one place and one harm at a time."""
    for number, path in enumerate(places(record)):
        found = _at(record, path)
        yield Mutation(f"without {path}", _with(record, path))
        yield from (Mutation(f"{path} = {harm!r:.40}", _with(record, path, harm)) for harm in _harms(found, number))
        if isinstance(found, dict):
            text = HOSTILE[number % len(HOSTILE)]
            yield Mutation(f"{path} has {text!r:.40}", _with(record, (*path, text), next(iter(found.values()), text)))
    for version in (0, 1, 3, 2.0, "2", None, [2], HOSTILE[2]):
        yield Mutation(f"schema_version {version!r}", {**record, "schema_version": version})
    for run_id in ("good-x-0", "GOOD-X-0", "base-x-0", "../../x", "/etc/passwd", "a\0b", "x" * 300, "-x"):
        yield Mutation(f"id {run_id!r:.30}", {**record, "id": run_id})
    deep: Any = "x"
    for _ in range(80):
        deep = {"a": deep}
    yield Mutation("nested notes", {**record, "notes": {"deep": deep}})
    for whole in ([], [record], "record", 7, None, {}, {"id": "zzbad", "status": "ok"}):
        yield Mutation(f"the whole is {whole!r:.30}", whole)


def _harms(found: Any, number: int) -> list[Any]:
    """Two wrong types, and three numbers or three texts, others at every place."""
    types = [harm for harm in TYPES if type(harm) is not type(found)]
    harms = [types[number % len(types)], types[(number + 3) % len(types)]]
    if isinstance(found, str):
        return [*harms, *(HOSTILE[(3 * number + i) % len(HOSTILE)] for i in range(3))]
    if isinstance(found, int | float):
        return [*harms, *(NUMBERS[(3 * number + i) % len(NUMBERS)] for i in range(3))]
    return harms


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


_GONE = object()


def _with(record: Any, path: tuple[Any, ...], value: Any = _GONE) -> Any:
    """A copy in which something else stands at a place, or nothing."""
    changed = copy.deepcopy(record)
    inner = _at(changed, path[:-1])
    if value is _GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed
