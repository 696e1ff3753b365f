"""What is published of a run beside its record: a few replies, persona by persona differences, the learning curve.

records/samples/<id>.json, written by `harness leaderboard --publish` for runs whose replies are at hand. A published
record alone has sums per persona; with its sample the page shows replies side by side from a fresh clone, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from harness.errors import StoreError
from harness.runs import Learning, Replies, StoredRun
from harness.store import read_json, write_atomically
from harness.text import clean_json, visible_json

from .people import Differences, measured
from .picking import EXAMPLES, picked
from .rows import Group, Line, board_of

FOLDER = "samples"  # in the folder of the records
LARGEST_BYTES = 100_000
_REPLIES = "replies.parquet"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SampledReply(_Part):
    """prompt, reference: only in one sample of a section, and None where the run kept no texts."""

    id: str
    persona: str
    prompt: str | None = None
    reference: str | None = None
    reply: str
    score: float | None = None


class Sample(_Part):
    """of  digest of the replies that it was taken from;  metric: of the scores"""

    run: str
    of: str | None
    metric: str
    replies: tuple[SampledReply, ...]
    differences: Differences | None = None
    learning: Learning | None = None

    @model_validator(mode="after")
    def _distinct(self) -> Sample:
        if len({reply.id for reply in self.replies}) < len(self.replies):
            raise ValueError("a reply is there twice")
        return self

    def as_replies(self) -> Replies:
        """The same as the replies of a stored run."""
        import pyarrow

        columns: dict[str, pyarrow.Array] = {}
        for name in ("id", "persona", "prompt", "reference", "reply"):
            columns[name] = pyarrow.array([getattr(reply, name) for reply in self.replies], pyarrow.string())
        for name in ("prompt_hash", "reference_hash"):
            columns[name] = pyarrow.array([None] * len(self.replies), pyarrow.string())
        columns[f"score_{self.metric}"] = pyarrow.array([reply.score for reply in self.replies], pyarrow.float64())
        return Replies(pyarrow.table(columns))


def sample_of(run: StoredRun) -> Sample | None:
    """What was published beside a record; None for a run with a folder of its own, or where nothing was.

    Raises StoreError for a file that cannot be read, or is another run's.
    """
    path = run.path.parent / FOLDER / f"{run.id}.json"
    if run.path.is_dir() or not path.is_file():
        return None
    try:
        found = Sample.model_validate(read_json(path))
    except ValidationError as error:
        raise StoreError(f"{path}: is not a valid sample ({error.error_count()} faults); publish it again") from error
    digest = run.record.files.get(_REPLIES)
    if found.run != run.id or (digest and found.of != digest):
        raise StoreError(f"{path}: does not belong to the replies of {run.id}; publish it again")
    return found


def replies_of(run: StoredRun) -> Replies | None:
    """The replies that are at hand: all of a stored run, or the published sample. Raises StoreError as both."""
    if found := sample_of(run):
        return found.as_replies()
    return run.replies()


def learning_of(run: StoredRun) -> Learning | None:
    """How the adapters of a run learnt, as far as it is at hand. Raises StoreError for a file that cannot be read."""
    found = sample_of(run)
    return found.learning if found else run.learning()


def publish_samples(
    runs: Sequence[StoredRun], records: Path, note: Callable[[str], None], most: int = EXAMPLES
) -> list[Path]:
    """Write a sample of each row's first run whose replies are at hand; returns the files, and notes what is left out.

    records  the folder of the published records, which hold these runs
    """
    written = []
    for group in board_of([run for run in runs if run.complete]).groups:
        chosen: list[str] = []
        texts = True
        beside = differences_of(group, group.lines)
        lines = sorted(group.lines, key=lambda line: not line.is_baseline)  # the baseline's has the texts
        for line in lines:
            run = line.family.first
            try:
                replies = run.replies() if run.path.is_dir() else None
                if replies is None or not len(replies) or replies.rows([0])[0].reply is None:
                    continue
                chosen = chosen or [row.id for row in replies.rows(picked(replies, most))]
                text = _text(_sample(group, line, replies, chosen, texts, beside[line.place - 1]))
            except StoreError as error:
                note(f"{error}; no sample of it is published")
                continue
            if len(text.encode()) > LARGEST_BYTES:
                note(f"no sample of {run.id} is published: it would take more than {LARGEST_BYTES:,} bytes")
                continue
            path = records / FOLDER / f"{run.id}.json"
            write_atomically(path, text)
            written.append(path)
            texts = False
    return written


def differences_of(group: Group, lines: Sequence[Line]) -> list[Differences | None]:
    """Persona by persona, of each of these lines of a group: measured from the replies at hand, or as published."""
    found: list[Differences | None] = [None] * len(lines)
    if group.baseline is None:
        return found
    others = [i for i, line in enumerate(lines) if not line.is_baseline]
    made = measured([lines[i].family for i in others], group.baseline, group.metric)
    for i, differences in zip(others, made, strict=True):
        try:
            sample = None if differences else sample_of(lines[i].family.first)
        except StoreError:
            continue  # the page says so beside its replies
        published = sample.differences if sample else None
        fits = published and published.baseline == group.baseline.first.id
        found[i] = differences or (published if fits else None)
    return found


def _sample(
    group: Group, line: Line, replies: Replies, chosen: Sequence[str], texts: bool, differences: Differences | None
) -> Sample:
    run, places = line.family.first, replies.places
    at = [places[name] for name in chosen if name in places]
    scores = replies.scores(group.metric)[at]
    rows = [
        SampledReply(
            id=row.id,
            persona=row.persona,
            prompt=row.prompt if texts else None,
            reference=row.reference if texts else None,
            reply=row.reply or "",
            score=None if math.isnan(score) else float(f"{score:.6g}"),
        )
        for row, score in zip(replies.rows(at), np.asarray(scores), strict=True)
    ]
    digest = run.record.files.get(_REPLIES)
    return Sample(run=run.id, of=digest, metric=group.metric, replies=tuple(rows), differences=differences,
                  learning=run.learning())  # fmt: skip


def _text(sample: Sample) -> str:
    fields = clean_json(sample.model_dump(mode="json"))
    return visible_json(json.dumps(fields, ensure_ascii=False, indent=1, allow_nan=False)) + "\n"
