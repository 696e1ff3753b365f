"""Option dataclasses: which names they have (nested ones dotted), how text becomes their values, how to fill
them.

Where values come from (files, --set, flags) is `harness.config.run_config`; here is only one dataclass and one value at
a time.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.contract.specs import Search
from harness.errors import did_you_mean

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_LIST = ("tuple_type", "list_type")  # errors of pydantic
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


class Plain(str):
    """Text that stood there without quotes: a number, truth value or null may be meant."""

    __slots__ = ()


def resolve(value: Any) -> Any:
    """Replace `Plain` leaves by what they spell: null, true, false, an integer, a decimal, else text."""
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item) for item in value]
    if not isinstance(value, Plain):
        return value
    text = value.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return str(value)


def plain(value: Any) -> Any:
    """Options, or anything else, as JSON types; what JSON has no type for becomes its text."""
    value = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    return json.loads(json.dumps(value, default=str))


def option_types(options: type) -> dict[str, Any]:
    """Option name -> type, of a dataclass; fields of a field that is a dataclass are named `outer.inner`."""
    hints = typing.get_type_hints(options, include_extras=True)
    types: dict[str, Any] = {}
    for item in dataclasses.fields(options):
        hint = hints[item.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            types |= {f"{item.name}.{inner}": kind for inner, kind in option_types(hint).items()}
        else:
            types[item.name] = hint
    return types


def option_values(options: Any) -> dict[str, Any]:
    """Option name -> value as JSON types, of an instance; named as by `option_types`."""
    found = {}
    for name in option_types(type(options)):
        value = plain(options)
        for part in name.split("."):
            value = value[part]
        found[name] = value
    return found


def search_space(options: type) -> dict[str, Search]:
    """Option name -> where to look for its value, for the options whose types say so."""
    found = {}
    for name, hint in option_types(options).items():
        known = [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Search)]
        if known:
            found[name] = known[0]
    return found


def read_value(value: Any, hint: Any) -> Any:
    """Turn a value as it stands in a file or after `--set key=` into the type `hint`.

    Unquoted text is tried as the number, truth value or null that it spells, then as text, then as a list
    with commas. Raises ValueError with one line that says what is wanted.
    """
    adapter = TypeAdapter(hint)
    why: ValidationError | None = None  # what is wrong with an item says more than that the text is no list
    for candidate in _readings(value):
        try:
            result = adapter.validate_python(candidate)
        except ValidationError as error:
            if why is None or why.errors()[0]["type"] in _NO_LIST:
                why = error
            continue
        if isinstance(candidate, bool) and not isinstance(result, bool):
            continue  # true is not the number 1
        if not _finite(result):
            raise ValueError("must be a finite number")
        return result
    raise ValueError(_message(why, value))


def fill(options: Any, values: Mapping[str, Any]) -> Any:
    """A copy of an options instance with values by dotted name. Errors of `__post_init__` pass through."""
    inner: dict[str, dict[str, Any]] = {}
    changes: dict[str, Any] = {}
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            changes[head] = value
    for head, part in inner.items():
        changes[head] = fill(getattr(options, head), part)
    return dataclasses.replace(options, **changes)


def _readings(value: Any) -> Iterator[Any]:
    yield resolve(value)
    if isinstance(value, Plain):
        yield str(value)
        parts = [Plain(part.strip()) for part in value.split(",")] if value.strip() else []
        yield resolve(parts)
        yield [str(part) for part in parts]
    elif isinstance(value, list):
        yield [str(part) if isinstance(part, Plain) else part for part in value]


def _finite(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_finite, value))
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return not isinstance(value, float) or math.isfinite(value)


def _message(error: ValidationError | None, value: Any) -> str:
    if error is None:
        return "Input should be a number, not a truth value"
    detail = error.errors()[0]
    expected = (detail.get("ctx") or {}).get("expected")
    if detail["type"] == "literal_error" and expected and isinstance(value, str):
        words = expected.replace("'", "").replace(" or ", ", ").split(", ")
        return f"should be one of {', '.join(words)}; {did_you_mean(value, words)}"
    if detail["type"] in _NO_LIST:
        return "should be a list, such as 1,2,3"
    text = detail["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    text = text.replace("Input should", "should").replace("String should", "should")
    item = isinstance(value, Plain) and detail["loc"] and isinstance(detail["loc"][0], int)
    return f"'{detail['input']}' {text}" if item else text
