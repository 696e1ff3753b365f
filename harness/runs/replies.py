"""The examples of a run on disk: replies.parquet, one row each. Runs of schema 1 have scores.jsonl, which is read too.

| column | what it is |
|---|---|
| id, persona | of the example: `<dialogue id>#<turn>`, and whose it is |
| prompt, reference | what was asked (a line a message, `role: text`), what the person really got; null without texts |
| prompt_hash, reference_hash | of both, so that runs can be compared without their texts |
| reply | null where only scores were imported |
| score_NAME | every column of the metrics; null where undefined |

Whether texts are kept is the setting `texts` (`--no-texts`). pyarrow is imported when a file is read or written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contract import Example, Message
from harness.errors import StoreError
from harness.store import canonical_hash

if TYPE_CHECKING:
    import pyarrow

FILE, OLD_FILE = "replies.parquet", "scores.jsonl"
TEXTS = ("id", "persona", "prompt", "prompt_hash", "reference", "reference_hash", "reply")
_SCORE = "score_"
_MESSAGE = re.compile(r"(?:\A|\n)(system|user|assistant): ")  # where a message of a prompt begins
_OLD_NAMES = {"prompt": "prompt_hash", "reference": "reference_hash"}  # schema 1 kept hashes under these names


@dataclass(frozen=True, slots=True)
class Reply:
    """One example of a run; a text that the run did not keep is None."""

    id: str
    persona: str
    prompt: str | None
    prompt_hash: str | None
    reference: str | None
    reference_hash: str | None
    reply: str | None

    def messages(self) -> tuple[Message, ...]:
        """Those of its prompt; empty where it has no text, or a text that can be read in several ways."""
        _, *parts = _MESSAGE.split(self.prompt or "")
        messages = tuple(Message(role, text) for role, text in zip(parts[::2], parts[1::2], strict=True))  # pyright: ignore[reportArgumentType]
        return messages if self.answers(messages) else ()

    def answers(self, messages: Sequence[Message]) -> bool:
        """Whether these are the messages of its prompt, by their digest."""
        return _prompt_hash(messages) == self.prompt_hash


class Replies:
    """All examples of a run, N, column by column."""

    def __init__(self, table: pyarrow.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return self._table.num_rows

    def column(self, name: str) -> list[Any]:
        """One of TEXTS, N values."""
        return self._table[name].to_pylist()

    def columns(self) -> dict[str, list[Any]]:
        """All of them, the scores as score_NAME."""
        return self._table.to_pydict()

    @property
    def places(self) -> dict[str, int]:
        """Example id -> its row."""
        return {name: place for place, name in enumerate(self.column("id"))}

    @property
    def owners(self) -> np.ndarray:
        """[N] the persona's number."""
        return _numbered(self.column("persona"))

    @property
    def dialogues(self) -> np.ndarray:
        """[N] the dialogue's number. Replies of one dialogue share its luck; an id is `<dialogue id>#<turn>`."""
        names = [name.rpartition("#")[0] or name for name in self.column("id")]
        return _numbered(list(zip(self.column("persona"), names, strict=True)))

    def scores(self, metric: str) -> np.ndarray:
        """[N], nan where the metric is undefined or was not scored."""
        name = _SCORE + metric
        if name not in self._table.column_names:
            return np.full(len(self), np.nan)
        return self._table[name].to_numpy().astype(float)

    def rows(self, places: Sequence[int] | np.ndarray) -> list[Reply]:
        """The examples at these rows."""
        table = self._table.select(list(TEXTS)).take(np.asarray(places, dtype=np.int64))
        return [Reply(**row) for row in table.to_pylist()]


def _prompt_hash(messages: Sequence[Message]) -> str:
    return canonical_hash([[message.role, message.text] for message in messages])[:16]


def _numbered(names: Sequence[Any]) -> np.ndarray:
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([places[name] for name in names], dtype=int)


def read_replies(folder: Path) -> Replies | None:
    """The examples of a run; None where it has only sums. Raises StoreError for a file that cannot be read."""
    import pyarrow
    import pyarrow.parquet

    path = folder / FILE
    try:
        if path.is_file():
            table = pyarrow.parquet.read_table(path)
        elif (folder / OLD_FILE).is_file():
            path = folder / OLD_FILE
            table = _table(_old_columns(path))
        else:
            return None
        if missing := [name for name in TEXTS if name not in table.column_names]:
            raise StoreError(f"{path}: has no column '{missing[0]}'; run it again")
    except (OSError, pyarrow.ArrowException) as error:
        raise StoreError(f"cannot read {path}: {error}; run it again") from error
    return Replies(table)


def write_replies(
    folder: Path,
    examples: Sequence[Example],
    replies: Sequence[str],
    scores: Mapping[str, Sequence[float]],
    texts: bool,
) -> None:
    """Write a run's examples, N; `texts`: with those of prompts and references, else with their hashes alone."""
    prompts = [example.prompt for example in examples]
    columns: dict[str, Sequence[Any]] = {
        "id": [prompt.id for prompt in prompts],
        "persona": [prompt.persona for prompt in prompts],
        "prompt_hash": [_prompt_hash(prompt.messages) for prompt in prompts],
        "reference_hash": [canonical_hash(example.reference)[:16] for example in examples],
        "reply": replies,
    }
    if texts:
        columns["prompt"] = ["\n".join(f"{m.role}: {m.text}" for m in prompt.messages) for prompt in prompts]
        columns["reference"] = [example.reference for example in examples]
    _write(folder, columns, scores)


def write_scores(folder: Path, ids: Sequence[str], personas: Sequence[str], scores: Mapping[str, Any]) -> None:
    """Write scores that were made elsewhere, N: nothing is known of prompts, references and replies."""
    _write(folder, {"id": ids, "persona": personas}, scores)


def _write(folder: Path, columns: Mapping[str, Sequence[Any]], scores: Mapping[str, Sequence[float]]) -> None:
    import pyarrow.parquet

    table = _table({**columns, **{_SCORE + name: values for name, values in scores.items()}})
    pyarrow.parquet.write_table(table, folder / FILE, compression="zstd")


def _table(columns: Mapping[str, Sequence[Any]]) -> pyarrow.Table:
    """TEXTS as columns of text, all null where they are not given, and the rest as numbers."""
    import pyarrow

    size = len(columns["id"])
    arrays = {name: pyarrow.array(map(_utf8, columns.get(name, [None] * size)), pyarrow.string()) for name in TEXTS}
    for name, values in columns.items():
        if name not in TEXTS:
            arrays[name] = pyarrow.array(values, pyarrow.float64(), from_pandas=True)  # nan becomes null
    return pyarrow.table(arrays)


def _utf8(text: str | None) -> str | None:
    """Half surrogates, which a method may reply, as question marks: no file can hold them."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _old_columns(path: Path) -> dict[str, list[Any]]:
    """The lines of a scores.jsonl as columns. Raises StoreError naming file and line."""
    lines = list(_old_lines(path))
    names = {name: None for line in lines for name in line}  # in the order of the file
    found: dict[str, list[Any]] = {"id": []}
    for old in names:
        new = _OLD_NAMES.get(old, old)
        found[new if new in TEXTS else _SCORE + old] = [line.get(old) for line in lines]
    return found


def _old_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
                _ = line["id"], line["persona"]
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{path}:{number}: not a line of scores ({error!r}); run it again") from error
            yield line
