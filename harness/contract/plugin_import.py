"""Finding and importing a plugin's code: entry points, and loose files under a private name.

What goes wrong on the way gets the plugin's file and line (`calling`). Whether a plugin keeps the contract is decided
in `plugins` and `extensions`. No torch here.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from harness.contract.calling import calling
from harness.contract.files import read_file
from harness.contract.hooks import HOOKS, PROJECT, Kind, hook_arguments
from harness.contract.plugin_checks import hook_faults
from harness.errors import HarnessError, PluginError


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plugin comes from: goes into every record, so that a row can be traced to its code.

    file     absolute path of the module that holds the hooks
    sha256   of that file; of all Python files below it if it is a package
    distribution, version   None for a loose file
    module   the module's name; empty for a loose file
    """

    file: str
    sha256: str
    distribution: str | None = None
    version: str | None = None
    module: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.file})" if self.distribution else self.file


@dataclass(frozen=True, slots=True)
class Listing:
    """One line of `harness list`: a plugin, a metric or a kind of adapter, or the reason why it cannot be used
    (`error`)."""

    name: str
    kind: Kind
    summary: str
    distribution: str | None
    version: str | None
    file: str | None
    error: str | None = None


def points_of(kind: Kind) -> list[EntryPoint]:
    """The entry points of a kind of plugin."""
    return list(entry_points(group=f"harness.{kind}s"))


def origin(point: EntryPoint) -> str:
    """The distribution of an entry point, in words."""
    name, version = _distribution_of(point.dist)
    return f"{name} {version}" if name else f"an unnamed distribution ({point.value})"


@functools.lru_cache(64)
def _distribution_of(found: Distribution | None) -> tuple[str | None, str | None]:
    """(name, version) of a distribution. Each of the two reads its metadata anew, so they are kept."""
    return (found.name, found.version) if found else (None, None)


def load_point(kind: Kind, point: EntryPoint) -> tuple[Any, Source]:
    """What an entry point names, and where it comes from. Raises PluginError."""
    with calling(
        f"{kind} '{point.name}' of {origin(point)} cannot be loaded", "import", _file_of(point), importing=True
    ):
        plugin = point.load()
    module = sys.modules[point.module]
    return plugin, Source(str(module.__file__), sha256_of(module), *_distribution_of(point.dist), module=point.module)


def broken(kind: Kind, point: EntryPoint, error: HarnessError) -> Listing:
    """The line of a plugin that cannot be used."""
    return Listing(point.name, kind, "", *_distribution_of(point.dist), _file_of(point), str(error))


def _file_of(point: EntryPoint) -> str | None:
    try:
        spec = importlib.util.find_spec(point.module)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin if spec else None


def contract_error(here: str, faults: list[str]) -> PluginError:
    """One error with every fault of a plugin."""
    return PluginError("\n  ".join([f"{here} does not keep the contract:", *faults]))


def registered(kind: Kind, here: str, name: str, plugin: Any, source: Source) -> Any:
    """The plugin's hooks, in a manager of its own. Raises PluginError with every fault of them."""
    own = {"method", "benchmark"} if kind in ("method", "benchmark") else {kind}
    beside = {hook for other in HOOKS.keys() - own for hook in hook_arguments(HOOKS[other])}
    if faults := hook_faults(plugin, HOOKS[kind], beside):
        raise contract_error(here, faults)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HOOKS[kind])
    with calling(f"{here} cannot be loaded", "import", source.file, importing=True):
        manager.register(plugin, name)
    return manager.hook


def import_file(path: Path) -> tuple[ModuleType, Source]:
    """Execute a loose file as a module under a private name (it cannot shadow, or be taken for, another
    module).

    The name comes from path and content: unchanged, the file is the same module for the whole process. The
    hash is of the very bytes that were executed, and nothing is written beside the file.
    """
    try:
        content = read_file(path)
    except OSError as error:
        raise PluginError(f"plugin {path} cannot be read: it {error.strerror}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"_harness_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{sha256[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up while it is being executed
        try:
            with calling(f"plugin {path.name} cannot be loaded", "import", str(path), importing=True):
                exec(compile(content, str(path), "exec", dont_inherit=True), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name], Source(str(path), sha256)


def sha256_of(module: ModuleType) -> str:
    """Hash of a module's file; of all Python files of a package, so that changed helpers are seen."""
    if module.__file__ is None:
        raise PluginError(f"{module.__name__} is a folder without an __init__.py: point at a module in it")
    file = Path(module.__file__)
    if file.name != "__init__.py":
        return hashlib.sha256(file.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for part in sorted(file.parent.rglob("*.py")):
        digest.update(part.relative_to(file.parent).as_posix().encode() + b"\0" + part.read_bytes() + b"\0")
    return digest.hexdigest()
