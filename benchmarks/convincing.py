"""Benchmark `convincing`: which of two arguments convinces more, and why, in the judge's own words (UKPConvArg1).

Habernal and Gurevych 2016, ACL P16-1150, CC BY 4.0. The reply holds a choice and a reason: both are scored from it.
Data and rules are in docs/real_people.md.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from harness import BenchmarkCard, DataError, Dataset, Metric, MetricBatch, Protocol, hookimpl

from .answers import Answer, PeopleOptions, answers_from, people_of
from .choices import Count, Some
from .reading import usable
from .released import Release, located
from .yardsticks import worded_choice_yardsticks

CHOICES = {"a1": "First", "a2": "Second", "equal": "Equal"}
RELEASE = Release(
    "UKPConvArg1",
    "https://codeload.github.com/UKPLab/acl2016-convincing-arguments/zip/a5e39538e0e55a2e9f417ef3c86e7e62610f464b",
    "UKPConvArg1-full-XML",
)
_CHOICE = re.compile(r"\s*(first|second|equal)\b[\s.,:;-]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ConvincingOptions(PeopleOptions):
    """See PeopleOptions; in addition

    words    longest argument, in words: pairs with a longer one are left out
    decides  the metric that decides, named before a study: the likelihood of the person's own words, that of the reason
             alone, the similarity of the whole reply, of the reason alone, or whether the choice is right
    """

    people: Some | None = 60
    at_least: Count = 50
    most: Some | None = 50
    words: Some = 70
    decides: Literal["nll", "reason_nll", "similarity", "reason_similarity", "choice_accuracy"] = "nll"


@hookimpl
def card() -> BenchmarkCard:
    return BenchmarkCard("which of two arguments convinces a person, and why (UKPConvArg1)", ConvincingOptions)


@hookimpl
def load(options: ConvincingOptions) -> Dataset:
    data = located(options.data, RELEASE, options.sha256)
    answers = answers_from(data, functools.partial(read_pairs, words=options.words))
    people = people_of(answers, options, data)
    metrics = ("nll", "reason_nll", "choice_nll", "similarity", "reason_similarity", "choice_accuracy", "rouge_l")
    return Dataset(
        name="convincing",
        personas=people.personas,
        dialogues=people.dialogues,
        protocol=Protocol(system="You judge arguments.", profile=options.profile, max_new_tokens=48),
        metrics=(options.decides, *(name for name in metrics if name != options.decides)),
        yardsticks=functools.partial(worded_choice_yardsticks, choice_of),
        facts={"data": Path(data).name, **people.facts},
    )


@hookimpl
def metrics() -> list[Metric]:
    return [
        Metric("choice_accuracy", "the reply begins with the side that the person chose", _choice_accuracy),
        Metric("reason_similarity", "similarity of what follows the choice of side", _reasons, needs=("embedder",)),
        Metric("choice_nll", "negative log-likelihood of the person's choice of side", _nats, unit="nats",
               higher_is_better=False, needs=("nll",)),
        Metric("reason_nll", "negative log-likelihood per token of what follows that choice", _nats, unit="nats",
               higher_is_better=False, needs=("nll",)),
    ]  # fmt: skip


def choice_of(reply: str) -> str:
    """The side that a reply begins with, First, Second or Equal; empty for another reply."""
    found = _CHOICE.match(reply)
    return found[1].capitalize() if found else ""


def reason_of(reply: str) -> str:
    """What follows the choice; the whole reply where there is none."""
    return reply[choice_end(reply) :].strip()


def choice_end(reply: str) -> int:
    """Where the choice ends, with the punctuation behind it; 0 where there is none."""
    found = _CHOICE.match(reply)
    return found.end() if found else 0


def _choice_accuracy(batch: MetricBatch) -> dict[str, list[float]]:
    return {"choice_accuracy": [float(choice_of(reply) == choice_of(wanted)) for reply, wanted in batch.pairs()]}


def _reasons(batch: MetricBatch) -> dict[str, list[float]]:
    assert batch.embedder is not None
    said, meant = (
        batch.embedder.embed([reason_of(text) for text in texts]) for texts in zip(*batch.pairs(), strict=True)
    )
    return {"reason_similarity": (said * meant).sum(axis=1).astype(float).tolist()}


def _nats(batch: MetricBatch) -> dict[str, list[float]]:
    """Of the tokens of the choice, summed; of the others, the end of the turn among them, a token."""
    columns: dict[str, list[float]] = {"choice_nll": [], "reason_nll": []}
    if batch.likelihoods is None:
        return {name: [math.nan] * len(batch.examples) for name in columns}
    for wanted, likelihood in zip(batch.references, batch.likelihoods, strict=True):
        (choice, said), (reason, rest) = likelihood.split(choice_end(wanted))
        columns["choice_nll"].append(choice if said else math.nan)
        columns["reason_nll"].append(reason / rest if rest else math.nan)
    return columns


# ---- the original release ----


def read_pairs(path: Path, words: int) -> list[Answer]:
    """Every judgement with a reason on a pair of arguments of at most so many words, from a folder of XML files or one.

    Raises DataError for files that are no such XML, or hold no judgement.
    """
    files = sorted(path.rglob("*.xml")) if path.is_dir() else [path]
    answers = [answer for file in files for answer in _pairs_in(file, words)]
    if not answers:
        raise DataError(
            f"{path}: no judgements of argument pairs found; it should hold the XML files of UKPConvArg1-full"
        )
    return answers


def _pairs_in(file: Path, words: int) -> Iterator[Answer]:
    raw = usable(file).read_bytes()
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise DataError(f"{file}: declares document types or entities, which the release does not; it is not read")
    try:
        root = ElementTree.fromstring(raw)
    except ElementTree.ParseError as error:
        raise DataError(f"{file}: not XML ({error})") from error
    for pair in root.iter("annotatedArgumentPair"):
        first, second = (_line(pair.findtext(f"{side}/text")) for side in ("arg1", "arg2"))
        if not first or not second or max(len(first.split()), len(second.split())) > words:
            continue
        title, stance = _line(pair.findtext("debateMetaData/title")), _line(pair.findtext("arg1/stance"))
        prompt = (
            f"Debate: {title} Side: {stance}\nFirst argument: {first}\nSecond argument: {second}\n"
            "Which argument is more convincing, and why?"
        )
        for vote in pair.iter("mTurkAssignment"):
            judge, reason = _line(vote.findtext("turkID")), _line(vote.findtext("reason"))
            choice = CHOICES.get(_line(vote.findtext("value")))
            if judge and reason and choice:
                yield Answer(judge, _line(pair.findtext("id")), prompt, f"{choice}. {reason}")


def _line(text: str | None) -> str:
    return " ".join((text or "").split())
