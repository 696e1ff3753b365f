"""A file of scores -> lines, with every fault named by file and line at once. What becomes of them: `importing`.

CSV with a header, or JSON lines; a line is one reply (persona, example, score) or one persona (persona, n, score:
the mean of n replies). Other columns are passed over. A header of CSV may have capitals.
"""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import DataError, did_you_mean

Unit = Literal["share", "pt", "raw"]
_COLUMNS = ("persona", "example", "n", "score")
SHOWN = 20  # faults in one message
LARGEST = 1e100  # of a raw score: sums of squares stay finite
MOST_REPLIES = 1_000_000_000  # of one persona: above it a number is a slip, and sums would lose digits
PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """One line of a file; `score` on the scale that runs store (shares in 0-1), `example` None for a persona's mean."""

    number: int
    persona: str
    example: str | None
    n: int
    score: float


def read_scores(path: Path, data: bytes, unit: Unit) -> list[ScoreLine]:
    """The lines of a file. Raises DataError with the first twenty faults, each with its line."""
    for start, kind in PACKED.items():
        if data.startswith(start):
            raise DataError(f"{path}: is packed with {kind}; unpack it and import the CSV or JSON lines inside")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8") from error
    if not text.strip():
        raise DataError(f"{path}: empty; a line is persona,example,score or persona,n,score")
    if text.lstrip().startswith("["):
        raise DataError(f"{path}:1: is a JSON array; write JSON lines: one object a line, without brackets and commas")
    faults: list[str] = []
    rows = list(_json_rows(text, path, faults) if text.lstrip().startswith("{") else _csv_rows(text, path, faults))
    lines = _lines(rows, path, unit, faults) if rows else []
    if faults:
        shown = faults[:SHOWN] + ([f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else [])
        raise DataError("\n".join(shown))
    if not lines:
        raise DataError(f"{path}: has no scores below its header")
    return lines


def _csv_rows(text: str, path: Path, faults: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            number = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                header = [name.lower() if name.lower() in _COLUMNS else name for name in header]
                if not _header_is_good(header, f"{path}:{number}", faults):
                    return
            elif len(cells) != len(header):
                faults.append(f"{path}:{number}: {len(cells)} values for {len(header)} columns ({', '.join(header)})")
            else:
                yield number, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        faults.append(f"{path}:{reader.line_num}: not CSV: {error}")


def _header_is_good(header: Sequence[str], where: str, faults: list[str]) -> bool:
    before = len(faults)
    if len(header) == 1:
        for sign, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if sign in header[0]:
                faults.append(f"{where}: the columns are separated by {word}; separate them by commas")
                return False
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        faults.append(f"{where}: the column '{twice[0]}' stands there twice")
    _check_names(header, where, faults)
    return len(faults) == before


def _check_names(names: Sequence[str], where: str, faults: list[str]) -> None:
    for name in ("persona", "score"):
        if name not in names:
            faults.append(f"{where}: the column '{name}' is missing; {did_you_mean(name, names)}")
    if ("example" in names) == ("n" in names):
        how = "both are there" if "n" in names else f"neither is there; known: {', '.join(sorted(names)) or 'none'}"
        faults.append(f"{where}: needs 'example' (a line a reply) or 'n' (a line a persona), one of them; {how}")


def _json_rows(text: str, path: Path, faults: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            faults.append(f"{path}:{number}: not JSON: {error}")
            continue
        if not isinstance(value, dict):
            faults.append(f"{path}:{number}: holds no JSON object")
            continue
        before = len(faults)
        _check_names(list(value), f"{path}:{number}", faults)
        if len(faults) == before:
            yield number, value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict. Raises ValueError for a key that stands there twice: json would keep the last."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the key '{twice[0]}' stands there twice")
    return dict(pairs)


def _lines(rows: Sequence[tuple[int, dict[str, Any]]], path: Path, unit: Unit, faults: list[str]) -> list[ScoreLine]:
    lines: list[ScoreLine] = []
    seen: dict[tuple[str, str | None], int] = {}
    per_reply = "example" in rows[0][1]
    for number, row in rows:
        where = f"{path}:{number}"
        if ("example" in row) != per_reply:
            kinds = ("'example'", "'n'") if per_reply else ("'n'", "'example'")
            faults.append(f"{where}: has {kinds[1]}, the lines above have {kinds[0]}; use one of them in a file")
            continue
        persona = _text(row["persona"], "persona", where, faults)
        example = _text(row["example"], "example", where, faults) if per_reply else None
        n = 1 if per_reply else _count(row["n"], where, faults)
        score = _score(row["score"], unit, where, faults)
        if persona is None or n is None or score is None or (per_reply and example is None):
            continue
        first = seen.setdefault((persona, example), number)
        if first != number:
            what = f"example '{example}' of persona '{persona}'" if per_reply else f"persona '{persona}'"
            faults.append(f"{where}: {what} was in line {first} already")
        lines.append(ScoreLine(number, persona, example, n, score))
    return lines


def _text(value: Any, name: str, where: str, faults: list[str]) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        faults.append(f"{where}: '{name}' must be a name, not {value!r}")
        return None
    text = str(value).strip()
    # A name stands in tables, messages and file names: no line breaks, no terminal codes, no half characters.
    if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in text):
        faults.append(f"{where}: '{name}' {text!r} holds characters that cannot be printed; name it without them")
        return None
    return text


def _number(value: Any) -> float | None:
    """A finite number or None; true, "1_000" and NaN are none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or "_" in str(value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _count(value: Any, where: str, faults: list[str]) -> int | None:
    number = _number(value)
    if number is None or number != int(number) or number < 1:
        faults.append(f"{where}: 'n' must be a whole number of replies, 1 or more, not {value!r}")
        return None
    if number > MOST_REPLIES:
        faults.append(f"{where}: 'n' must be {MOST_REPLIES:,} replies or fewer, not {value!r}")
        return None
    return int(number)


def _score(value: Any, unit: Unit, where: str, faults: list[str]) -> float | None:
    number = _number(value)
    if number is None:
        faults.append(f"{where}: 'score' must be a finite number, not {value!r}")
        return None
    limit = {"share": 1.0, "pt": 100.0, "raw": LARGEST}[unit]
    if abs(number) > limit * (1 + 1e-6):  # a cosine may be negative, and rounded above 1
        hint = "; scores from 0 to 100 need --unit pt" if unit == "share" else ""
        faults.append(f"{where}: 'score' {number:g} is outside -{limit:g} to {limit:g} ({unit}){hint}")
        return None
    return number / 100 if unit == "pt" else number
