"""The cards of methods, read in processes of their own: the driver imports no method's code.

What comes back is data. The driver makes a dataclass of the same fields, types and defaults from it, so that a
configuration is checked as ever; the plugin's own `__post_init__` has its say in the worker.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import annotated_types
from pydantic import TypeAdapter, ValidationError

from harness import errors
from harness.contract import Method, MethodCard, Search, Source, specs_by_name, user_path
from harness.errors import HarnessError, PluginError
from harness.store import kind_sources

_PLAIN = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None), "Any": Any}
_BOUNDS = {kind.__name__: kind for kind in (
    annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt, annotated_types.MultipleOf,
    annotated_types.MinLen, annotated_types.MaxLen,
)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DescribedMethod(Method):
    """A method whose code this process has not imported. kinds: hashes of the kinds of adapters that it uses."""

    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class LooseFile:
    """What a loose plugin file holds. method: its description; kind: None for metrics and kinds of adapters alone."""

    file: str
    kind: Literal["method", "benchmark"] | None
    method: Mapping[str, Any] | None
    metrics: tuple[str, ...]


# ---- in the process that has imported the plugin ----


def describe(method: Method, kinds: Sequence[str]) -> dict[str, Any]:
    """A method's card as JSON."""
    card = method.card
    return {
        "name": method.name,
        "source": asdict(method.source),
        "summary": card.summary,
        "requires": list(card.requires),
        "shares": card.shares,
        "trials": card.trials,
        "validation": card.validation,
        "options": _dataclass(card.options),
        "kinds": list(kinds),
    }


def _dataclass(options: type) -> dict[str, Any]:
    hints = typing.get_type_hints(options, include_extras=True)
    values = asdict(options())  # pyright: ignore[reportCallIssue]
    fields = [[item.name, _type(hints[item.name]), values[item.name]] for item in dataclasses.fields(options)]
    return {"name": options.__name__, "fields": fields}


def _type(hint: Any) -> Any:
    """A type as JSON. What is unknown becomes Any: the worker, which knows it, checks the value."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "None"
    if isinstance(hint, type) and hint.__name__ in _PLAIN and origin is None:
        return hint.__name__
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        known = specs_by_name().get(hint.__name__) is hint
        return {"spec": hint.__name__} if known else {"dataclass": _dataclass(hint)}
    if origin is Literal:
        return {"literal": list(parts)}
    if origin in (Union, types.UnionType):
        return {"union": [_type(part) for part in parts]}
    if origin is tuple and len(parts) == 2 and parts[1] is ...:
        return {"many": _type(parts[0])}
    if origin is tuple:
        return {"tuple": [_type(part) for part in parts]}
    if origin is Annotated:
        more = [_note(item) for note in parts[1:] for item in getattr(note, "metadata", None) or [note]]
        return {"annotated": _type(parts[0]), "notes": [item for item in more if item]}
    return "Any"


def _note(item: Any) -> Any:
    if isinstance(item, Search):
        return ["Search", asdict(item)]
    name = type(item).__name__
    return [name, asdict(item)] if name in _BOUNDS else None


# ---- in the driver ----


def described(fields: Mapping[str, Any]) -> DescribedMethod:
    """The method of a description. Raises PluginError for what is none."""
    try:
        card = MethodCard(
            summary=str(fields["summary"]),
            options=_made(fields["options"]),
            requires=tuple(map(str, fields["requires"])),
            shares=TypeAdapter(Literal["persona", "cluster", "all"]).validate_python(fields["shares"]),
            trials=int(fields["trials"]),
            validation=TypeAdapter(Literal["early_stopping", "selection", "training"]).validate_python(
                fields["validation"]
            ),
        )
        source = TypeAdapter(Source).validate_python(fields["source"])
        return DescribedMethod(str(fields["name"]), card, source, None, tuple(map(str, fields["kinds"])))
    except (KeyError, TypeError, ValueError) as error:
        raise PluginError(f"the process that read a plugin's card sent something that is no card: {error}") from error


def _made(fields: Mapping[str, Any]) -> type:
    made = [
        (name, hint := _hint(kind), dataclasses.field(default_factory=functools.partial(_value, hint, default)))
        for name, kind, default in fields["fields"]
    ]
    return dataclasses.make_dataclass(str(fields["name"]), made, frozen=True)


def _value(hint: Any, default: Any) -> Any:
    return TypeAdapter(hint).validate_python(default)


def _hint(kind: Any) -> Any:
    if isinstance(kind, str):
        return _PLAIN[kind]
    ((form, value), *more) = kind.items()
    match form:
        case "spec":
            return specs_by_name()[value]
        case "dataclass":
            return _made(value)
        case "literal":
            return Literal[tuple(value)]  # pyright: ignore[reportInvalidTypeArguments]
        case "union":
            return Union[tuple(map(_hint, value))]  # noqa: UP007
        case "many":
            return tuple[_hint(value), ...]
        case "tuple":
            return tuple[tuple(map(_hint, value))]
        case "annotated":
            notes = [
                Search(**note) if name == "Search" else _BOUNDS[name](**note) for name, note in dict(more)["notes"]
            ]
            return functools.reduce(lambda hint, note: Annotated[hint, note], notes, _hint(value))
        case _:
            raise ValueError(form)


# ---- asking ----


@functools.cache
def read_file_card(file: str) -> LooseFile:
    """What a loose plugin file holds. Raises PluginError."""
    return TypeAdapter(LooseFile).validate_python(_asked("file", file))


def read_card(name: str, files: Sequence[str | Path] = ()) -> DescribedMethod:
    """The method of that name, from an entry point or one of the loose files. Raises PluginError."""
    return _card(name, tuple(str(user_path(file).resolve()) for file in files))


def kinds_of(methods: Sequence[Method]) -> list[str]:
    """Hashes of the code of the kinds of adapters that these methods use."""
    told = [kind for method in methods if isinstance(method, DescribedMethod) for kind in method.kinds]
    return sorted({*told, *kind_sources(m.source for m in methods if not isinstance(m, DescribedMethod))})


@functools.cache
def _card(name: str, files: tuple[str, ...]) -> DescribedMethod:
    kinds = []
    for file in files:
        found = read_file_card(file)
        if found.method and found.method["name"] == name:
            return described(found.method)
        kinds += [] if found.kind else [file]
    return described(_asked("method", name, *kinds))


def trusted_files(files: Sequence[str | Path]) -> tuple[str, ...]:
    """Those of loose files that the driver imports: benchmarks and metrics, which know references.

    Raises PluginError for a method in one file with them.
    """
    found = [read_file_card(str(user_path(file).resolve())) for file in files]
    for one in found:
        if one.method and one.metrics:
            raise PluginError(
                f"{one.file} has a method and the metric '{one.metrics[0]}': give the metric a file of its own, or "
                "--no-isolate"
            )
    return tuple(one.file for one in found if one.kind == "benchmark" or (one.metrics and not one.method))


def _asked(*words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "harness.workers.card_process", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    try:
        found = json.loads(done.stdout)
        if "error" in found:
            known = getattr(errors, str(found["error"]), HarnessError)
            raise (known if issubclass(known, HarnessError) else HarnessError)(str(found["text"]))
    except (ValueError, TypeError, ValidationError) as error:
        raise PluginError(
            f"the card of {words[1]} cannot be read: its process ended with exit code {done.returncode}"
        ) from error
    else:
        return found
