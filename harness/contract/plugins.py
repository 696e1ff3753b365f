"""An entry point or a loose file -> one checked `Method` or `Benchmark`.

pluggy returns Any; the two classes here give it types. What is checked is in `harness.contract.plugin_checks`.
No plugin has privileges: ours are found by their entry points as a stranger's are. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.contract.calling import calling, guarded
from harness.contract.data import BenchmarkCard, Dataset, MethodCard, Prompt
from harness.contract.extensions import EXTENSIONS, Extension, ExtensionKind, keep_loose, read_extensions
from harness.contract.files import is_text, user_path
from harness.contract.hooks import HOOKS
from harness.contract.plugin_checks import NAME, card_faults, hook_names_near
from harness.contract.plugin_import import (
    Listing,
    Source,
    broken,
    contract_error,
    import_file,
    load_point,
    origin,
    points_of,
    registered,
)
from harness.errors import HarnessError, PluginError, did_you_mean

if TYPE_CHECKING:
    from harness.study import Fitted, Study

PluginKind = Literal["method", "benchmark"]
_CARD: dict[PluginKind, type] = {"method": MethodCard, "benchmark": BenchmarkCard}


@dataclass(frozen=True, slots=True)
class Method:
    """A method plugin behind types. Whatever `fit` and `predict` raise becomes a PluginError with file and line."""

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
        """What the method learns."""
        with calling(f"method '{self.name}', fit", "fit", self.source.file):
            fitted = self.hooks.fit(study=study)
        if fitted is None:
            here = f"method '{self.name}' ({self.source.file})"
            raise PluginError(f"{here}: fit returned nothing; is a `return` missing?")
        return fitted

    def predict(self, study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
        """One reply per prompt, in order. PluginError for another number, or a reply that is no text."""
        if not self.hooks.predict.get_hookimpls():
            return study.generate(fitted, prompts)
        with calling(f"method '{self.name}', predict", "predict", self.source.file):
            replies = self.hooks.predict(study=study, fitted=fitted, prompts=prompts)
            _check_replies(replies, prompts, f"method '{self.name}' ({self.source.file}): predict")
            return list(replies)


def _check_replies(replies: Any, prompts: Sequence[Prompt], here: str) -> None:
    """Raises PluginError where `replies` are not one text per prompt."""
    if not isinstance(replies, Sequence) or isinstance(replies, str):
        raise PluginError(f"{here} returned {type(replies).__name__}; it must return a list of {len(prompts)} texts")
    if len(replies) != len(prompts):
        raise PluginError(f"{here} returned {len(replies)} replies to {len(prompts)} prompts; one each, in order")
    for prompt, reply in zip(prompts, replies, strict=True):
        if not isinstance(reply, str):
            raise PluginError(f"{here} replied {type(reply).__name__} to prompt '{prompt.id}'; it must be text")
        if not is_text(reply):
            raise PluginError(f"{here} replied half of a surrogate pair to prompt '{prompt.id}'; it is no character")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark plugin behind types."""

    name: str
    card: BenchmarkCard
    source: Source
    hooks: Any = field(repr=False, compare=False)

    def load(self, options: Any) -> Dataset:
        """The data set, whose own functions are called through the plugin's door too."""
        with calling(f"benchmark '{self.name}', load", "load", self.source.file):
            dataset = self.hooks.load(options=options)
        if not isinstance(dataset, Dataset):
            here = f"benchmark '{self.name}' ({self.source.file})"
            raise PluginError(f"{here}: load returned {type(dataset).__name__}, not a Dataset")
        given = {name: getattr(dataset, name) for name in ("ceilings", "yardsticks", "write")}
        own = {
            name: guarded(function, f"benchmark '{self.name}', {name}", name, self.source.file)
            for name, function in given.items()
            if function is not None
        }
        return replace(dataset, **own)


def load_plugin(kind: PluginKind, name: str, files: Sequence[str | Path] = ()) -> Method | Benchmark:
    """The plugin of that kind and name; `.card.options` is what a configuration needs. Raises PluginError.

    Metrics and kinds of adapters in the loose `files` are known to this process from here on.
    """
    wanted = Method if kind == "method" else Benchmark
    loose = [plugin for plugin in _load_loose(files) if isinstance(plugin, wanted)]
    found = [plugin for plugin in loose if plugin.name == name]
    if len(found) > 1:
        raise PluginError(f"two files are named '{name}': {' and '.join(p.source.file for p in found)}; rename one")
    if found:
        return found[0]
    points = [point for point in points_of(kind) if point.name == name]
    if not points:
        known = [point.name for point in points_of(kind)] + [plugin.name for plugin in loose]
        raise PluginError(f"there is no {kind} '{name}'; {did_you_mean(name, known)} (`harness list {kind}s`)")
    return _from_entry_points(kind, name, points)


def load_method(name: str, files: Sequence[str | Path] = ()) -> Method:
    """The method of that name, from an entry point or one of the loose `files`. Raises PluginError."""
    plugin = load_plugin("method", name, files)
    assert isinstance(plugin, Method)
    return plugin


def load_with_required(
    name: str,
    files: Sequence[str | Path] = (),
    options: Any = None,
    others: Mapping[str, Any] | None = None,
    above: tuple[str, ...] = (),
    load: Callable[[str, Sequence[str | Path]], Method] = load_method,
) -> dict[str, Method]:
    """A method and all that it requires under its options (None: the defaults), by name.

    others   method -> options of methods that are required; one that is not named has its defaults
    load     (name, files) -> a method
    Raises PluginError for a circle (`above`: who asks) or a typo.
    """
    if name in above:
        raise PluginError(f"methods require each other in a circle: {' -> '.join((*above, name))}")
    found = {name: load(name, files)}
    method = found[name]
    for required in method.requires(method.card.options() if options is None else options):
        found |= load_with_required(required, files, (others or {}).get(required), others, (*above, name), load)
    return found


def load_benchmark(name: str, files: Sequence[str | Path] = ()) -> Benchmark:
    """The benchmark of that name, from an entry point or one of the loose `files`. Raises PluginError."""
    plugin = load_plugin("benchmark", name, files)
    assert isinstance(plugin, Benchmark)
    return plugin


def read_loose(file: str | Path) -> tuple[Method | Benchmark | None, list[Extension]]:
    """What a loose file holds: at most one method or benchmark, and any metrics and kinds of adapters.

    Hooks tell which; the file's stem is the name. Raises PluginError.
    """
    path = user_path(file)
    if not path.is_file() or path.suffix != ".py":
        near = [item.name for item in path.parent.glob("*.py")] if path.parent.is_dir() else []
        problem = "is not a Python file" if path.exists() else "does not exist"
        raise PluginError(f"--plugin {file} {problem}; {did_you_mean(path.name, near)}")
    module, source = import_file(path.resolve())
    brought: list[ExtensionKind] = [kind for kind in EXTENSIONS if hook_names_near(module, HOOKS[kind], marked=True)]
    means = {kind: hook_names_near(module, HOOKS[kind]) - {"card"} for kind in _CARD}
    if not brought and not any(means.values()):
        wanted = "a method has card and fit, a benchmark card and load; metrics and adapters have a hook of that name"
        raise PluginError(f"{file}: no hooks found; {wanted}")
    plugin = None
    if any(means.values()):
        kind: PluginKind = "benchmark" if len(means["benchmark"]) > len(means["method"]) else "method"
        for point in points_of(kind):
            if point.name == path.stem:
                raise PluginError(f"{file}: the name '{path.stem}' is taken by {origin(point)}; rename the file")
        plugin = _checked(kind, path.stem, module, source)
    return plugin, [item for kind in brought for item in read_extensions(kind, path.stem, module, source)]


def load_file(file: str | Path) -> Method | Benchmark:
    """The method or benchmark in a loose file. Raises PluginError."""
    plugin, _ = read_loose(file)
    if plugin is None:
        raise PluginError(f"{file}: no hooks of a method or benchmark found")
    return plugin


def list_plugins(kind: PluginKind, files: Sequence[str | Path] = ()) -> list[Listing]:
    """All plugins of a kind by name. A broken one is listed with its error instead of ending the list."""
    listings = []
    for name, group in groupby(sorted(points_of(kind), key=attrgetter("name")), key=attrgetter("name")):
        points = list(group)
        for point in points:
            try:
                plugin = _from_entry_points(kind, name, points)
                source = plugin.source
                where = source.distribution, source.version, source.file
                listings.append(Listing(name, kind, plugin.card.summary, *where))
            except HarnessError as error:
                listings.append(broken(kind, point, error))
    for path in _resolved(files):
        try:
            plugin, _ = read_loose(path)
            if plugin is not None and isinstance(plugin, Method) == (kind == "method"):
                listings.append(Listing(path.stem, kind, plugin.card.summary, None, None, str(path)))
        except HarnessError as error:
            listings.append(Listing(path.stem, kind, "", None, None, str(path), str(error)))
    return listings


def load_extensions(files: Sequence[str | Path]) -> None:
    """Make the metrics and kinds of adapters in loose files known to this process. Raises PluginError."""
    _load_loose(files)


def _load_loose(files: Sequence[str | Path]) -> list[Method | Benchmark]:
    """The methods and benchmarks in loose files; what else they bring becomes known to this process."""
    read = [read_loose(path) for path in _resolved(files)]
    first: dict[tuple[str, str], Extension] = {}
    for _, found in read:
        for item in found:
            for name in item.names:
                other = first.setdefault(name, item).source
                if other.file != item.source.file:
                    raise PluginError(f"two files bring the {item.kind} '{name[1]}': {other} and {item.source}")
    for path, (_, found) in zip(_resolved(files), read, strict=True):
        keep_loose(str(path), found)
    return [plugin for plugin, _ in read if plugin is not None]


def _from_entry_points(kind: PluginKind, name: str, points: Sequence[Any]) -> Method | Benchmark:
    if len(points) > 1:
        raise PluginError(f"{kind} '{name}' is registered twice, by {' and '.join(map(origin, points))}; uninstall one")
    (point,) = points
    if not NAME.fullmatch(name):
        raise PluginError(f"{kind} '{name}' of {origin(point)}: use letters, digits, '_', '-' and '.' in a name")
    return _checked(kind, name, *load_point(kind, point))


def _checked(kind: PluginKind, name: str, plugin: Any, source: Source) -> Method | Benchmark:
    """Register with a manager of its own, ask for the card, and raise one error with every fault."""
    here = f"{kind} '{name}' ({source.file})"
    hooks = registered(kind, here, name, plugin, source)
    with calling(f"{here} cannot be loaded", "card", source.file):
        card = hooks.card()
        faults = card_faults(name, card, _CARD[kind])
    if faults:
        raise contract_error(here, faults)
    return (Method if kind == "method" else Benchmark)(name, card, source, hooks)


def _resolved(files: Sequence[str | Path]) -> list[Path]:
    return list(dict.fromkeys(user_path(file).resolve() for file in files))
