"""Benchmark `lamp`: the tasks of LaMP and LongLaMP from their files as released.

Salemi et al. 2023, arXiv 2304.11406 (CC BY-NC-SA 4.0); Kumar et al. 2024, arXiv 2407.11016. Every question is its
person's only test reply; what the person wrote before, its profile, is the train data: each entry becomes a question
of the same task with the entry's own answer. Data and rules are in docs/real_people.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from harness import BenchmarkCard, DataError, Dataset, Dialogue, Message, Persona, Protocol, did_you_mean, hookimpl
from harness.contract import user_path

from .answers import left_out
from .choices import Count, Some
from .reading import Faults, read_json, read_objects, read_text, usable
from .yardsticks import choice_yardsticks, rating_yardsticks, text_yardsticks

WRITTEN = ("rouge_1", "rouge_l", "similarity", "nll")
CHOSEN = ("accuracy", "macro_f1", "nll")


@dataclass(frozen=True, slots=True)
class _Task:
    """How an entry of a profile becomes a question of the task.

    prompt   with the entry's fields in braces; one that begins with "..." is the question up to the marker behind the
             dots (as the release words it), then the rest
    reply    the entry's field that answers
    choices  a closed set; None: what replies and profiles hold. Empty: free text
    longest  reply in tokens
    """

    prompt: str
    reply: str
    metrics: tuple[str, ...] = WRITTEN
    choices: tuple[str, ...] | None = ()
    longest: int = 64


TASKS = {
    "LaMP_1": _Task("Write the title of the paper with this abstract: {abstract}", "title"),
    "LaMP_2": _Task("...description: {description}", "tag", CHOSEN, None),
    "LaMP_2_old": _Task("...article: {text}", "category", CHOSEN, None),
    "LaMP_3": _Task("...review: {text}", "score", ("mae", "rmse", "accuracy", "macro_f1", "nll"), tuple("12345")),
    "LaMP_4": _Task("...article: {text}", "title"),
    "LaMP_5": _Task("...paper: {abstract}", "title"),
    "LaMP_6": _Task("...email: {text}", "title"),
    "LaMP_7": _Task("Write a tweet in your own way.", "text"),
    "LongLaMP_abstract": _Task("Generate an abstract for the title: {title}", "abstract", longest=256),
    "LongLaMP_topic": _Task("Generate the content for a reddit post: {summary}", "content", longest=256),
    "LongLaMP_review": _Task(
        "Generate the review text written by a reviewer who has given an overall rating of {overall} for a product "
        "with description {description}. The summary of the review is {summary}.",
        "reviewText",
        longest=256,
    ),
    "LongLaMP_email": _Task("Generate an email with the subject: {title}", "text", longest=256),
}


@dataclass(frozen=True, slots=True)
class LampOptions:
    """Options of the benchmark.

    data        folder with <part>_questions.json and <part>_outputs.json (LaMP), or one file with "input", "output"
                and "profile" in every line or row (LongLaMP: .json, .jsonl or .parquet)
    task        empty: what the outputs say; LongLaMP's files do not say it
    part        of LaMP's files
    most        entries of a profile that are used, the latest
    at_least    entries that a profile must have; whoever has fewer is left out and named
    validation  share of the entries that are for validation, the latest of them
    people      only the first so many people
    """

    data: str = ""
    task: str = ""
    part: Literal["train", "dev", "test"] = "dev"
    most: Some = 50
    at_least: Count = 4
    validation: Annotated[float, Field(ge=0, le=1)] = 0.2
    people: Some | None = 100
    max_prompt_tokens: Some = 1024


@hookimpl
def card() -> BenchmarkCard:
    return BenchmarkCard("LaMP's and LongLaMP's tasks, from their files as released (data=FOLDER)", LampOptions)


@hookimpl
def load(options: LampOptions) -> Dataset:
    path = user_path(options.data)
    if not options.data or not path.exists():
        raise DataError(
            f"{options.data or 'the benchmark'}: give LaMP's folder, or a file of LongLaMP: --set data=PLACE"
        )
    named, questions = _questions(path, options)
    task = _task(path, options.task or named)
    kept: list[_Question] = []
    few: list[str] = []
    for question in questions:
        usable = [entry for entry in question.profile if _has(entry, task)][-options.most :]
        if len(usable) < max(options.at_least, 2):
            few.append(question.id)
        elif options.people is None or len(kept) < options.people:
            kept.append(replace(question, profile=usable))
    if not kept:
        raise DataError(f"{path}: nobody's profile has {options.at_least} entries of the task; lower at_least")
    choices = _choices(task, kept)
    dialogues = [d for question in kept for d in _dialogues(question, task, options.validation)]
    yardsticks = text_yardsticks
    if choices:
        yardsticks = rating_yardsticks if "mae" in task.metrics else choice_yardsticks
    return Dataset(
        name=options.task or named,
        personas=tuple(Persona(question.id) for question in kept),
        dialogues=tuple(dialogues),
        protocol=Protocol(
            max_new_tokens=task.longest,
            max_prompt_tokens=options.max_prompt_tokens,
            choices=choices,
            decision="median" if "mae" in task.metrics else "mode",
        ),
        metrics=task.metrics,
        yardsticks=yardsticks,
        facts={
            "data": path.name,
            "task": options.task or named,
            "split": "profiles train and validate, questions test",
            **left_out(few, len(few) + len(kept), f"fewer than {options.at_least} entries"),
        },
    )


# ---- files ----


@dataclass(frozen=True, slots=True)
class _Question:
    id: str
    input: str
    output: str
    profile: list[Mapping[str, Any]]


def _questions(path: Path, options: LampOptions) -> tuple[str, list[_Question]]:
    """(name of the task, questions). Raises DataError naming the file and the question."""
    if path.is_file():
        return "", [_question(path, f"person_{n:05d}", item, item.get("output")) for n, item in enumerate(_rows(path))]
    asked, answered = (path / f"{options.part}_{what}.json" for what in ("questions", "outputs"))
    gold = read_json(answered)
    if not isinstance(gold, dict) or not isinstance(gold.get("golds"), list):
        raise DataError(f"{answered}: should be an object with 'task' and 'golds'")
    outputs = {str(item.get("id")): item.get("output") for item in gold["golds"]}
    questions = read_json(asked)
    if not isinstance(questions, list):
        raise DataError(f"{asked}: should be a list of questions")
    found = []
    for item in questions:
        name = str(item.get("id")) if isinstance(item, dict) else "?"
        if name not in outputs:
            raise DataError(f"{asked}: the question '{name}' has no output in {answered.name}")
        found.append(_question(asked, name, item, outputs[name]))
    return str(gold.get("task", "")), found


def _question(path: Path, name: str, item: Mapping[str, Any], output: Any) -> _Question:
    profile = item.get("profile")
    if not isinstance(profile, list) or not all(isinstance(entry, Mapping) for entry in profile):
        raise DataError(f"{path}, question '{name}': 'profile' should be a list of objects")
    try:
        return _Question(name, read_text(item.get("input"), "input"), read_text(output, "output"), list(profile))
    except ValueError as error:
        raise DataError(f"{path}, question '{name}': {error}") from error


def _rows(path: Path) -> list[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        try:
            rows = pyarrow.parquet.read_table(usable(path)).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path}: cannot be read as Parquet ({error})") from error
    elif path.suffix == ".jsonl":
        faults = Faults()
        rows: Any = [row for _, row in read_objects(path, faults)]
        faults.stop_if_any()
    else:
        rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: should hold objects with 'input', 'output' and 'profile'")
    return rows


# ---- what people said ----


def _task(path: Path, name: str) -> _Task:
    if name not in TASKS:
        hint = did_you_mean(name, TASKS) if name else f"known: {', '.join(TASKS)}"
        raise DataError(f"{path}: the task '{name}' is not known; --set task=NAME ({hint})")
    return TASKS[name]


def _has(entry: Mapping[str, Any], task: _Task) -> bool:
    """Whether an entry has all that the task needs."""
    return all(str(entry.get(name) or "").strip() for name in [*re.findall(r"{(\w+)}", task.prompt), task.reply])


def _asked(question: _Question, entry: Mapping[str, Any], task: _Task) -> str:
    """The task's question about an entry."""
    prompt, head = task.prompt, ""
    if prompt.startswith("..."):
        prompt = prompt.removeprefix("...")
        before, found, _ = question.input.partition(prompt[: prompt.index("{")].strip())
        head = before if found else ""
    return head + re.sub(r"{(\w+)}", lambda field: str(entry[field[1]]).strip(), prompt)


def _dialogues(question: _Question, task: _Task, share: float) -> Iterator[Dialogue]:
    person, count = question.id, len(question.profile)
    train = count - min(max(round(share * count), 1), count - 1)
    for place, entry in enumerate(question.profile):
        messages = _turn(_asked(question, entry, task), str(entry[task.reply]).strip())
        yield Dialogue(f"{person}/{place:03d}", person, "train" if place < train else "validation", messages)
    yield Dialogue(f"{person}/question", person, "test", _turn(question.input, question.output.strip()))


def _turn(asked: str, reply: str) -> tuple[Message, Message]:
    return Message("user", asked), Message("assistant", reply)


def _choices(task: _Task, questions: list[_Question]) -> tuple[str, ...]:
    if task.choices is not None:
        return task.choices
    said = {str(entry[task.reply]).strip() for question in questions for entry in question.profile}
    return tuple(sorted(said | {question.output.strip() for question in questions}))
