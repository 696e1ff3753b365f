"""Benchmark `edgewise`: EdgeWisePersona (Bartkowiak and Podstawski 2025), whole in its three files, or a sample of it.

`read_edgewise` and `write_edgewise` alone know the files; the simulated world uses them too.
characters.jsonl {"character"}, routines.jsonl {"routines"}, sessions.jsonl {"sessions": [{"session_id",
"meta", "messages", "applied_routines"}]}; line i of each is persona i. Optional: clusters.json {id: cluster}.
A sample is JSON lines {"persona_id", "dialogue_idx", "messages"}, few a person: other people test than train.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import (
    BenchmarkCard,
    DataError,
    Dataset,
    Dialogue,
    Message,
    Persona,
    Protocol,
    ReferenceScore,
    hookimpl,
)
from harness.contract import user_path
from harness.scoring import expand_metrics

from .choices import Some
from .devices import DEVICES
from .reading import (
    Faults,
    read_context,
    read_json,
    read_messages,
    read_objects,
    read_parts,
    read_text,
    shuffled,
    split_names,
)
from .yardsticks import text_yardsticks

HUB_NAME = "TCLResearchEurope/EdgeWisePersona"
FILES = ("characters.jsonl", "routines.jsonl", "sessions.jsonl")
PARTS = (30, 10, 10)  # dialogues of a persona for train, validation and test, in file order
Routines = Mapping[str, tuple[dict[str, Any], ...]]  # persona id -> {"triggers", "actions"} as in the file
REFERENCE = ReferenceScore(
    score=82.14,
    aggregation="micro",
    source="unified LoRA on EdgeWisePersona, 200 personas, Qwen2.5-0.5B-Instruct (published)",
    se=0.33,
    note="other prompts; its examples are those of the preset from_third_turn, 5936 replies",
)
PRESETS: dict[str, Literal["all", "from_third", "last"]] = {
    "all_turns": "all", "from_third_turn": "from_third", "last_turn": "last",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EdgewiseOptions:
    """Options of the benchmark.

    data            a folder with the three files, the data set's id on the Hub, or a sample (.jsonl)
    clusters        a file {id: cluster}, or with such a mapping under "cluster_map"; empty: clusters.json in the folder
    profile         show the persona's description in the system message
    preset          which assistant turns of the test dialogues are scored: all, as the published unified adapter was
                    scored (from the third turn on), or as the published persona LoRAs were (the last of each)
    splits, split_seed   of a sample: shares of the people who train, validate and test, and who that is
    max_new_tokens  longest reply
    limit_personas  only the first so many personas
    """

    data: str = HUB_NAME
    clusters: str = ""
    profile: bool = False
    preset: Literal["all_turns", "from_third_turn", "last_turn"] = "all_turns"
    splits: str = ".6/.2/.2"
    split_seed: int = 0
    max_new_tokens: Some = 64
    limit_personas: Some | None = None


@hookimpl
def card() -> BenchmarkCard:
    return BenchmarkCard(
        "EdgeWisePersona: smart-home dialogues of 200 personas, 50 each (give the folder: data=DIR)",
        EdgewiseOptions,
    )


@hookimpl
def load(options: EdgewiseOptions) -> Dataset:
    path = _folder(options.data)
    clusters = user_path(options.clusters) if options.clusters else None
    if path.is_file():
        personas, dialogues = _read_sample(path, clusters, options)
    else:
        personas, dialogues, _ = read_edgewise(path, clusters)
    personas = personas[: options.limit_personas]
    kept = {persona.id for persona in personas}
    return Dataset(
        name="edgewise",
        personas=personas,
        dialogues=tuple(dialogue for dialogue in dialogues if dialogue.persona in kept),
        protocol=Protocol(
            system="You are the assistant of a smart home.",
            profile=options.profile,
            turns=PRESETS[options.preset],
            max_new_tokens=options.max_new_tokens,
        ),
        metrics=expand_metrics(("similarity", "settings_exact", "actions", "exact_match", "nll")),
        reference=REFERENCE,
        schema=DEVICES,
        yardsticks=text_yardsticks,
        facts={
            "data": Path(options.data).name,
            "preset": options.preset,
            "split": f"by persona, {options.splits}, seed {options.split_seed}"
            if path.is_file()
            else "30/10/10 in file order",
        },
    )


def persona_id(index: int) -> str:
    """The id of the persona on line `index` (from 0) of the three files: persona_000, persona_001 ..."""
    return f"persona_{index:03d}"


def _read_sample(
    path: Path, clusters: Path | None, options: EdgewiseOptions
) -> tuple[tuple[Persona, ...], tuple[Dialogue, ...]]:
    """People of a sample, split by person. Raises DataError for every faulty line."""
    faults = Faults()
    found: dict[str, list[tuple[str, tuple[Message, ...]]]] = {}
    for number, item in read_objects(path, faults):
        try:
            person = read_text(_field(item, "persona_id"), "persona_id")
            own = found.setdefault(person, [])
            place = item.get("dialogue_idx")
            name = f"{person}/{len(own) if place is None else read_text(place, 'dialogue_idx')}"
            if name in (known for known, _ in own):
                raise ValueError(f"dialogue '{name}' is there already")
            own.append((name, read_messages(_field(item, "messages"), empty=True)))
        except ValueError as error:
            faults.add(path, number, str(error))
    faults.stop_if_any()
    people = shuffled(list(found), options.split_seed)
    split = dict(zip(people, split_names(len(people), read_parts(options.splits)), strict=True))
    labels = _read_clusters(clusters, list(found)) if clusters else {}
    return tuple(Persona(person, cluster=labels.get(person)) for person in found), tuple(
        Dialogue(name, person, split[person], messages) for person, own in found.items() for name, messages in own
    )


def read_edgewise(
    folder: str | Path, clusters_file: Path | None = None
) -> tuple[tuple[Persona, ...], tuple[Dialogue, ...], Routines]:
    """Personas, dialogues with their splits (30/10/10 in order, in proportion for other counts), routines.

    Dialogue ids are `<persona>/<position>`: the data set's own session ids need not be unique.

    Raises:
        DataError: a file is missing or malformed; up to ten faults with file and line.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it should hold {', '.join(FILES)}")
    faults = Faults()
    paths = [folder / name for name in FILES]
    characters, routines, sessions = (read_objects(path, faults) for path in paths)
    faults.stop_if_any()
    counts = [len(characters), len(routines), len(sessions)]
    if len(set(counts)) > 1:
        lines = ", ".join(f"{count} in {name}" for count, name in zip(counts, FILES, strict=True))
        raise DataError(f"{folder}: line i of each file is persona i, but the numbers of lines differ: {lines}")
    ids = [persona_id(i) for i in range(len(characters))]
    beside = folder / "clusters.json"
    clusters_file = clusters_file or (beside if beside.exists() else None)
    clusters = _read_clusters(clusters_file, ids) if clusters_file else {}

    personas = []
    for name, (line, item) in zip(ids, characters, strict=True):
        try:
            personas.append(Persona(name, read_text(_field(item, "character"), "character"), clusters.get(name)))
        except ValueError as error:
            faults.add(paths[0], line, str(error))
    found: dict[str, tuple[dict[str, Any], ...]] = {}
    for name, (line, item) in zip(ids, routines, strict=True):
        listed = item.get("routines")
        if isinstance(listed, list) and all(isinstance(routine, dict) for routine in listed):
            found[name] = tuple(listed)
        else:
            faults.add(paths[1], line, "'routines' should be a list of objects with 'triggers' and 'actions'")
    dialogues: list[Dialogue] = []
    for name, (line, item) in zip(ids, sessions, strict=True):
        listed = item.get("sessions")
        if not isinstance(listed, list) or not listed:
            faults.add(paths[2], line, "'sessions' should be a list of at least one session")
            continue
        for place, (split, session) in enumerate(zip(split_names(len(listed), PARTS), listed, strict=True)):
            try:
                if not isinstance(session, dict):
                    raise ValueError("should be an object")
                messages = read_messages(_field(session, "messages"), empty=True)
                context = read_context(session.get("meta"), "meta")
            except ValueError as error:
                faults.add(paths[2], line, f"session {place} (from 0): {error}")
            else:
                dialogues.append(Dialogue(_dialogue_id(name, place), name, split, messages, context))
    faults.stop_if_any()
    return tuple(personas), tuple(dialogues), found


def write_edgewise(
    folder: str | Path,
    personas: Sequence[Persona],
    dialogues: Sequence[Dialogue],
    routines: Routines,
    *,
    applied: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Write the three files (and clusters.json where personas have clusters), all of them or none.

    The files are read back before they are moved into place: what `read_edgewise` will return is exactly
    `personas`, `dialogues` and `routines`. So personas must be named by `persona_id`, dialogues
    `<persona>/<position>`, and split 30/10/10 in order.

    Args:
        folder: a new or empty folder.
        applied: dialogue id -> indices of the routines at work in it; written for others to use.

    Raises:
        DataError: the folder holds something, or the data would not read back the same.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not empty; choose another folder or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        by_persona: dict[str, list[Dialogue]] = {persona.id: [] for persona in personas}
        for dialogue in dialogues:
            by_persona.setdefault(dialogue.persona, []).append(dialogue)
        _write_lines(temporary / FILES[0], [{"character": persona.description} for persona in personas])
        _write_lines(temporary / FILES[1], [{"routines": list(routines.get(p.id, ()))} for p in personas])
        _write_lines(
            temporary / FILES[2],
            [{"sessions": _sessions(by_persona[persona.id], applied or {})} for persona in personas],
        )
        clusters = {persona.id: persona.cluster for persona in personas if persona.cluster is not None}
        if clusters:
            (temporary / "clusters.json").write_text(json.dumps(clusters, indent=0) + "\n", encoding="utf-8")
        again = read_edgewise(temporary)
        in_order = tuple(dialogue for persona in personas for dialogue in by_persona[persona.id])
        if again[0] != tuple(personas) or again[1] != in_order or len(in_order) != len(dialogues):
            raise DataError(
                f"{folder} was not written: the data would read back differently. Personas must be named "
                f"{persona_id(0)}, {persona_id(1)} ..., dialogues {_dialogue_id(persona_id(0), 0)} ..., "
                "and a persona's dialogues be split 30/10/10 in order"
            )
        temporary.chmod(0o755)
        temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _dialogue_id(persona: str, place: int) -> str:
    return f"{persona}/{place:02d}"


def _sessions(dialogues: Sequence[Dialogue], applied: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    return [
        {
            "session_id": place,
            "meta": dict(dialogue.context),
            "messages": [{"role": message.role, "text": message.text} for message in dialogue.messages],
            "applied_routines": list(applied.get(dialogue.id, ())),
        }
        for place, dialogue in enumerate(dialogues)
    ]


def _write_lines(path: Path, objects: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for item in objects:
            file.write(json.dumps(item, ensure_ascii=False) + "\n")


def _field(item: Mapping[str, Any], name: str) -> Any:
    if name not in item:
        raise ValueError(f"no '{name}', only {sorted(item) or 'nothing'}")
    return item[name]


def _read_clusters(path: Path, ids: Sequence[str]) -> dict[str, int]:
    if not path.exists():
        raise DataError(f"{path}: no such file of clusters")
    clusters = read_json(path)
    if isinstance(clusters, dict) and isinstance(clusters.get("cluster_map"), dict):
        clusters = clusters["cluster_map"]
    known = set(ids)
    sound = isinstance(clusters, dict) and all(type(value) is int for value in clusters.values())
    if not sound or not set(clusters) <= known:
        raise DataError(f"{path}: should be an object from persona ids ({ids[0]} to {ids[-1]}) to whole numbers")
    return clusters


def _folder(data: str) -> Path:
    path = user_path(data)
    if path.exists() or data != HUB_NAME:
        return path
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(HUB_NAME, repo_type="dataset", allow_patterns=list(FILES)))
    except Exception as error:  # the Hub client raises a dozen unrelated types for "no network"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the data set {HUB_NAME} cannot be fetched from the Hub ({reason[:200]}); "
            "download its three files and give their folder: --set data=DIR"
        ) from error
