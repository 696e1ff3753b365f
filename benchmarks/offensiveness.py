"""Benchmark `offensiveness`: how offensive a person finds a comment, from 1 to 5 (POPQUORN).

Pei and Jurgens 2023, arXiv 2306.06826. Some comments are crude. Data and rules are in docs/real_people.md.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from harness import BenchmarkCard, DataError, Dataset, hookimpl

from .answers import SCALE, Answer, PeopleOptions, answers_from, rating_dataset
from .choices import Count, Some
from .reading import Faults, read_choice, read_text, read_utf8
from .released import Release, located

QUESTION = "How offensive is this comment, from 1 (not at all) to 5 (very)?"
LONGEST = 600  # characters of a comment
WHO = ("gender", "race", "age", "occupation", "education")
RELEASE = Release(
    "POPQUORN-offensiveness",
    "https://raw.githubusercontent.com/Jiaxin-Pei/Potato-Prolific-Dataset/"
    "c329119e878037654f6aa59b319aae6e996585bb/dataset/offensiveness/raw_data.csv",
)


@dataclass(frozen=True, slots=True)
class OffensivenessOptions(PeopleOptions):
    """See PeopleOptions. A person of the release rated 50 comments."""

    people: Some | None = 60
    at_least: Count = 40


@hookimpl
def card() -> BenchmarkCard:
    return BenchmarkCard("how offensive a person finds a comment, 1 to 5 (POPQUORN)", OffensivenessOptions)


@hookimpl
def load(options: OffensivenessOptions) -> Dataset:
    data = located(options.data, RELEASE, options.sha256)
    answers = answers_from(data, read_ratings, SCALE)
    return rating_dataset("offensiveness", "You rate comments.", data, answers, options)


def read_ratings(path: Path) -> list[Answer]:
    """Ratings from raw_data.csv, or the folder that holds it.

    Raises DataError for another table, or a rating that is none; up to ten faults with their lines.
    """
    file = (
        next(iter(sorted(path.rglob("raw_data.csv")) or sorted(path.rglob("*.csv"))), path) if path.is_dir() else path
    )
    faults, found = Faults(), []
    try:
        rows = csv.DictReader(io.StringIO(read_utf8(file), newline=""))
        missing = {"instance_id", "user_id", "text", "offensiveness"} - set(rows.fieldnames or ())
        if missing:
            raise DataError(f"{file}: no column {', '.join(sorted(missing))}; it should be POPQUORN's raw_data.csv")
        for row in rows:
            try:
                found.append(_answer(row))
            except ValueError as error:
                faults.add(file, rows.line_num, str(error))
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read as CSV ({error})") from error
    faults.stop_if_any()
    if not found:
        raise DataError(f"{file}: holds no ratings")
    return found


def _answer(row: dict[str, str]) -> Answer:
    comment = read_text(row["text"], "text")[:LONGEST]
    rating = read_text(row["offensiveness"], "offensiveness").strip().removesuffix(".0")
    rater = read_text(row["user_id"], "user_id")
    if rater.replace(".", "", 1).isdigit():
        rater = f"rater_{int(rater.partition('.')[0] or 0):03d}"
    return Answer(
        persona=rater,
        item=read_text(row["instance_id"], "instance_id"),
        prompt=f"{QUESTION}\n{comment}",
        reply=read_choice(rating, SCALE),
        description=", ".join(row[name] for name in WHO if row.get(name)),
    )
