"""An entry point or a loose file -> one checked `Method` or `Benchmark`.

pluggy returns Any; the two classes here give it types. What is checked is in `harness.contract.plugin_checks`.
No plugin has privileges: ours are found by their entry points as a stranger's are. No torch here.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from harness.contract.data import BenchmarkCard, Dataset, MethodCard, Prompt
from harness.contract.hooks import BENCHMARK_GROUP, METHOD_GROUP, PROJECT, BenchmarkHooks, MethodHooks
from harness.contract.plugin_checks import card_faults, hook_faults, hook_names_near
from harness.contract.plugin_import import import_file, plugin_faults, sha256_of
from harness.errors import HarnessError, PluginError, did_you_mean

if TYPE_CHECKING:
    from harness.study import Fitted, Study

Kind = Literal["method", "benchmark"]
_GROUP: dict[Kind, str] = {"method": METHOD_GROUP, "benchmark": BENCHMARK_GROUP}
_HOOKS: dict[Kind, type] = {"method": MethodHooks, "benchmark": BenchmarkHooks}
_CARD: dict[Kind, type] = {"method": MethodCard, "benchmark": BenchmarkCard}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # a name is also a folder and a row


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plugin comes from: goes into every record, so that a row can be traced to its code.

    file     absolute path of the module that holds the hooks
    sha256   of that file; of all Python files below it if it is a package
    distribution, version   None for a loose file
    """

    file: str
    sha256: str
    distribution: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.file})" if self.distribution else self.file


@dataclass(frozen=True, slots=True)
class Method:
    """A method plugin behind types. `fit` and `predict` let the plugin's own exceptions pass."""

    name: str
    card: MethodCard
    source: Source
    hooks: Any = field(repr=False, compare=False)

    def requires(self, options: Any) -> tuple[str, ...]:
        """Names of the methods that must be fitted first, under these options."""
        names: list[str] = []
        for entry in self.card.requires:
            value = getattr(options, entry[1:-1]) if entry.startswith("{") else entry
            names += [value] if isinstance(value, str) else list(value)
        return tuple(dict.fromkeys(names))

    def fit(self, study: Study) -> Fitted:
        fitted = self.hooks.fit(study=study)
        if fitted is None:
            here = f"method '{self.name}' ({self.source.file})"
            raise PluginError(f"{here}: fit returned nothing; is a `return` missing?")
        return fitted

    def predict(self, study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
        """One reply per prompt, in order. PluginError for another number, or a reply that is no text."""
        if not self.hooks.predict.get_hookimpls():
            return study.generate(fitted, prompts)
        replies = self.hooks.predict(study=study, fitted=fitted, prompts=prompts)
        here = f"method '{self.name}' ({self.source.file}): predict"
        if not isinstance(replies, Sequence) or isinstance(replies, str):
            raise PluginError(
                f"{here} returned {type(replies).__name__}; it must return a list of {len(prompts)} texts"
            )
        if len(replies) != len(prompts):
            raise PluginError(f"{here} returned {len(replies)} replies to {len(prompts)} prompts; one each, in order")
        for prompt, reply in zip(prompts, replies, strict=True):
            if not isinstance(reply, str):
                raise PluginError(f"{here} replied {type(reply).__name__} to prompt '{prompt.id}'; it must be text")
        return list(replies)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark plugin behind types."""

    name: str
    card: BenchmarkCard
    source: Source
    hooks: Any = field(repr=False, compare=False)

    def load(self, options: Any) -> Dataset:
        dataset = self.hooks.load(options=options)
        if not isinstance(dataset, Dataset):
            here = f"benchmark '{self.name}' ({self.source.file})"
            raise PluginError(f"{here}: load returned {type(dataset).__name__}, not a Dataset")
        return dataset


@dataclass(frozen=True, slots=True)
class Listing:
    """One line of `harness list`: a plugin, or the reason why it cannot be used (`error`)."""

    name: str
    kind: Kind
    summary: str
    distribution: str | None
    version: str | None
    file: str | None
    error: str | None = None


def load_plugin(kind: Kind, name: str, files: Sequence[str | Path] = ()) -> Method | Benchmark:
    """The plugin of that kind and name; `.card.options` is what a configuration needs. Raises PluginError."""
    wanted = Method if kind == "method" else Benchmark
    loose = [plugin for plugin in map(load_file, _resolved(files)) if isinstance(plugin, wanted)]
    found = [plugin for plugin in loose if plugin.name == name]
    if len(found) > 1:
        raise PluginError(f"two files are named '{name}': {' and '.join(p.source.file for p in found)}; rename one")
    if found:
        return found[0]
    points = [point for point in _entry_points(kind) if point.name == name]
    if not points:
        known = [point.name for point in _entry_points(kind)] + [plugin.name for plugin in loose]
        raise PluginError(f"there is no {kind} '{name}'; {did_you_mean(name, known)} (`harness list {kind}s`)")
    return _from_entry_points(kind, name, points)


def load_method(name: str, files: Sequence[str | Path] = ()) -> Method:
    """The method of that name, from an entry point or one of the loose `files`. Raises PluginError."""
    plugin = load_plugin("method", name, files)
    assert isinstance(plugin, Method)
    return plugin


def load_with_required(
    name: str, files: Sequence[str | Path] = (), options: Any = None, above: tuple[str, ...] = ()
) -> dict[str, Method]:
    """A method and all that it requires under its options (None: the defaults), by name.

    Raises PluginError for a circle (`above`: who asks) or a typo.
    """
    if name in above:
        raise PluginError(f"methods require each other in a circle: {' -> '.join((*above, name))}")
    found = {name: load_method(name, files)}
    method = found[name]
    for required in method.requires(method.card.options() if options is None else options):
        found |= load_with_required(required, files, None, (*above, name))
    return found


def load_benchmark(name: str, files: Sequence[str | Path] = ()) -> Benchmark:
    """The benchmark of that name, from an entry point or one of the loose `files`. Raises PluginError."""
    plugin = load_plugin("benchmark", name, files)
    assert isinstance(plugin, Benchmark)
    return plugin


def load_file(file: str | Path) -> Method | Benchmark:
    """The plugin in a loose file: hooks tell the kind, its stem is the name. Raises PluginError."""
    path = Path(file).expanduser()
    if not path.is_file() or path.suffix != ".py":
        near = [item.name for item in path.parent.glob("*.py")] if path.parent.is_dir() else []
        problem = "is not a Python file" if path.exists() else "does not exist"
        raise PluginError(f"--plugin {file} {problem}; {did_you_mean(path.name, near)}")
    module, sha256 = import_file(path.resolve())
    means = {kind: hook_names_near(module, hooks) - {"card"} for kind, hooks in _HOOKS.items()}
    kind: Kind = "benchmark" if len(means["benchmark"]) > len(means["method"]) else "method"
    if not any(means.values()):
        raise PluginError(f"{file}: no hooks found; a method has card and fit, a benchmark card and load")
    for point in _entry_points(kind):
        if point.name == path.stem:
            raise PluginError(f"{file}: the name '{path.stem}' is taken by {_origin(point)}; rename the file")
    return _checked(kind, path.stem, module, Source(str(path.resolve()), sha256))


def list_plugins(kind: Kind, files: Sequence[str | Path] = ()) -> list[Listing]:
    """All plugins of a kind by name. A broken one is listed with its error instead of ending the list."""
    listings = []
    loose = {path: path.stem for path in _resolved(files)}
    names = {point.name for point in _entry_points(kind)}
    for name in sorted(names):
        points = [point for point in _entry_points(kind) if point.name == name]
        for point in points:
            distribution = (point.dist.name, point.dist.version) if point.dist else (None, None)
            try:
                plugin = _from_entry_points(kind, name, points)
                listings.append(Listing(name, kind, plugin.card.summary, *distribution, plugin.source.file))
            except HarnessError as error:
                listings.append(Listing(name, kind, "", *distribution, _file_of(point), str(error)))
    for path, name in loose.items():
        try:
            plugin = load_file(path)
            if isinstance(plugin, Method) == (kind == "method"):
                listings.append(Listing(name, kind, plugin.card.summary, None, None, str(path)))
        except HarnessError as error:
            listings.append(Listing(name, kind, "", None, None, str(path), str(error)))
    return listings


def _from_entry_points(kind: Kind, name: str, points: Sequence[EntryPoint]) -> Method | Benchmark:
    if len(points) > 1:
        raise PluginError(
            f"{kind} '{name}' is registered twice, by {' and '.join(map(_origin, points))}; uninstall one"
        )
    (point,) = points
    if not _NAME.fullmatch(name):
        raise PluginError(f"{kind} '{name}' of {_origin(point)}: use letters, digits, '_', '-' and '.' in a name")
    with plugin_faults(f"{kind} '{name}' of {_origin(point)}", _file_of(point)):
        plugin = point.load()
    module = sys.modules[point.module]
    distribution = (point.dist.name, point.dist.version) if point.dist else (None, None)
    source = Source(str(module.__file__), sha256_of(module), *distribution)
    return _checked(kind, name, plugin, source)


def _checked(kind: Kind, name: str, plugin: Any, source: Source) -> Method | Benchmark:
    """Register with a manager of its own, ask for the card, and raise one error with every fault."""
    here = f"{kind} '{name}' ({source.file})"
    faults = hook_faults(plugin, _HOOKS[kind])
    if faults:
        raise _contract_error(here, faults)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(_HOOKS[kind])
    with plugin_faults(here, source.file):
        manager.register(plugin, name)
        manager.check_pending()
        card = manager.hook.card()
    faults = card_faults(name, card, _CARD[kind])
    if faults:
        raise _contract_error(here, faults)
    return (Method if kind == "method" else Benchmark)(name, card, source, manager.hook)


def _contract_error(here: str, faults: Sequence[str]) -> PluginError:
    return PluginError("\n  ".join([f"{here} does not keep the contract:", *faults]))


def _resolved(files: Sequence[str | Path]) -> list[Path]:
    return list(dict.fromkeys(Path(file).expanduser().resolve() for file in files))


def _entry_points(kind: Kind) -> list[EntryPoint]:
    return list(entry_points(group=_GROUP[kind]))


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else f"an unnamed distribution ({point.value})"


def _file_of(point: EntryPoint) -> str | None:
    try:
        spec = importlib.util.find_spec(point.module)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin if spec else None
