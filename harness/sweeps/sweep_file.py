"""A sweep's YAML file -> `Sweep`: shared settings, one entry per row, seeds; all faults with file and line.

Each entry is read by `harness.config`, as a run's configuration is. Plans with phases are read by plan_file on the
helpers here; running is in sweep.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import to_jsonable_python

from harness.config import SETTINGS, Document, OptionsOf, RunConfig, flat, load_config, read_document
from harness.contract import Plain, read_value
from harness.errors import ConfigError, HarnessError, did_you_mean

ENTRY_KEYS = ("method", "label", "control", "set")
OWN_KEYS = ("methods", "seeds")
_SEEDS = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row to be: a method with its options and control. `label` is what the row is called."""

    label: str
    config: RunConfig

    @property
    def identity(self) -> str:
        """What tells two entries of one file apart, whatever they are called."""
        recipe = self.config.recipe
        options = to_jsonable_python([recipe.options, recipe.others])
        return json.dumps([recipe.method, options, recipe.control], sort_keys=True)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep is asked to do.

    name      of the file
    shared    settings of all runs; its method is the baseline's
    baseline  the entry that all others are compared with, at its own defaults
    entries   the rows in the file's order; the baseline's own is among them only where the file lists it
    seeds     each entry is run with each
    """

    name: str
    shared: RunConfig
    baseline: Entry
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Reader:
    """A file under way: the document, where option classes come from, and the faults found so far."""

    document: Document
    options_of: OptionsOf
    faults: list[str]

    def fault(self, key: str, text: str) -> None:
        self.faults.append(f"{self.document.where(key)}: {text}")

    def keys(self, path: str, values: Mapping[str, Any], known: Sequence[str], what: str) -> None:
        """Every key of a mapping must be a known one."""
        for key in values:
            if key not in known:
                where = f"{path}.{key}" if path else key
                self.fault(where, f"unknown key '{key}' of {what}; {did_you_mean(key, known)}")

    def value(self, path: str, values: Mapping[str, Any], key: str, hint: Any, default: Any = None) -> Any:
        """One value by type; the default, with a fault, where it does not fit."""
        if key not in values:
            return default
        try:
            return read_value(values[key], hint)
        except ValueError as error:
            self.fault(f"{path}.{key}" if path else key, f"{key} = {values[key]}: {error}")
            return default

    def items(self, path: str, values: Mapping[str, Any], key: str, what: str) -> list[Any]:
        """A list that must be there and must not be empty."""
        where = f"{path}.{key}" if path else key
        found = values.get(key)
        if not isinstance(found, list) or not found:
            self.fault(where if key in values else path, f"'{key}' must be a list of {what}")
            return []
        return found

    # ---- entries ----

    def entry(self, path: str, item: Any, shared: RunConfig, method: str | None = None) -> Entry | None:
        """A method's name, or a mapping of ENTRY_KEYS; `method` is the one meant where the mapping names none."""
        if not isinstance(item, dict):
            item = {"method": item}
            part = Document(self.document.name, item, {"method": self.document.lines.get(path, 0)})
        else:
            part = self.document.part(path, item)
        self.keys(path, item, ENTRY_KEYS, "a method")
        name = item.get("method", method)
        if not isinstance(name, str) or not name:
            self.fault(path, "name a method, or give a mapping with 'method:'")
            return None
        values = {"method": Plain(name), **{k: item[k] for k in ("control", "set") if k in item}}
        try:
            own = load_config(
                options_of=lambda kind, asked: self.options_of(kind, asked) if kind == "method" else _Nothing,
                file=replace(part, values=values),
                required=shared.required_options,
            )
        except ConfigError as error:
            # Several phases may name the same entry; each fault is told once.
            self.faults.extend(line for line in str(error).splitlines() if line not in self.faults)
            return None
        if own.protocol:
            self.fault(f"{path}.set", "the protocol is the same for all methods: put it under the file's own 'set:'")
        control = own.control if "control" in item else shared.control
        options = {"method_options": own.method_options, "required_options": own.required_options}
        config = replace(shared, method=name, control=control, **options)
        label = self.value(path, item, "label", str) or _label(name, item.get("set"), control)
        return Entry(label, config)

    def entries(self, path: str, found: list[Any], shared: RunConfig) -> list[Entry]:
        """The entries of a list; two that are the same run, or have the same label, are faults."""
        made: list[tuple[str, Entry]] = []
        for place, item in enumerate(found):
            where = f"{path}.{place}"
            if (entry := self.entry(where, item, shared)) is None:
                continue
            for other, before in made:
                line = self.document.where(other)
                if entry.identity == before.identity:
                    self.fault(where, f"'{entry.label}' is the same run as '{before.label}' ({line}); keep one")
                elif entry.label == before.label:
                    self.fault(where, f"the label '{entry.label}' is taken ({line}); give another")
            made.append((where, entry))
        return [entry for _, entry in made]

    def plain(self, name: str, shared: RunConfig) -> Entry:
        """A method at its own defaults and without a control. Raises HarnessError for an unknown name."""
        options = shared.required_options.get(name) or self.options_of("method", name)()
        return Entry(name, replace(shared, method=name, control=None, method_options=options))

    # ---- what all runs share ----

    def shared(self, flags: Mapping[str, Any]) -> tuple[RunConfig | None, tuple[int, ...]]:
        """Settings of all runs, with the baseline as their method, and the seeds; None if there are faults."""
        values = self.document.values
        if "method" in values:
            self.fault("method", "'method' belongs to a single run; name the methods in the list 'methods'")
        seeds = self._seeds(flags.get("seeds"))
        known = {k: v for k, v in values.items() if k in (*SETTINGS, "set") and k not in ("method", "seed")}
        try:
            shared = load_config(
                # Methods bring their options in their own entries, or under their names; others are unknown here.
                options_of=lambda kind, name: _Nothing if name == "-" else self.options_of(kind, name),
                file=replace(self.document, values=known),
                flags={k: v for k, v in flags.items() if k != "seeds"} | {"method": "-"},
            )
        except ConfigError as error:
            self.faults.extend(map(_hinted, str(error).splitlines()))
            shared = None
        baseline = shared.baseline if shared else values.get("baseline", "-")
        if not baseline:
            self.fault("baseline", "a sweep compares with a baseline; name one")
            return None, seeds
        try:
            plain = self.plain(str(baseline), replace(shared or RunConfig("-", "-"), seed=seeds[0]))
        except HarnessError as error:
            if shared or "baseline" in values:
                self.fault("baseline", str(error))
            return None, seeds
        return replace(plain.config, control=shared.control) if shared else None, seeds

    def _seeds(self, flag: str | None) -> tuple[int, ...]:
        values = self.document.values
        if "seed" in values and "seeds" in values:
            self.fault("seed", f"seed and seeds ({self.document.where('seeds')}) are both given; keep seeds")
        given = values.get("seeds", values.get("seed", Plain("0")))
        where = self.document.where("seeds" if "seeds" in values else "seed")
        if flag is not None:
            given, where = Plain(flag), "--seeds"
        given = given if isinstance(given, list) else Plain(str(given))
        try:
            seeds: tuple[int, ...] = read_value(given, _SEEDS)
        except ValueError as error:
            self.faults.append(f"{where}: seeds = {given}: {error}")
            return (0,)
        if len(set(seeds)) < len(seeds):
            self.faults.append(f"{where}: a seed occurs twice in {', '.join(map(str, seeds))}")
        return seeds


@dataclass(frozen=True)
class _Nothing:
    """Options of a plugin that is not asked."""


def open_reader(file: str | Path | Document, options_of: OptionsOf) -> Reader:
    """The file parsed, none of it checked; or one that is read already.

    Raises ConfigError for a file that is not there or no YAML mapping.
    """
    document = file if isinstance(file, Document) else read_document(file, "")  # for any command
    return Reader(document, options_of, [])


def load_sweep(reader: Reader, flags: Mapping[str, Any]) -> Sweep:
    """Check all of a sweep's file.

    flags   settings from the command line by field name, and "seeds"; None values count as not given
    Raises ConfigError listing every fault, one a line.
    """
    document = reader.document
    reader.keys("", document.values, (*SETTINGS, "set", *OWN_KEYS), "a sweep")
    shared, seeds = reader.shared(flags)
    found = reader.items("", document.values, "methods", "methods")
    # Faults of the entries are wanted too where the shared settings have some; any configuration serves for that.
    entries = reader.entries("methods", found, shared or RunConfig("-", "-"))
    if reader.faults or shared is None:
        raise ConfigError("\n".join(dict.fromkeys(reader.faults)))
    baseline = reader.plain(shared.method, shared)
    listed = [entry for entry in entries if entry.identity == baseline.identity]
    if not listed and any(entry.label == baseline.label for entry in entries):
        raise ConfigError(f"{document.where('methods')}: the label '{baseline.label}' is the baseline's; give another")
    return Sweep(document.name, shared, listed[0] if listed else baseline, tuple(entries), seeds)


def _label(name: str, options: Any, control: str | None) -> str:
    given = [f"{key}={_text(value)}" for key, value in flat(options)] if isinstance(options, dict) else []
    return " ".join([name, *given]) + (f" (control: {control})" if control else "")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _hinted(fault: str) -> str:
    unknown = "unknown option" in fault
    return fault + (" (an option of a method goes under that method's own 'set:')" if unknown else "")
