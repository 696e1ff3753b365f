"""What the benchmarks that read files share: JSON lines with named faults, messages, splits by order.

No benchmark lives here. The caller says what to read and where to note faults.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import SPLITS, ConfigError, DataError, Message, did_you_mean
from harness.contract import Split, check_file, is_text, read_file, read_json_text

SHOWN = 10  # faults in one message; more would scroll away the first, which is often the cause


class Faults:
    """Collects what is wrong with data files, so that the user mends all of it at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, path: Path, line: int, text: str) -> None:
        """Note a fault in a line of a file (from 1)."""
        self.found.append(f"{path}, line {line}: {text}")

    def stop_if_any(self) -> None:
        """Raise one DataError that lists the first ten."""
        if not self.found:
            return
        lines = self.found[:SHOWN]
        if len(self.found) > SHOWN:
            lines.append(f"... and {len(self.found) - SHOWN} more")
        raise DataError("\n".join(lines))


def usable(path: Path) -> Path:
    """The path of a file that another library reads. Raises DataError where no file is there."""
    try:
        return check_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_utf8(path: Path, *, errors: str = "strict") -> str:
    """The text of a file, without a byte order mark. Raises DataError for a file that cannot be read or is no UTF-8."""
    try:
        return read_file(path).decode("utf-8-sig", errors)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start + 1}: {error.reason}); save it as UTF-8") from error


def read_json(path: Path) -> Any:
    """The JSON value in a file. Raises DataError."""
    try:
        return read_json_text(read_utf8(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error


def read_objects(path: Path, faults: Faults) -> list[tuple[int, dict[str, Any]]]:
    """JSON objects of a file, one a line, with their line numbers; blank lines are passed over.

    Raises DataError if the file cannot be read or holds nothing; what is wrong with a line goes to `faults`.
    """
    if not path.exists():
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = f"; {did_you_mean(path.name, near)}" if 0 < len(near) < 200 else ""
        raise DataError(f"{path}: no such file{hint}")
    try:
        lines = read_file(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    objects = []
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            value = read_json_text(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            bad = raw[error.start : error.start + 1].hex()
            faults.add(path, number, f"not UTF-8 (byte 0x{bad} at column {error.start + 1}); save it as UTF-8")
        except ValueError as error:
            faults.add(path, number, f"not JSON ({error})")
        else:
            if isinstance(value, dict):
                objects.append((number, value))
            else:
                faults.add(path, number, f"holds {_kind(value)}, should be an object in braces")
    if not objects and not faults.found:
        raise DataError(f"{path}: the file is empty; it needs one JSON object a line")
    return objects


def read_text(value: Any, name: str, *, empty: bool = False) -> str:
    """A text field; ValueError says what is wrong with it. Numbers are taken as they are written."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"'{name}' is {_kind(value)}, should be text")
    if not empty and not value.strip():
        raise ValueError(f"'{name}' is empty")
    if not is_text(value):
        raise ValueError(f"'{name}' holds half of a surrogate pair, which is no character")
    return value


def read_choice(reply: str, choices: Sequence[str]) -> str:
    """A reply of a closed set; ValueError for another one."""
    if reply.strip() not in choices:
        raise ValueError(f"the reply '{reply[:40]}' is none of the choices {', '.join(choices[:20])}")
    return reply.strip()


def read_messages(value: Any, *, empty: bool = False) -> tuple[Message, ...]:
    """Messages from [{"role", "text" or "content"}, ...]; ValueError says what is wrong with which."""
    if not isinstance(value, list) or not value:
        raise ValueError("'messages' should be a list of at least one message")
    messages = []
    for i, item in enumerate(value):
        if not isinstance(item, dict):
            raise ValueError(f"message {i} is {_kind(item)}, should be an object with 'role' and 'text'")
        missing = [name for name in ("role", "text") if name not in item]
        if "text" in missing and "content" in item:
            missing.remove("text")
        if missing:
            raise ValueError(f"message {i} has no '{missing[0]}', only {sorted(item) or 'nothing'}")
        role = item["role"]
        if role not in ("user", "assistant"):
            hint = did_you_mean(str(role), ("user", "assistant"))
            if role == "system":
                hint = "a system text belongs to the benchmark's option `system`"
            raise ValueError(f"message {i} has the role '{role}'; {hint}")
        text = read_text(item["text"] if "text" in item else item["content"], f"text of message {i}", empty=empty)
        messages.append(Message(role, text))
    return tuple(messages)


def read_context(value: Any, name: str) -> tuple[tuple[str, str], ...]:
    """Pairs for the context line from {"key": value, ...}, nulls left out; ValueError says what is wrong."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise ValueError(f"'{name}' is {_kind(value)}, should be an object")
    return tuple(
        (read_text(key, f"key of {name}"), read_text(item, f"{name}.{key}"))
        for key, item in value.items()
        if item is not None
    )


def cut(number: int, parts: Sequence[float]) -> tuple[int, int, int]:
    """Sizes of train, validation and test among `number` things, in the proportion of `parts` (positive).

    Test and validation are rounded, train takes the rest; from three things on each gets at least one, of two
    the second is test. Whole `parts` that add up to `number` are met exactly.
    """
    if number < 1:
        return 0, 0, 0
    sizes = [int(number * part / sum(parts) + 0.5) for part in parts]
    test = min(max(sizes[2], 1), number - 1)
    validation = min(max(sizes[1], 1), number - 1 - test)
    return number - validation - test, validation, test


def read_parts(text: str) -> tuple[float, float, float]:
    """Three positive numbers, as counts or shares. Raises ConfigError."""
    try:
        parts = tuple(float(part) for part in text.split("/"))
    except ValueError:
        parts = ()
    if len(parts) != 3 or not all(0 < part < float("inf") for part in parts):
        raise ConfigError(f"splits={text} should be three positive numbers, such as 30/10/10 or .6/.2/.2")
    return parts[0], parts[1], parts[2]


def split_names(number: int, parts: Sequence[float]) -> list[Split]:
    """The split of each of `number` things in their order: first train, then validation, then test."""
    return [name for name, size in zip(SPLITS, cut(number, parts), strict=True) for _ in range(size)]


def shuffled(ids: Sequence[str], seed: int) -> list[str]:
    """Ids in an order that depends on the seed alone: not on the machine, the version or their company."""
    return sorted(ids, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest())


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object")
