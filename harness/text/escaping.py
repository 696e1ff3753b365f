"""One function for each place that text goes to. Names, replies, errors and labels come from data and plugins: any of
them may hold escape sequences, markup or commands.

What no reader can see is shown as Python writes it: `\\x1b`, `\\u202e`. LaTeX cells are escaped by tabulate.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

# Controls but tab and newline; half surrogates and two that XML refuses; what turns the direction of text, takes no
# room or looks like a space, by which a name reads as something else. Joiners and variation selectors shape words and
# emoji of other scripts than Latin, so they stay where the characters that they belong to are no ASCII.
_BREAKS = r"\n\x0b\x0c\r\x1c-\x1e\x85\u2028\u2029"
_HIDDEN = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    r"\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_JOINERS, _SELECTORS = r"\u200c\u200d", r"\ufe00-\ufe0f"
_HIDING = re.compile(
    rf"[{_HIDDEN}]|(?<![^\x00-\x7f{_JOINERS}{_SELECTORS}])[{_SELECTORS}]"
    rf"|(?<![^\x00-\x7f{_JOINERS}])[{_JOINERS}]|[{_JOINERS}](?![^\x00-\x7f{_JOINERS}{_SELECTORS}])"
)
_BREAK = re.compile(rf"[ \t]*[\t{_BREAKS}][\t{_BREAKS} ]*")
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$])")
_LIST = re.compile(r"\A(\d*)([-=.])(?=[-=\s]|\Z)")  # at the beginning of a line: a list, a rule, a heading's underline
_UNSAFE_QUOTED = re.compile(rf"[\\'!\t{_BREAKS}]")  # within $'...', for interactive shells too
_FORMULA = re.compile("[=+\\-@\uff1d\uff0b\uff0d\uff20]")  # and their full-width forms


def terminal(text: object) -> str:
    """Text of any number of lines with nothing that moves a cursor, changes colours or hides."""
    return _HIDING.sub(_shown, str(text).replace("\r\n", "\n"))


def one_line(text: object) -> str:
    """The same on one line; every run of spaces and line breaks is one space."""
    return terminal(" ".join(str(text).split()))


def as_lines(rows: Iterable[str]) -> str:
    """Many lines as one text; each row is one line, whatever it holds, with the spaces that it has."""
    return "\n".join(terminal(_BREAK.sub(" ", row)) for row in rows)


def shell_word(text: object) -> str:
    """One word of a command, on one line, that any shell with `$'...'` (bash, zsh, ksh) reads as the text.

    What cannot be seen, or be held by one line, stands in it as an escape.
    """
    whole = str(text).replace("\0", "")  # no argument can hold it
    if not _HIDING.search(whole) and not re.search(rf"[\t{_BREAKS}]", whole):
        return shlex.quote(whole)
    return f"$'{_HIDING.sub(_as_bytes, _UNSAFE_QUOTED.sub(_as_bytes, whole))}'"


def markdown(text: object) -> str:
    """Inert markdown on one line: no markup, no HTML, no list, no link, not even of a bare address."""
    escaped = _LIST.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", one_line(text)))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;")


def code(text: object) -> str:
    """A code span of markdown, within a table too."""
    return f"`{one_line(text).replace('`', chr(0x2019)).replace('|', chr(0x2223)) or ' '}`"


def fenced(rows: Iterable[str]) -> str:
    """A block of code in markdown, each row as it is; no row can end it."""
    text = as_lines(rows)
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
    return f"{fence}\n{text}\n{fence}"


def xml(text: object) -> str:
    """One line of text between two tags, or in an attribute."""
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def csv_cell(text: object) -> str:
    """One line that no spreadsheet takes for a formula: before one stands an apostrophe."""
    cell = one_line(text)
    return "'" + cell if _FORMULA.match(cell) else cell


def json_text(value: Any, indent: int | None = None) -> str:
    """Strict JSON that shows what no reader can see as escapes of its own; NaN and infinities are null."""
    return visible_json(json.dumps(clean_json(value), indent=indent, ensure_ascii=False, allow_nan=False))


def visible_json(text: str) -> str:
    """A JSON text in which what no reader can see is escaped as JSON has it, so that its value is the same."""
    return _HIDING.sub(_as_json, text)


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no character in it can end or open one."""
    text = json.dumps(clean_json(value, terminal), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def clean_json(value: Any, shown: Any = str) -> Any:
    """Plain data with NaN and infinities as null: strict JSON, readable by every tool.

    shown   is applied to every text, keys included
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {shown(str(k)): clean_json(v, shown) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(v, shown) for v in value]
    return value


def _shown(found: re.Match[str]) -> str:
    number = ord(found.group())
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _as_json(found: re.Match[str]) -> str:
    return json.dumps(found.group())[1:-1]


def _as_bytes(found: re.Match[str]) -> str:
    """As `$'...'` has it, byte by byte, because older shells know no `\\u`; half a surrogate is lost."""
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    character = found.group()
    return named.get(character) or "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "replace"))
