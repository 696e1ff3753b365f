"""What a plugin says about itself, for reading: `harness describe`. The values are its card's; nothing is run."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from harness.contract import Benchmark, Method, Metric, Search, option_types, option_values, plain, search_space
from harness.show.layout import table_lines
from harness.text import as_lines

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def described(plugin: Method | Benchmark) -> dict[str, Any]:
    """A method or benchmark as plain data: where it is from, what its card says, and its options."""
    card, source = plugin.card, plugin.source
    found: dict[str, Any] = {"kind": "method" if isinstance(plugin, Method) else "benchmark", "name": plugin.name}
    found |= {"summary": card.summary, "distribution": source.distribution, "version": source.version}
    found |= {"file": source.file}
    if isinstance(plugin, Method):
        card = plugin.card
        found |= {"shares": card.shares, "requires": list(plugin.requires(card.options()))}
        found |= {"trials": card.trials, "validation": card.validation}
    return {**found, "options": _options(card.options)}


def described_metric(metric: Metric) -> dict[str, Any]:
    """A metric as plain data."""
    return {
        "kind": "metric",
        "name": metric.name,
        "summary": metric.summary,
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        "pooled": metric.pooled,
        "needs": list(metric.needs),
        "group": metric.group,
    }


def described_text(found: Mapping[str, Any]) -> str:
    """The same in words."""
    lines = [f"{found['kind']} {found['name']}: {found['summary']}"]
    if "file" in found:
        origin = f"{found['distribution']} {found['version']}, " if found["distribution"] else ""
        lines.append(f"from {origin}{found['file']}")
    if found["kind"] == "metric":
        better = "higher" if found["higher_is_better"] else "lower"
        way = "counts are summed over replies first" if found["pooled"] else "a mean over replies"
        unit = "points" if found["unit"] == "pt" else found["unit"]
        lines.append(f"{better} is better; in {unit}; {way}")
        lines += [f"needs {', '.join(found['needs'])}"] if found["needs"] else []
        lines += [f"also computed when its group is requested: {found['group']}"] if found["group"] else []
        return as_lines(lines)
    if found["kind"] == "method":
        whose = {"persona": "the persona's own", "cluster": "its cluster's", "all": "everybody's"}[found["shares"]]
        lines.append(f"data that may influence a reply: {whose}")
        lines.append(f"base: {', '.join(found['requires']) or 'the bare backbone'}")
        lines.append(f"settings tried to choose its defaults: {found['trials']}; validation: {found['validation']}")
    rows = [
        {**option, "default": json.dumps(option["default"], ensure_ascii=False), "search": _search(option["search"])}
        for option in found["options"]
    ]
    return as_lines([*lines, "", *(table_lines(rows) if rows else ["no options"])])


def _options(options: type) -> list[dict[str, Any]]:
    space, values = search_space(options), option_values(options())
    return [
        {"option": name, "type": _type(hint), "default": values[name], "search": plain(space.get(name))}
        for name, hint in option_types(options).items()
    ]


def _search(space: Mapping[str, Any] | None) -> str:
    """Where `harness tune` looks."""
    if space is None:
        return ""
    if space["choices"]:
        return ", ".join(map(str, space["choices"]))
    return f"{space['low']:g} to {space['high']:g}" + (", by factors" if space["log"] else "")


def _type(hint: Any) -> str:
    """A type as people write it: `int >= 1`, `random | vocab_sample`, `list of int`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kind, *notes = arguments
        bounds = [one for note in notes for one in (getattr(note, "metadata", None) or [note])]
        known = [
            f"{sign} {getattr(one, name)}" for one in bounds for name, sign in _BOUNDS.items() if hasattr(one, name)
        ]
        return " ".join([_type(kind), *([] if any(isinstance(note, Search) for note in notes) else known)])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type, arguments))
    if origin in (tuple, list) and arguments:
        same = origin is list or arguments[-1] is Ellipsis
        return f"list of {_type(arguments[0])}" if same else ", ".join(map(_type, arguments))
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))
