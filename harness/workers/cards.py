"""The cards of methods, read in processes of their own: the driver imports no method's code.

What comes back is data. The driver makes a dataclass of the same fields, types and defaults from it, so that a
configuration is checked as ever; the plugin's own `__post_init__` has its say in the worker.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import annotated_types
from pydantic import TypeAdapter

from harness.contract import Method, MethodCard, Search, Source, ValidationUse, plain, specs_by_name, user_path
from harness.errors import PluginError, error_named
from harness.store import kind_sources
from harness.workers.chain import Chain
from harness.workers.start import ended, start

T = TypeVar("T")
_PLAIN = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None), "Any": Any}
_NOTES = {kind.__name__: kind for kind in (
    Search, annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt, annotated_types.MultipleOf,
    annotated_types.MinLen, annotated_types.MaxLen,
)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DescribedMethod(Method):
    """A method whose code this process has not imported. kinds: hashes of the kinds of adapters that it uses."""

    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class LooseFile:
    """What a loose plugin file holds. kind: None for metrics and kinds of adapters alone."""

    file: str
    kind: Literal["method", "benchmark"] | None
    method: DescribedMethod | None
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
    values = plain(options())
    fields = [[item.name, _type(hints[item.name]), values[item.name]] for item in dataclasses.fields(options)]
    return {"name": options.__name__, "fields": fields}


def _type(hint: Any) -> Any:
    """A type as JSON. What is unknown becomes Any: the worker, which knows it, checks the value."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if name := next((name for name, kind in _PLAIN.items() if hint is kind), None):
        return name
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
        notes = [item for note in parts[1:] for item in getattr(note, "metadata", None) or [note]]
        known = [[type(item).__name__, asdict(item)] for item in notes if type(item) in _NOTES.values()]
        return {"annotated": _type(parts[0]), "notes": known}
    return "Any"


# ---- in the driver ----


def described(fields: Mapping[str, Any]) -> DescribedMethod:
    """The method of a description. Raises KeyError, TypeError or ValueError for what is none."""
    card = MethodCard(
        summary=str(fields["summary"]),
        options=_made(fields["options"]),
        requires=tuple(map(str, fields["requires"])),
        shares=TypeAdapter(Literal["persona", "cluster", "all"]).validate_python(fields["shares"]),
        trials=int(fields["trials"]),
        validation=TypeAdapter(ValidationUse).validate_python(fields["validation"]),
    )
    source = TypeAdapter(Source).validate_python(fields["source"])
    return DescribedMethod(str(fields["name"]), card, source, None, tuple(map(str, fields["kinds"])))


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
            notes = [_NOTES[name](**note) for name, note in dict(more)["notes"]]
            return functools.reduce(lambda hint, note: Annotated[hint, note], notes, _hint(value))
        case _:
            raise ValueError(form)


# ---- asking ----


def read_card(name: str, files: Sequence[str | Path] = ()) -> DescribedMethod:
    """The method of that name, from an entry point or one of the loose files. Raises PluginError."""
    return _card(name, files_for([name], files))


def kinds_of(chain: Chain) -> list[str]:
    """Hashes of the code of the kinds of adapters that these methods use."""
    methods = [method for method, _ in chain.values()]
    told = [kind for method in methods if isinstance(method, DescribedMethod) for kind in method.kinds]
    return sorted({*told, *kind_sources(m.source for m in methods if not isinstance(m, DescribedMethod))})


def files_for(methods: Collection[str], files: Sequence[str | Path]) -> tuple[str, ...]:
    """Those of loose files that a process of these methods imports: theirs, and metrics and kinds of adapters."""
    return tuple(
        one.file for one in _loose(files) if one.kind is None or (one.method is not None and one.method.name in methods)
    )


def trusted_files(files: Sequence[str | Path]) -> tuple[str, ...]:
    """Those of loose files that the driver imports: benchmarks and metrics, which know references.

    Raises PluginError for a method in one file with them.
    """
    found = _loose(files)
    for one in found:
        if one.method and one.metrics:
            raise PluginError(
                f"{one.file} has a method and the metric '{one.metrics[0]}', which belong to different processes: "
                "split the file, or use --no-isolate"
            )
    return tuple(one.file for one in found if one.kind == "benchmark" or (one.metrics and not one.method))


def _loose(files: Sequence[str | Path]) -> list[LooseFile]:
    return [_loose_file(str(user_path(file).resolve())) for file in dict.fromkeys(files)]


@functools.cache
def _loose_file(file: str) -> LooseFile:
    def read(found: Any) -> LooseFile:
        method = described(found["method"]) if found["method"] else None
        kind = TypeAdapter(Literal["method", "benchmark"] | None).validate_python(found["kind"])
        return LooseFile(file, kind, method, tuple(map(str, found["metrics"])))

    return _asked(read, "file", file)


@functools.cache
def _card(name: str, files: tuple[str, ...]) -> DescribedMethod:
    own = next((one.method for one in _loose(files) if one.method), None)
    return own or _asked(described, "method", name, *files)


def _asked(read: Callable[[Any], T], *words: str) -> T:
    """What a process that imports the plugin answers. Raises PluginError, and what that process raised."""
    with start("harness.workers.card_process", *words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            told, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
    try:
        found = json.loads(told)
        if "error" in found:
            raise error_named(str(found["error"]), str(found["text"]))
        return read(found)
    except (KeyError, TypeError, ValueError) as error:
        raise PluginError(f"the card of {words[1]} cannot be read: {ended(process.returncode)}") from error
