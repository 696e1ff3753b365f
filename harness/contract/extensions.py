"""Metrics and kinds of adapters that plugins bring: checked, and found by name.

Those of the core are in `harness.scoring` and `harness.adapters`. A plugin is found by its entry point, or was loaded
from a loose file earlier in this process. No plugin is imported before a name is looked up that is not the core's.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import harness
from harness.contract.calling import calling, guarded
from harness.contract.metric import Metric
from harness.contract.plugin_checks import adapter_faults, metric_faults
from harness.contract.plugin_import import (
    Listing,
    Source,
    broken,
    contract_error,
    load_point,
    origin,
    points_of,
    registered,
)
from harness.contract.specs import AdapterKind
from harness.errors import HarnessError, PluginError

ExtensionKind = Literal["metric", "adapter"]
EXTENSIONS: tuple[ExtensionKind, ...] = ("metric", "adapter")


@dataclass(frozen=True, slots=True)
class Extension:
    """A metric or a kind of adapter, and the plugin that brings it."""

    kind: ExtensionKind
    item: Any
    source: Source

    @property
    def names(self) -> set[tuple[str, str]]:
        """(kind, name) that no other plugin may have: its own name, and its group's."""
        group = [self.item.group] if isinstance(self.item, Metric) and self.item.group else []
        return {(self.kind, name) for name in (self.item.name, *group)}

    def listing(self) -> Listing:
        """Its line of `harness list`."""
        where = self.source.distribution, self.source.version, self.source.file
        return Listing(self.item.name, self.kind, self.item.summary, *where)


_loose: dict[str, list[Extension]] = {}  # file -> what it brings


def of_the_core(kind: ExtensionKind, item: Any, file: str) -> Extension:
    """A metric or a kind of adapter that is the harness's own, for lists."""
    return Extension(kind, item, Source(file, "", "peft-personalisation-harness", harness.__version__))


def extensions_of(kind: ExtensionKind) -> list[Extension]:
    """All that plugins bring of a kind and that can be used."""
    loose = [item for items in _loose.values() for item in items if item.kind == kind]
    return [*loose, *_installed(kind, tuple(sys.path))[0]]


def list_extensions(kind: ExtensionKind) -> list[Listing]:
    """A line for each metric or kind of adapter that plugins bring, and for each plugin that cannot be used."""
    return [*(item.listing() for item in extensions_of(kind)), *_installed(kind, tuple(sys.path))[1]]


def read_extensions(kind: ExtensionKind, name: str, plugin: Any, source: Source) -> list[Extension]:
    """What a plugin brings. Raises PluginError with every fault."""
    here = f"{kind} plugin '{name}' ({source.file})"
    hooks = registered(kind, here, name, plugin, source)
    with calling(f"{here} cannot be loaded", f"{kind}s", source.file):
        items = hooks.metrics() if kind == "metric" else hooks.adapters()
        faults = metric_faults(items) if kind == "metric" else adapter_faults(items)
    if faults:
        raise contract_error(here, faults)
    # Metrics with the same function share its result, so they share what calls it, too.
    door = functools.cache(
        lambda function, hook: guarded(function, f"{kind} plugin '{name}', {hook}", hook, source.file)
    )
    return [Extension(kind, _behind(item, door), source) for item in items]


def _behind(item: Metric | AdapterKind, door: Callable[[Any, str], Any]) -> Metric | AdapterKind:
    """The same, with its functions called as hooks are."""
    if isinstance(item, AdapterKind):
        return replace(item, create=door(item.create, "create"))
    figure = None if item.figure is None else door(_of_counts(item.figure), "figure")
    return replace(item, compute=door(item.compute, "compute"), figure=figure)


@functools.cache
def _of_counts(figure: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function of a pooled metric: counts [..., C] -> [...]. Raises ValueError where it returns something else."""

    @functools.wraps(figure)
    def checked(counts: Any) -> Any:
        import numpy as np

        values = np.asarray(figure(counts), dtype=float)
        if values.shape != counts.shape[:-1]:
            raise ValueError(f"figure returned values of shape {values.shape} for counts of shape {counts.shape}")
        return values

    return checked


def keep_loose(file: str, found: Sequence[Extension]) -> None:
    """Make what a loose file brings known to this process, in place of what it brought before.

    Where a file that was loaded earlier brings the same name, the later one counts. Raises PluginError for a name
    that an installed plugin has.
    """
    taken = _names(found)
    for kind in {item.kind for item in found}:
        for other in _installed(kind, tuple(sys.path))[0]:
            if same := other.names & taken:
                raise PluginError(f"{file}: the name '{min(same)[1]}' is taken by {other.source}; choose another")
    for earlier, items in _loose.items():
        _loose[earlier] = [item for item in items if not item.names & taken]
    _loose[file] = list(found)


def _names(items: Iterable[Extension]) -> set[tuple[str, str]]:
    return {name for item in items for name in item.names}


@functools.lru_cache(maxsize=8)
def _installed(kind: ExtensionKind, path: tuple[str, ...]) -> tuple[list[Extension], list[Listing]]:
    """What installed plugins bring, and a line for each that cannot be used; `path` is sys.path, read anew if changed.

    Plugins that bring the same name cannot be used, none of them.
    """
    read, unusable = [], []
    for point in points_of(kind):
        try:
            read.append((point, read_extensions(kind, point.name, *load_point(kind, point))))
        except HarnessError as error:
            unusable.append(broken(kind, point, error))
    usable: list[Extension] = []
    for point, items in read:
        names = _names(items)
        rivals = [(other, names & _names(theirs)) for other, theirs in read if other is not point]
        if clash := [(other, min(same)[1]) for other, same in rivals if same]:
            other, name = clash[0]
            fault = PluginError(f"the {kind} '{name}' is also brought by {origin(other)}; uninstall one")
            unusable.append(broken(kind, point, fault))
        else:
            usable += items
    return usable, unusable
