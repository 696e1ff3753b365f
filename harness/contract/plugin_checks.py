"""What pluggy passes over in silence, made loud: every fault of a plugin's hooks and card, as text.

Finding and importing plugins is in `plugins`; the contract itself is in `hooks`. No torch here.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import traceback
import typing
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter

from harness.contract.data import BenchmarkCard, MethodCard, ValidationUse
from harness.contract.hooks import OPTIONAL, PROJECT, hook_arguments
from harness.contract.metric import CORE_METRICS, Metric, Need, Unit
from harness.contract.specs import CORE_ADAPTERS, AdapterKind
from harness.errors import did_you_mean

_MARK = PROJECT + "_impl"  # the attribute that hookimpl sets
_SHARES = ("persona", "cluster", "all")
_VALIDATION = typing.get_args(ValidationUse)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # a name is also a folder and a row


def hook_faults(plugin: Any, hooks: type, beside: Collection[str] = ()) -> list[str]:
    """Faults of the hook functions of `plugin` (a module or an object) against a class of hook
    specifications.

    pluggy ignores a marked function with an unknown name, a missing hook, a hook that is not marked, a marked
    thing that is no function, and an argument with a default (it is never filled). Each is a fault here. A hook
    that may be left out is missing only where another function's name reads like it.
    beside  hooks of other kinds of plugins that may stand in the same module
    """
    if inspect.isclass(plugin):
        return [f"{plugin.__name__} is a class: point the entry point at a module or at an instance of it"]
    arguments = hook_arguments(hooks)
    faults, implemented = [], set()
    for attribute, function in _marked(plugin):
        name = getattr(function, _MARK).get("specname") or attribute
        if name in beside:
            continue
        if name not in arguments:
            faults.append(f"unknown hook '{name}'{_line(function)}; {did_you_mean(name, [*arguments, *beside])}")
        elif not inspect.isroutine(function):
            faults.append(f"hook '{name}' is a {type(function).__name__}, not a function: pluggy would pass it over")
        else:
            implemented.add(name)
            faults += _signature_faults(name, function, arguments[name])
    missing = [name for name in arguments if name not in implemented]
    unmarked = dict(_unmarked(plugin))
    typos = " ".join(faults)
    for name in missing:
        if name in unmarked:
            faults.append(f"function '{name}'{_line(unmarked[name])} is not marked: put @hookimpl above it")
        elif f"'{name}'" not in typos:  # a misspelt one is reported already, with this name as the suggestion
            near = difflib.get_close_matches(name, unmarked, n=1, cutoff=0.75)
            hint = f"did you mean your function '{near[0]}'{_line(unmarked[near[0]])}?" if near else ""
            hook = f"hook '{name}({', '.join(arguments[name])})'"
            if name not in OPTIONAL:
                faults.append(f"missing {hook}{'; ' if hint else ''}{hint}")
            elif hint:
                faults.append(f"no {hook}; {hint} If not, give that another name")
    return faults


def _signature_faults(name: str, function: Any, wanted: tuple[str, ...]) -> Iterator[str]:
    here = f"hook '{name}'{_line(function)}"
    options = getattr(function, _MARK)
    if options.get("wrapper") or options.get("hookwrapper"):
        yield f"{here} is a wrapper: a plugin is called alone, so there is nothing to wrap"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        yield f"{here} is a coroutine or generator: return the value instead"
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            yield f"{here}: argument '{parameter}' is never filled; use plain arguments ({', '.join(wanted)})"
        elif parameter.name not in wanted:
            known = did_you_mean(parameter.name, wanted) if wanted else "it takes none"
            yield f"{here}: unknown argument '{parameter.name}'; {known}"
        elif parameter.default is not parameter.empty:
            yield f"{here}: argument '{parameter.name}' has a default, so it would never be filled; remove it"


def card_faults(name: str, card: Any, wanted: type) -> list[str]:
    """Faults of what a plugin's `card()` returned; `wanted` is MethodCard or BenchmarkCard."""
    if not isinstance(card, wanted):
        return [f"card() returned {_kind(card)}, not {wanted.__name__}(summary=..., options=...)"]
    assert isinstance(card, MethodCard | BenchmarkCard)
    faults = []
    if not _is_line(card.summary):
        faults.append("card().summary must be one line of text")
    if isinstance(card, MethodCard):
        requires = card.requires
        if isinstance(requires, str):
            faults.append(f"card().requires is text: write requires=({requires!r},) with a comma")
        elif not isinstance(requires, tuple) or not all(isinstance(item, str) for item in requires):
            faults.append("card().requires must be a tuple of method names")
        elif unknown := [r for r in requires if r.startswith("{") and not hasattr(card.options, r[1:-1])]:
            faults.append(f"card().requires has {unknown[0]!r}, but there is no such option")
        elif name in requires:
            faults.append(f"card().requires names '{name}' itself")
        if card.shares not in _SHARES:
            faults.append(f"card().shares is {card.shares!r}; known: {', '.join(_SHARES)}")
        if not isinstance(card.trials, int) or card.trials < 1:
            faults.append("card().trials must be a whole number from 1 (how many settings were tried)")
        if card.validation not in _VALIDATION:
            faults.append(f"card().validation is {card.validation!r}; known: {', '.join(_VALIDATION)}")
    return faults + option_faults(card.options)


def option_faults(options: Any) -> list[str]:
    """Faults of a card's options: a dataclass that can be made without arguments, with usable types."""
    if not isinstance(options, type):
        return [f"card().options is {_kind(options)}: give the dataclass itself, not an instance"]
    if not dataclasses.is_dataclass(options):
        return [f"card().options: {options.__name__} is not a dataclass; put @dataclass(frozen=True) above it"]
    faults = []
    for item in dataclasses.fields(options):
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            faults.append(f"option '{item.name}' of {options.__name__} has no default")
    try:
        hints = typing.get_type_hints(options)
    except Exception as error:
        return [
            *faults,
            f"types of {options.__name__} cannot be resolved ({error}); import them at module level",
        ]
    for item in dataclasses.fields(options):
        try:
            TypeAdapter(hints[item.name])
        except Exception as error:
            reason = str(error).splitlines()[0]
            faults.append(f"option '{item.name}' of {options.__name__} has a type that text cannot give: {reason}")
    if not faults:
        try:
            options()
        except Exception as error:
            where = "".join(
                f" ({Path(x.filename).name}:{x.lineno})" for x in traceback.extract_tb(error.__traceback__)[-1:]
            )
            fails = f"fails{where}: {type(error).__name__}: {error}"
            faults.append(f"{options.__name__}() with its own defaults {fails}")
    return faults


def metric_faults(items: Any) -> list[str]:
    """Faults of what a plugin's `metrics()` returned."""
    faults = _item_faults(items, Metric, "metrics", CORE_METRICS)
    if faults:
        return faults
    names = {metric.name for metric in items}
    for metric in items:
        here = f"metric '{metric.name}'"
        if not _is_line(metric.summary):
            faults.append(f"{here}: summary must be one line of text")
        if metric.unit not in typing.get_args(Unit):
            faults.append(f"{here}: unit is {metric.unit!r}; known: {', '.join(typing.get_args(Unit))}")
        if unknown := [need for need in metric.needs if need not in typing.get_args(Need)]:
            faults.append(f"{here}: needs has {unknown[0]!r}; {did_you_mean(str(unknown[0]), typing.get_args(Need))}")
        if not callable(metric.compute) or not (metric.figure is None or callable(metric.figure)):
            faults.append(f"{here}: compute and figure must be functions")
        if metric.figure is None and metric.columns != (metric.name,):
            faults.append(f"{here}: a mean has one column of its own name; give `figure` for counts, or leave it out")
        if metric.group and (metric.group in names | CORE_METRICS or not NAME.fullmatch(metric.group)):
            faults.append(f"{here}: group '{metric.group}' must be a word, and no metric's name")
    return faults


def adapter_faults(items: Any) -> list[str]:
    """Faults of what a plugin's `adapters()` returned."""
    faults = _item_faults(items, AdapterKind, "adapters", CORE_ADAPTERS)
    for kind in [] if faults else items:
        here = f"adapter kind '{kind.name}'"
        if not _is_line(kind.summary):
            faults.append(f"{here}: summary must be one line of text")
        if not callable(kind.create):
            faults.append(f"{here}: create must be a function")
        if not (isinstance(kind.spec, type) and dataclasses.is_dataclass(kind.spec)):
            faults.append(f"{here}: spec must be a dataclass, not {kind.spec!r}")
        elif not kind.spec.__dataclass_params__.frozen:  # pyright: ignore[reportAttributeAccessIssue]
            faults.append(f"{here}: {kind.spec.__name__} can be changed; put @dataclass(frozen=True) above it")
        elif unknown := kind.when.keys() - {item.name for item in dataclasses.fields(kind.spec)}:
            faults.append(f"{here}: {kind.spec.__name__} has no field '{min(unknown)}' to tell kinds apart by")
    return faults


def _item_faults(items: Any, wanted: type, hook: str, taken: Collection[str]) -> list[str]:
    """What metrics and kinds of adapters have in common: a list of them, with names of their own."""
    if not isinstance(items, list | tuple) or not items or not all(isinstance(item, wanted) for item in items):
        return [f"{hook}() returned {_kind(items)}; it must return a list of harness.{wanted.__name__}"]
    names = [item.name for item in items]
    faults = [f"{hook}() names '{name}' twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    faults += [f"the name '{name}' is taken by the harness; choose another" for name in names if name in taken]
    return faults + [f"{name!r}: use letters, digits, '_', '-' and '.' in a name" for name in names if not _named(name)]


def _named(name: Any) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def _is_line(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip()) and "\n" not in text


def hook_names_near(plugin: Any, hooks: type, *, marked: bool = False) -> set[str]:
    """Names of the hooks in `hooks` that some function of `plugin` seems to mean, exactly or misspelt.

    marked  only functions with the mark count
    """
    names = {getattr(item, _MARK).get("specname") or name for name, item in _marked(plugin)}
    names |= set() if marked else {name for name, _ in _unmarked(plugin)}
    known = hook_arguments(hooks)
    return {near for name in names for near in difflib.get_close_matches(name, known, n=1, cutoff=0.75)}


def _marked(plugin: Any) -> Iterator[tuple[str, Any]]:
    for name in dir(plugin):
        item = _attribute(plugin, name)
        if isinstance(getattr(item, _MARK, None), dict):
            yield name, item


def _unmarked(plugin: Any) -> Iterator[tuple[str, Any]]:
    """The plugin's own public functions (not the ones it imported) without the mark."""
    home = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
    for name in dir(plugin):
        item = _attribute(plugin, name)
        own = inspect.isroutine(item) and getattr(item, "__module__", None) == home
        if own and not name.startswith("_") and not isinstance(getattr(item, _MARK, None), dict):
            yield name, item


def _attribute(plugin: Any, name: str) -> Any:
    try:
        return getattr(plugin, name)
    except Exception:  # a property that fails is no hook
        return None


def _line(function: Any) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f" (line {code.co_firstlineno})" if code else ""


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
