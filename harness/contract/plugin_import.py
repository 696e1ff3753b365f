"""Importing a plugin's code: a loose file under a private name; exceptions get the plugin's file and line.

Which plugin is meant and whether it keeps the contract is decided in `harness.contract.plugins`. No torch here.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from harness.errors import HarnessError, PluginError


@contextlib.contextmanager
def plugin_faults(here: str, file: str | None) -> Iterator[None]:
    """Any exception of a plugin's import or card becomes a PluginError with file and line.

    Its stdout goes to stderr meanwhile: stdout belongs to the command's own report.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        if isinstance(error, HarnessError):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == file]
        if isinstance(error, SyntaxError):
            where = f"{error.filename}:{error.lineno}: "
        else:
            where = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
        raise PluginError(f"{here} cannot be loaded: {where}{type(error).__name__}: {error}") from error


def import_file(path: Path) -> tuple[ModuleType, str]:
    """Execute a loose file as a module under a private name (it cannot shadow, or be taken for, another
    module).

    The name comes from path and content: unchanged, the file is the same module for the whole process. The
    hash is of the very bytes that were executed, and nothing is written beside the file.
    """
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"_harness_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{sha256[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up while it is being executed
        try:
            with plugin_faults(f"plugin {path.name}", str(path)):
                exec(compile(content, str(path), "exec", dont_inherit=True), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name], sha256


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
