"""Watching without disturbing: which options a method reads, other values to try, and all text within its reach."""

from __future__ import annotations

import dataclasses
import gc
import types
import typing
from collections.abc import Iterator
from typing import Any

import torch

from harness.contract import fill, option_types
from harness.errors import HarnessError

MOST_OBJECTS = 500_000


def watched(options: Any, seen: set[str], path: str = "") -> Any:
    """A twin of an options instance that enters the dotted name of every option that is read into `seen`."""
    kind = type(options)
    names = {item.name for item in dataclasses.fields(options)}

    def read(self: Any, name: str) -> Any:
        if name in names:
            seen.add(path + name)
        return super(twin_type, self).__getattribute__(name)

    # Of the same name: the harness writes the names of adapter shapes into its records.
    twin_type: Any = type(kind.__name__, (kind,), {"__getattribute__": read, "__module__": kind.__module__})
    twin = object.__new__(twin_type)
    for name in names:
        value = getattr(options, name)
        inner = dataclasses.is_dataclass(value) and not isinstance(value, type)
        object.__setattr__(twin, name, watched(value, seen, f"{path}{name}.") if inner else value)
    return twin


def variations(options: Any) -> Iterator[Any]:
    """Copies of an options instance, each with one option changed; those that it refuses are left out.

    Switches come first: they are what other options hang on.
    """
    types_by_name = option_types(type(options))
    switches_first = sorted(types_by_name, key=lambda name: not _is_switch(types_by_name[name]))
    for name in switches_first:
        hint = types_by_name[name]
        value = options
        for part in name.split("."):
            value = getattr(value, part)
        for other in _others(value, hint):
            try:
                yield fill(options, {name: other})
            except (ValueError, TypeError, HarnessError):
                continue


def _is_switch(hint: Any) -> bool:
    return hint is bool or typing.get_origin(hint) is typing.Literal


def _others(value: Any, hint: Any) -> list[Any]:
    if typing.get_origin(hint) is typing.Literal:
        return [choice for choice in typing.get_args(hint) if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [value / 2 if value else 0.5]
    return []


def texts_in_reach(*roots: Any) -> set[str]:
    """Every text that can be reached from objects by following what they refer to.

    Modules, classes and the global names of functions are left out: they lead everywhere, and whoever looks there
    is not given anything by the harness.
    """
    found: set[str] = set()
    seen: set[int] = set()
    waiting = list(roots)
    # Kept, so that an object made on the way is not freed and its id given to the next.
    kept: list[Any] = []
    while waiting and len(seen) < MOST_OBJECTS:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        kept.append(thing)
        if isinstance(thing, str):
            found.add(thing)
        elif isinstance(thing, types.FunctionType):
            waiting += [thing.__closure__, thing.__defaults__, thing.__kwdefaults__]
        elif isinstance(thing, dict):
            waiting += [*dict.keys(thing), *gc.get_referents(thing)]  # the collector passes over keys that are texts
        elif not isinstance(thing, types.ModuleType | types.FrameType | type | torch.Tensor):
            waiting += gc.get_referents(thing)
    return found
