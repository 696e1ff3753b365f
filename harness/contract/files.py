"""Files that a user names: opened in one way, which waits for nothing and takes only what is a file.

What stands in them is read elsewhere. Texts that are no texts are recognised here, too.
"""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path
from typing import Any

MOST_NESTED = 64  # levels of brackets in a file; nobody writes more, and readers that go down level by level end there
_KINDS = {
    stat.S_IFDIR: "is a folder", stat.S_IFIFO: "is a pipe", stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device", stat.S_IFBLK: "is a device",
}  # fmt: skip


def user_path(text: str | Path) -> Path:
    """A path as a user gives it, `~` and all."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # nobody of that name has a home
        return Path(text)


def check_file(path: Path) -> Path:
    """The path. Raises OSError where no file is there: a folder, a device, and a pipe, which would be waited for."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except ValueError as error:  # a character that no path can have
        raise OSError(errno.EINVAL, "is no possible path", str(path)) from error
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"{_KINDS.get(kind, 'is something else')}, not a file", str(path))
    return path


def read_file(path: Path) -> bytes:
    """What stands in a file. Raises OSError as `check_file` does, and where it cannot be read."""
    return check_file(path).read_bytes()


def read_json_text(text: str) -> Any:
    """A JSON value. Raises ValueError for anything else, and for one that is nested without end."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_text(text: str) -> bool:
    """Whether a text can be written down: half of a surrogate pair is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def levels(value: Any) -> int:
    """How many levels of lists and objects a JSON value has."""
    deepest, waiting = 0, [(value, 0)]
    while waiting:
        thing, level = waiting.pop()
        deepest = max(deepest, level)
        if isinstance(thing, dict | list):
            waiting += [(one, level + 1) for one in (thing.values() if isinstance(thing, dict) else thing)]
    return deepest
