"""The process that imports a plugin and tells what its card says."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from harness.contract import Method, load_method, read_loose
from harness.errors import HarnessError
from harness.store import kind_sources
from harness.workers.cards import describe


def _method(name: str, *files: str) -> dict[str, Any]:
    method = load_method(name, files)
    return describe(method, kind_sources([method.source]))


def _file(file: str) -> dict[str, Any]:
    plugin, brought = read_loose(file)
    method = describe(plugin, kind_sources([plugin.source])) if isinstance(plugin, Method) else None
    kind = None if plugin is None else "method" if method else "benchmark"
    metrics = [one.item.name for one in brought if one.kind == "metric"]
    return {"kind": kind, "method": method, "metrics": metrics}


def main() -> None:
    """One question, one answer on stdout; what plugins print goes to stderr."""
    what, *words = sys.argv[1:]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        found = {"method": _method, "file": _file}[what](*words)
    except HarnessError as error:
        found = {"error": type(error).__name__, "text": str(error)}
    answer.write(json.dumps(found))
    answer.flush()
    os._exit(0)  # threads of a plugin are not waited for
