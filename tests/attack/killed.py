"""Runs `harness ...` and kills it at a chosen file-system event: `killed.py EVENT FOLDER ARGUMENTS`; 0: never.

What counts is what Python tells its audit hooks of paths in FOLDER: opened for writing, renamed, made, removed. The
number of all events is the last line on stderr.
"""

from __future__ import annotations

import os
import signal
import sys

EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.copyfile", "os.utime")


def main() -> None:
    last, folder, *arguments = sys.argv[1:]
    count = 0

    def watch(event: str, given: tuple) -> None:
        nonlocal count
        if event not in EVENTS or not isinstance(given[0], str | os.PathLike):
            return
        if not os.path.abspath(given[0]).startswith(folder):  # noqa: PTH100 (a Path would be audited in turn)
            return
        if event == "open" and not given[2] & (os.O_WRONLY | os.O_RDWR):
            return
        count += 1
        if count == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    from harness.cli import main as harness

    try:
        harness(arguments)
    finally:
        print(count, file=sys.stderr)


if __name__ == "__main__":
    main()
