"""What a worker is told before it begins, and what it tells of what it has learnt: plain data, as JSON.

No reference to a test reply is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from harness.contract import SCORER, Dialogue, Persona, Prompt, Protocol, user_path
from harness.engines import FitFacts
from harness.model import catalogue, embedded_names


@dataclass(frozen=True)
class BackboneJob:
    """How the frozen model is loaded, see `harness.model.load_backbone`; fingerprint: of the driver's."""

    name: str
    device: str
    dtype: str
    engine: str
    attention: str
    load_in: str | None
    chat_template: Path | None
    fingerprint: str

    @classmethod
    def of(cls, loading: Mapping[str, Any], fingerprint: str) -> BackboneJob:
        """From the arguments of `load_backbone`; paths are made whole, for a process in another folder."""
        return cls(**in_full(loading), fingerprint=fingerprint)


@dataclass(frozen=True)
class Job:
    """One method over one data set.

    method, files   its name, and the loose plugin files that may be imported for it
    options         method -> options, of the method and of all that it stands on
    dialogues       train and validation
    scratch         folder that the worker may write to
    unfinished      folder of the checkpoints of these fits, which outlives the worker
    threads         of torch
    shard_people    so many adapters and people are computed together;  elsewhere: by the driver's executor
    """

    method: str
    files: tuple[str, ...]
    options: Mapping[str, Any]
    control: Literal["global", "swapped"] | None
    seed: int
    dataset: str
    personas: tuple[Persona, ...]
    dialogues: tuple[Dialogue, ...]
    protocol: Protocol
    scope: tuple[str, ...]
    backbone: BackboneJob
    scorer: str | None
    scratch: str
    unfinished: str
    threads: int
    shard_people: int
    elsewhere: bool


@dataclass(frozen=True)
class Place:
    """Adapters that answered: their folder below the scratch (None: none), and which of these is merged into the model
    below them (-1: none is)."""

    folder: str | None
    below: int


JOB = TypeAdapter(Job)
FACTS = TypeAdapter(FitFacts)
PROMPTS = TypeAdapter(tuple[Prompt, ...])
PLACES = TypeAdapter(tuple[Place, ...])
TEXTS = TypeAdapter(tuple[str, ...])
NOTES = TypeAdapter(dict[str, Any])
ENGINES = TypeAdapter(dict[str, str])


def in_full(loading: Mapping[str, Any]) -> dict[str, Any]:
    """How a backbone is loaded, as a process in another folder understands it."""
    name, template = str(loading["name"]), loading["chat_template"]
    name = name if name in {*embedded_names(), *catalogue()} else whole_path(name)
    return {**loading, "name": name, "chat_template": template and user_path(template).absolute()}


def whole_path(name: str) -> str:
    """A path in full; any other name as it is."""
    path = user_path(name)
    return str(path.absolute()) if name != SCORER and path.exists() else name


def inside(folder: Path, place: str) -> Path:
    """A path that a worker named, which must lie in its folder. Raises ValueError."""
    found = (folder / place).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise ValueError(place)
    return found
