"""Places on somebody's disk, taken out of text that others will read: their folders name people, hosts and projects.

A path keeps what lies below the current folder, and of any other place its name alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

_ROOT = r"(?:/|(?<!:)//(?=\w)|~[\w.-]*/|\.\./|[A-Za-z]:[\\/]|\\\\(?=\w))"
_SEGMENT = r"[^\s/\\'\"`<>|:;,()\[\]{}*?\x00-\x1f]+"
# Below the root two parts at least: "/help" is a word of a chat. No address of the web fits: '//' follows a colon.
_PLACE = re.compile(
    rf"(?<![\w/\\~.])(?:file://[\w.-]*|[\w.+-]+@[\w.-]+:)?{_ROOT}{_SEGMENT}(?:[\\/]+{_SEGMENT})+[\\/]?"
    rf"|(?<![\w/\\~.])(?:~[\w.-]*/|\.\./|[A-Za-z]:[\\/]){_SEGMENT}[\\/]?"
)
_QUOTED = re.compile(rf"(['\"`])({_ROOT}[^'\"`\n]*[/\\][^'\"`\n]*)\1")
_MOST_CHARACTERS = 1_000  # of a text that is a path from end to end


def without_places(value: Any, keep: Collection[str] = ()) -> Any:
    """Plain data with every absolute path in its texts, keys included, below the current folder or only by name.

    keep   keys whose values are left as they are, at any depth
    """
    if isinstance(value, str):
        return _without(value)
    if isinstance(value, Mapping):
        return {
            _without(k) if isinstance(k, str) else k: v if k in keep else without_places(v, keep)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(without_places(one, keep) for one in value)
    return value


def _without(text: str) -> str:
    if not any(mark in text for mark in "/\\"):
        return text
    if _is_path(text):
        return _shortened(text)
    text = _QUOTED.sub(lambda found: found.group(1) + _shortened(found.group(2)) + found.group(1), text)
    return _PLACE.sub(lambda found: _shortened(found.group()), text)


def _is_path(text: str) -> bool:
    """Whether all of the text is one path, spaces and all."""
    parts = re.split(r"[\\/]", text)
    if (
        len(text) > _MOST_CHARACTERS
        or "\n" in text
        or not (re.match(_ROOT, text) or (".." in parts and "://" not in text))
    ):
        return False
    if not re.search(r"\s", text) and (len(parts) > 2 or parts[0]):
        return True
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _shortened(text: str) -> str:
    """A path as the current folder has it, or its name."""
    try:
        path, here = Path(text).expanduser(), Path.cwd()
        inside = path.is_absolute() and ".." not in path.parts and path.is_relative_to(here)
        if inside and here != Path(here.anchor) and path != here:
            return path.relative_to(here).as_posix()
    except (OSError, RuntimeError):  # the current folder is gone, or nobody of that name has a home
        pass
    return PureWindowsPath(text.rstrip("/\\")).name or "."  # reads both kinds of slashes
