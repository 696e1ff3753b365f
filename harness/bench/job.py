"""The work that all ways are given, as it lies on disk for the processes that are measured: data, shapes, base.

Making it (plugins, a fitted base) is in prepare; doing it is in the ways.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.contract import SoftPrompt, TrainOptions
from harness.model import Encoded

JOB, INITIAL, BASE, START = "job.json", "initial.safetensors", "base", "start.safetensors"
Data = Mapping[str, Sequence[Encoded]]


@dataclass(frozen=True)
class Job:
    """Adapters to be trained. Keys are personas; the folder holds everything.

    train, validation  key -> encoded dialogues
    initial            key -> [P, D], where every way begins
    start              [P, D], where the ways that stop early begin: one prompt fitted for everybody; None: `initial`
    """

    folder: Path
    keys: tuple[str, ...]
    train: Data
    validation: Data
    spec: SoftPrompt
    options: TrainOptions
    seed: int
    threads: int
    dtype: str
    device: str
    initial: Mapping[str, Tensor]
    start: Tensor | None = None

    @property
    def base(self) -> Path:
        """Folder of the frozen base, in the Hub's format."""
        return self.folder / BASE

    def only(self, keys: Sequence[str], epochs: int | None = None) -> Job:
        """The same for some of the personas, and perhaps for another number of epochs."""
        options = self.options if epochs is None else replace(self.options, epochs=epochs)
        return replace(self, keys=tuple(keys), options=options)

    def data(self, split: str) -> dict[str, list[Encoded]]:
        """The dialogues of this job's keys."""
        found = self.train if split == "train" else self.validation
        return {key: list(found[key]) for key in self.keys}

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        table = {
            "keys": self.keys, "seed": self.seed, "threads": self.threads, "dtype": self.dtype, "device": self.device,
            "spec": asdict(self.spec), "options": asdict(self.options),
            "train": _packed(self.train), "validation": _packed(self.validation),
        }  # fmt: skip
        save_file({key: tensor.contiguous() for key, tensor in self.initial.items()}, self.folder / INITIAL)
        if self.start is not None:
            save_file({"start": self.start.contiguous()}, self.folder / START)
        (self.folder / JOB).write_text(json.dumps(table), encoding="utf-8")  # last: with it the folder is complete

    @classmethod
    def read(cls, folder: Path) -> Job:
        table = json.loads((folder / JOB).read_text(encoding="utf-8"))
        start = load_file(folder / START)["start"] if (folder / START).exists() else None
        return cls(
            folder=folder,
            keys=tuple(table["keys"]),
            train=_unpacked(table["train"]),
            validation=_unpacked(table["validation"]),
            spec=SoftPrompt(**table["spec"]),
            options=TrainOptions(**table["options"]),
            initial=load_file(folder / INITIAL),
            start=start,
            **{name: table[name] for name in ("seed", "threads", "dtype", "device")},
        )


@dataclass(frozen=True)
class Asked:
    """Replies to be decoded with a bank of adapters, one adapter per prompt.

    bank     folder of the adapters in PEFT's format;  adapters: key -> its folder
    rows     key of the adapter of each prompt;  prompts: token ids;  places: of each prompt among all
    """

    folder: Path
    bank: Path
    adapters: Mapping[str, str]
    rows: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    places: tuple[int, ...]
    max_new_tokens: int
    stop_id: int
    threads: int
    dtype: str
    device: str

    @property
    def base(self) -> Path:
        return self.folder / BASE

    def first(self, count: int) -> Asked:
        """The same for evenly spread prompts, as many as `count`; personas and lengths are mixed as in the whole."""
        count = min(count, len(self.prompts))
        chosen = [i * len(self.prompts) // count for i in range(count)]
        some = {name: tuple(getattr(self, name)[i] for i in chosen) for name in ("rows", "prompts", "places")}
        return replace(self, **some)

    def write(self, name: str) -> None:
        table = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "folder"}
        (self.folder / name).write_text(json.dumps(table, default=str), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, name: str) -> Asked:
        table = json.loads((folder / name).read_text(encoding="utf-8"))
        table |= {
            "bank": Path(table["bank"]),
            "rows": tuple(table["rows"]),
            "places": tuple(table["places"]),
            "prompts": tuple(map(tuple, table["prompts"])),
        }
        return cls(folder=folder, **table)


def turn_examples(dialogue: Encoded) -> list[Encoded]:
    """One example per assistant turn, as the original study cut them: all before it is prompt, only it has labels."""
    made = []
    labels = dialogue.labels
    begin = None
    for place, label in enumerate((*labels, False)):
        if label and begin is None:
            begin = place
        elif not label and begin is not None:
            flags = (False,) * begin + (True,) * (place - begin)
            made.append(Encoded(dialogue.ids[:place], flags))
            begin = None
    return made


def padded(rows: Sequence[Encoded], pad: int, width: int | None = None) -> dict[str, Tensor]:
    """Rows as transformers takes them, padded on the right to the longest or to `width`; labels -100 elsewhere.

    Returns input_ids, attention_mask and labels, [B, T]. Rows longer than `width` keep their end.
    """
    longest = max(len(row) for row in rows) if width is None else width
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        tokens, flags = row.ids[-longest:], row.labels[-longest:]
        ids[i, : len(tokens)] = torch.tensor(tokens)
        mask[i, : len(tokens)] = 1
        labels[i, : len(tokens)] = torch.where(torch.tensor(flags), ids[i, : len(tokens)], -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _packed(data: Data) -> dict[str, Any]:
    return {key: [[row.ids, "".join("01"[flag] for flag in row.labels)] for row in rows] for key, rows in data.items()}


def _unpacked(table: Mapping[str, Any]) -> dict[str, list[Encoded]]:
    return {
        key: [Encoded(tuple(ids), tuple(flag == "1" for flag in flags)) for ids, flags in rows]
        for key, rows in table.items()
    }
