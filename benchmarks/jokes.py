"""Benchmark `jokes`: how funny a person finds a joke, from 1 to 5 (Jester).

Goldberg et al. 2001, Eigentaste; 100 jokes, ratings from -10 to 10 put on five steps of equal width. Data and rules are
in docs/real_people.md.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import BenchmarkCard, DataError, Dataset, hookimpl
from harness.contract import read_json_text, user_path

from .answers import SCALE, Answer, PeopleOptions, answers_from, rating_dataset
from .choices import Count, Some
from .reading import read_utf8, usable
from .released import Release, located

QUESTION = "How funny is this joke, from 1 (not at all) to 5 (very)?"
LOWEST, HIGHEST, NOT_RATED = -10.0, 10.0, 99.0
RELEASE = Release("Jester", "https://eigentaste.berkeley.edu/dataset/archive/jester_dataset_1_1.zip")
TEXTS = Release("Jester-texts", "https://eigentaste.berkeley.edu/dataset/archive/jester_dataset_1_joke_texts.zip")


@dataclass(frozen=True, slots=True)
class JokesOptions(PeopleOptions):
    """See PeopleOptions; in addition

    texts  the jokes: a folder of init1.html to init100.html, or a table with a row a joke; empty: found beside the data
    """

    people: Some | None = 100
    at_least: Count = 60
    most: Some | None = 60
    splits: str = "30/10/20"
    texts: str = ""


@hookimpl
def card() -> BenchmarkCard:
    return BenchmarkCard("how funny a person finds a joke, 1 to 5 (Jester)", JokesOptions)


@hookimpl
def load(options: JokesOptions) -> Dataset:
    data = located(options.data, RELEASE, options.sha256)
    texts = options.texts or ("" if options.data else located("", TEXTS, ""))
    answers = answers_from(data, lambda path: read_matrix(path, texts), SCALE)
    return rating_dataset("jokes", "You rate jokes.", data, answers, options)


def step_of(rating: float) -> str:
    """A rating from -10 to 10 on five steps of equal width: "1" below -6, "5" from 6 on."""
    width = (HIGHEST - LOWEST) / len(SCALE)
    return SCALE[min(int((rating - LOWEST) / width), len(SCALE) - 1)]


def read_matrix(path: Path, texts: str = "") -> list[Answer]:
    """Ratings from Jester's matrix: a file, or a folder with one or more, as .xls or .csv.

    A row is a user, with a column for each joke behind the number of rated jokes, or behind a name; 99, "NA" and
    nothing stand for jokes that were not rated. A head line is passed over.
    Raises DataError for another table, for ratings outside -10 to 10, and where the jokes are not found.
    """
    files = [path]
    if path.is_dir():
        tables = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in (".xls", ".csv", ".tsv")]
        files = [file for file in tables if "text" not in file.stem.lower()]
    if not files:
        raise DataError(f"{path}: no matrix of ratings (.xls or .csv) in this folder")
    jokes = read_jokes(user_path(texts) if texts else path if path.is_dir() else path.parent)
    answers = []
    for file in files:
        for number, cells in enumerate(_rows(file), 1):
            name, ratings = _user(cells, len(jokes), file, number)
            name = name if len(files) == 1 else f"{file.stem}/{name}"
            for place, rating in enumerate(ratings, 1):
                if rating is not None and place in jokes:
                    prompt = f"{QUESTION}\n{jokes[place]}"
                    answers.append(Answer(name, f"joke_{place}", prompt, step_of(rating)))
    if not answers:
        raise DataError(f"{path}: holds no ratings")
    return answers


def read_jokes(place: Path) -> dict[int, str]:
    """Number -> text, from init<number>.html files, or a table (.csv, .tsv, .json, .jsonl) with a row a joke.

    Raises DataError where there are none.
    """
    pages = {int(m[1]): page for page in sorted(place.rglob("*.html")) if (m := re.fullmatch(r"init(\d+)", page.stem))}
    if pages:
        return {number: _plain(read_utf8(page, errors="replace")) for number, page in sorted(pages.items())}
    tables = [place] if place.is_file() else sorted(file for file in place.rglob("*") if "text" in file.stem.lower())
    for file in tables:
        if file.suffix.lower() in (".csv", ".tsv"):
            return _numbered([row for row in _table(file) if row])
        if file.suffix.lower() in (".json", ".jsonl"):
            return _numbered(_objects(file))
    raise DataError(
        f"{place}: the jokes' texts are not here (init1.html ..., or a table); give them: --set texts=PLACE"
    )


def _objects(file: Path) -> list[list[str]]:
    text = read_utf8(file)
    try:
        lines = [text] if file.suffix.lower() == ".json" else [line for line in text.splitlines() if line.strip()]
        values = [read_json_text(line) for line in lines]
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error})") from error
    values = values[0] if file.suffix.lower() == ".json" else values
    if isinstance(values, dict):
        return [[str(key), str(value)] for key, value in values.items()]
    return [[str(cell) for cell in (value.values() if isinstance(value, dict) else [value])] for value in values]


def _numbered(rows: Sequence[Sequence[str]]) -> dict[int, str]:
    """The longest cell of a row is the joke; a cell with a number is its number, else the row's place counts."""
    found: dict[int, str] = {}
    for row in rows:
        text = max(row, key=len)
        number = next(
            (int(m[1]) for cell in row if cell is not text and (m := re.fullmatch(r"\D{0,6}(\d+)", cell))), None
        )
        if number is None and len(row) > 1 and not found:
            continue  # a head line
        found[len(found) + 1 if number is None else number] = " ".join(text.split())
    if 0 in found:
        found = {number + 1: text for number, text in found.items()}
    return found


def _plain(page: str) -> str:
    """The joke of a page: what stands between its "begin of joke" and "end of joke" comments, without markup."""
    marked = re.search(r"<!--\s*begin of joke\s*-->(.*?)<!--\s*end of joke\s*-->", page, re.DOTALL | re.IGNORECASE)
    body = marked[1] if marked else page
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def _rows(file: Path) -> list[list[str]]:
    if file.suffix.lower() != ".xls":
        return _table(file)
    import xlrd
    from xlrd.biffh import XLRDError
    from xlrd.compdoc import CompDocError

    try:
        sheet = xlrd.open_workbook(str(usable(file))).sheet_by_index(0)
    except (OSError, XLRDError, CompDocError, AssertionError, ValueError, IndexError) as error:
        raise DataError(f"{file}: cannot be read as an Excel sheet ({error})") from error
    return [[str(value) for value in sheet.row_values(row)] for row in range(sheet.nrows)]


def _table(file: Path) -> list[list[str]]:
    try:
        text = io.StringIO(read_utf8(file), newline="")
        rows = list(csv.reader(text, delimiter="\t" if file.suffix.lower() == ".tsv" else ","))
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read as a table ({error})") from error
    return [row for row in rows if row]


def _user(cells: Sequence[str], jokes: int, file: Path, number: int) -> tuple[str, list[float | None]]:
    """(name, ratings) of a row; no ratings for a head line."""
    named = len(cells) > jokes
    try:
        ratings = [_rating(cell) for cell in (cells[1:] if named else cells)]
    except ValueError as error:
        if number == 1:
            return "", []
        raise DataError(f"{file}, row {number}: {error}") from error
    wrong = [rating for rating in ratings if rating is not None and not LOWEST <= rating <= HIGHEST]
    if wrong:
        raise DataError(f"{file}, row {number}: the rating {wrong[0]:g} does not lie in {LOWEST:g} to {HIGHEST:g}")
    own = cells[0].strip() if named and _number(cells[0]) is None else ""
    return own or f"laugher_{number - 1:05d}", ratings


def _rating(cell: str) -> float | None:
    if cell.strip().upper() in ("", "NA", "NAN"):
        return None
    value = _number(cell)
    if value is None:
        raise ValueError(f"'{cell[:20]}' is no rating")
    return None if value == NOT_RATED else value


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
