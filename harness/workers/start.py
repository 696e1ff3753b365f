"""Starting a process of the harness's own that imports plugins, and how it ended in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def start(module: str, *words: str, folder: Path | None = None, hashes: int | None = None, **streams: Any) -> Any:
    """`main` of a module in a process of its own; returns a `subprocess.Popen`.

    words    its sys.argv from 1 on
    folder   in which it works; None: this process's
    hashes   where the hashes of texts begin, and with them the order of sets; None: by chance
    streams  stdin, stdout and stderr as `subprocess.Popen` takes them
    Ctrl-C, which reaches all processes of a terminal, ends it through this process alone until `main` says otherwise.
    """
    code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from {module} import main; main()"
    environment = dict(os.environ)
    if path := environment.get("PYTHONPATH"):
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))
    if hashes is not None:
        environment["PYTHONHASHSEED"] = str(hashes)
    return subprocess.Popen([sys.executable, "-P", "-c", code, *words], cwd=folder, env=environment, **streams)


def ended(code: int) -> str:
    """An exit code in words."""
    return f"its process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
