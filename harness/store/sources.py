"""Hashes of sources: a cached result is only good for the code that made it.

Which files count follows from the imports of what is run, read from the sources. There is no list of files to keep.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.contract import Source, extensions_of
from harness.errors import HarnessError


@functools.cache
def source_hash(*modules: str) -> str:
    """SHA-256 (hex) over the names and bytes of the modules and of all that they import from their own package.

    modules  dotted names, e.g. "harness.study"
    """
    digest = hashlib.sha256()
    for name, path in sorted(imported_sources(modules).items()):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def plugin_hash(source: Source) -> str:
    """SHA-256 (hex) of a plugin's code: its file, and all that an installed plugin imports from its own package."""
    return source_hash(source.module) if source.module else source.sha256


def own_files(source: Source) -> list[Path]:
    """The files of a plugin's code: its own, and those that an installed plugin imports from its own package.

    Of the harness's own plugins, files of the core do not count.
    """
    if not source.module:
        return [Path(source.file)]
    parts = source.module.split(".")
    own = ".".join(parts[:2]) if parts[0] == "harness" else parts[0]
    return [path for name, path in imported_sources([source.module]).items() if f"{name}.".startswith(f"{own}.")]


def kind_sources(methods: Iterable[Source]) -> list[str]:
    """Hashes of the code of the plugins whose specs are named in the code of these methods."""
    brought = extensions_of("adapter")
    texts = [path.read_text("utf-8") for source in methods for path in own_files(source)] if brought else []
    used = (one for one in brought if any(re.search(rf"\b{one.item.spec.__name__}\b", text) for text in texts))
    return sorted({plugin_hash(one.source) for one in used})


def imported_sources(modules: Iterable[str]) -> dict[str, Path]:
    """Dotted name -> file of the modules and of all that they import, directly or not, from their own top package.

    Imports inside functions count; imports for type checkers only do not. Raises HarnessError for an unknown module.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _file(name)
        if path is None:
            raise HarnessError(f"there is no module {name}, so its sources cannot be hashed")
        found[name] = path
        top = name.partition(".")[0]
        waiting += [module for module in _imports(name, path) if module.partition(".")[0] == top]
    return found


@functools.cache
def _imports(name: str, path: Path) -> tuple[str, ...]:
    """Modules that a file imports. A name from a package with a stub leads to the file that the stub says."""
    return tuple(_imported(name, path))


def _imported(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _import_nodes(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        source = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
        source = ".".join(filter(None, (source, node.module or "")))
        if source.partition(".")[0] != name.partition(".")[0]:
            continue
        yield source
        if not _is_package(source):
            continue
        face = _face(source)
        for alias in node.names:
            if alias.name in face:
                yield face[alias.name]
            elif _file(f"{source}.{alias.name}"):
                yield f"{source}.{alias.name}"


def _import_nodes(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Those among the statements of the tree, at any depth. No expression holds an import, so none is looked into."""
    typing_only = isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.dump(tree.test)
    for block in ("orelse",) if typing_only else ("body", "orelse", "handlers", "finalbody", "cases"):
        for node in getattr(tree, block, ()):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield node
            else:
                yield from _import_nodes(node)


@functools.cache
def _face(package: str) -> dict[str, str]:
    """Name -> module, as the stub beside a package's `__init__.py` says; empty without a stub."""
    path = _file(package)
    stub = path.with_suffix(".pyi") if path else None
    if stub is None or not stub.is_file():
        return {}
    return {
        alias.name: f"{package}.{node.module or alias.name}"
        for node in ast.parse(stub.read_bytes()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _is_package(module: str) -> bool:
    """Whether names can be modules in it. Looking for one in a plain module would execute that module."""
    path = _file(module)
    return path is not None and path.name == "__init__.py"


@functools.cache
def _file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None
