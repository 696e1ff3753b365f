"""A YAML file of `harness tune` -> `Tuning`: a sweep with trials, a sampler, and where to look; all faults at once.

Entries and shared settings are read as a sweep's are (sweep_file). The trials are made in tuning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.config import SETTINGS, Document, RunConfig
from harness.contract import Search, option_types, read_value, search_space
from harness.errors import ConfigError, did_you_mean
from harness.sweeps.sweep_file import ENTRY_KEYS, Entry, Reader

OWN_KEYS = ("methods", "seeds", "trials", "sampler", "pruner", "tuning_personas")
SEARCH_KEYS = ("low", "high", "log", "choices")
Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["median", "none"]


@dataclass(frozen=True, slots=True)
class Tuned:
    """One method to be tuned. `space`: dotted name of an option -> where to look; empty: there is nothing to tune."""

    entry: Entry
    space: Mapping[str, Search]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is asked of `harness tune`.

    methods   the baseline first; all get the same number of trials
    seeds     of the runs that are compared at the end; trials are fitted with the first
    personas  for tuning, apart from those that are reported; None: a quarter of all; 0: tuned on those reported
    """

    name: str
    shared: RunConfig
    methods: tuple[Tuned, ...]
    seeds: tuple[int, ...]
    trials: int
    sampler: Sampler
    pruner: Pruner
    personas: int | None


def parts_of(reader: Reader) -> list[Reader]:
    """The tunings of a file: one for each of its `parts`, or one in all.

    What stands in a part is added to what stands above it, or takes its place; so several benchmarks share methods.
    Raises ConfigError for parts that are no list of mappings.
    """
    document = reader.document
    if "parts" not in document.values:
        return [reader]
    shared = {key: value for key, value in document.values.items() if key != "parts"}
    found = []
    for place, item in enumerate(reader.items("", document.values, "parts", "settings")):
        if not isinstance(item, dict):
            reader.fault(f"parts.{place}", "a part is a mapping of settings, such as {benchmark: NAME}")
            continue
        own = document.part(f"parts.{place}", item)
        values = {**shared, **item}
        if isinstance(shared.get("set"), dict) and isinstance(item.get("set"), dict):
            values["set"] = {**shared["set"], **item["set"]}
        part = Document(document.name, values, {**document.lines, **own.lines})
        found.append(Reader(part, reader.options_of, []))
    if reader.faults:
        raise ConfigError("\n".join(reader.faults))
    return found


def load_tuning(reader: Reader, flags: Mapping[str, Any]) -> Tuning:
    """Check all of a tuning's file; `flags` as in `harness.sweeps.sweep_file.load_sweep`, and "trials".

    Raises ConfigError listing every fault, one a line.
    """
    values = dict(reader.document.values)
    if flags.get("trials") is not None:
        values["trials"] = flags["trials"]
    reader.keys("", values, (*SETTINGS, "set", *OWN_KEYS), "a tuning")
    shared, seeds = reader.shared({name: value for name, value in flags.items() if name != "trials"})
    count: type[int] = Annotated[int, Field(ge=1)]  # pyright: ignore[reportAssignmentType]
    trials = reader.value("", values, "trials", count, 10)
    sampler = reader.value("", values, "sampler", Sampler, "tpe")
    pruner = reader.value("", values, "pruner", Pruner, "median")
    personas = reader.value("", values, "tuning_personas", Annotated[int, Field(ge=0)])
    found = reader.items("", values, "methods", "methods")
    named = [{k: v for k, v in item.items() if k != "space"} if isinstance(item, dict) else item for item in found]
    for place, item in enumerate(found):
        if isinstance(item, dict):
            reader.keys(f"methods.{place}", item, (*ENTRY_KEYS, "space"), "a method")
    entries = reader.entries("methods", named, shared or RunConfig("-", "-"))
    if reader.faults or shared is None:
        raise ConfigError("\n".join(dict.fromkeys(reader.faults)))
    tuned = [
        Tuned(entry, _space(reader, f"methods.{place}", item, entry))
        for place, (item, entry) in enumerate(zip(found, entries, strict=True))
    ]
    base = next((one for one in tuned if one.entry.config.method == shared.method), None)
    if base is None:
        plain = reader.plain(shared.method, shared)
        base = Tuned(plain, _space(reader, "baseline", None, plain))
    tuned = [base, *(one for one in tuned if one is not base)]  # what others stand on is tuned first
    if sampler == "grid":
        for one in tuned:
            if open_ := [name for name, search in one.space.items() if not search.choices]:
                reader.fault(
                    "sampler", f"a grid needs a list of values for each option: '{open_[0]}' of {one.entry.label}"
                )
    if doubles := {one.entry.config.control for one in tuned} - {None}:
        reader.fault("methods", f"a control is not tuned ({', '.join(map(str, doubles))}); leave it out")
    if reader.faults:
        raise ConfigError("\n".join(dict.fromkeys(reader.faults)))
    return Tuning(reader.document.name, shared, tuple(tuned), seeds, trials, sampler, pruner, personas)


def _space(reader: Reader, path: str, item: Any, entry: Entry) -> dict[str, Search]:
    """Where the options' types say, changed by the entry's own `space:`; `option: null` leaves one out."""
    options = type(entry.config.method_options)
    space = search_space(options)
    given = item.get("space", {}) if isinstance(item, dict) else {}
    if not isinstance(given, dict):
        reader.fault(f"{path}.space", "'space' must be a mapping of options to {low, high, log} or a list of values")
        return space
    types = option_types(options)
    for key, value in given.items():
        where = f"{path}.space.{key}"
        names = [name for name in types if name == key or name.endswith("." + key)]
        if len(names) != 1:
            known = [name.rsplit(".", 1)[-1] for name in types]
            reader.fault(where, f"{entry.config.method} has no one option '{key}'; {did_you_mean(key, known)}")
            continue
        try:
            found = _search(value, types[names[0]])
        except (ValueError, ConfigError) as error:
            reader.fault(where, f"space of {key}: {error}")
            continue
        space.pop(names[0], None)
        if found:
            space[names[0]] = found
    return space


def _search(value: Any, hint: Any) -> Search | None:
    if isinstance(value, list):
        return Search(choices=tuple(read_value(one, hint) for one in value))
    if not isinstance(value, dict):
        if str(value).strip() in ("null", "~", ""):
            return None
        raise ValueError("write {low: NUMBER, high: NUMBER, log: true}, a list of values, or null")
    if wrong := [key for key in value if key not in SEARCH_KEYS]:
        raise ValueError(f"unknown key '{wrong[0]}'; {did_you_mean(wrong[0], SEARCH_KEYS)}")
    low, high = (None if key not in value else read_value(value[key], float) for key in ("low", "high"))
    return Search(low, high, "log" in value and read_value(value["log"], bool))
