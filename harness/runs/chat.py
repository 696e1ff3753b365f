"""A talk with the models of stored runs: the prompt is built and answered as in the run, from the run's folder alone.

None of the method's code runs here. What is read from the terminal and written to it is the command's business.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness.adapters import load_bank, saved_below
from harness.contract import Dataset, Message, Prompt, Protocol, load_benchmark
from harness.engines import Adapters, Fitted, Transcript
from harness.errors import HarnessError, StoreError, did_you_mean
from harness.model import Backbone, set_repeatable, split_examples
from harness.progress import Progress
from harness.runs.export import check_personas
from harness.runs.loading import ADAPTERS, Note, check_adapters, load_as_run, merged_below, settings_of
from harness.runs.record import RunRecord
from harness.runs.replies import Reply
from harness.runs.serving import read_served
from harness.runs.stored import StoredRun, all_runs, find_run, run_names
from harness.store import file_digest

Files = Sequence[str | Path]  # loose plugin files


@dataclass(frozen=True)
class Answer:
    """A reply, and whether old turns were left out of its prompt."""

    reply: str
    cut: bool


@dataclass(frozen=True)
class Scene:
    """How a dialogue of the run begins.

    dialogue  id of the test dialogue;  messages: of its first prompt that the run answered
    reply     what the run answered
    """

    dialogue: str
    messages: tuple[Message, ...]
    reply: str | None

    @property
    def system(self) -> tuple[Message, ...]:
        """The system message, or nothing."""
        return self.messages[:1] if self.messages[0].role == "system" else ()


@dataclass(frozen=True, eq=False)
class Speaker:
    """The model of a stored run, as it answers one persona."""

    run: StoredRun
    persona: str
    scene: Scene
    fitted: Fitted
    transcript: Transcript = field(repr=False)

    def answer(self, messages: Sequence[Message]) -> Answer:
        """The reply to these messages by the run's protocol. Raises HarnessError for a turn that is too long."""
        set_repeatable(int(settings_of(self.run).get("threads") or 2))
        depth = sum(message.role == "assistant" for message in messages)
        prompt = Prompt(f"chat#{depth}", self.persona, depth, tuple(messages))
        (asked,) = self.transcript.ask(self.fitted, [prompt])
        (reply,) = self.transcript.generate(self.fitted, [prompt])
        self.transcript.clear()
        return Answer(reply, asked.cut)

    def difference(self) -> str:
        """In one line, that the stored reply to the scene's prompt is not what this model says; empty: it is."""
        if self.scene.reply in (None, self.answer(self.scene.messages).reply):
            return ""
        return (
            f"this model does not repeat the reply of {self.run.id} in '{self.scene.dialogue}': the method replied "
            "with code of its own, or this machine rounds differently"
        )


@dataclass(frozen=True, eq=False)
class Side:
    """A stored run that can be talked with. top: its backbone, with all merged into it that its adapters stand on."""

    run: StoredRun
    top: Backbone
    files: Files

    def speaker(self, persona: str, dialogue: str | None = None) -> Speaker:
        """Who answers a persona, as in the test dialogue of that id; None: as in the persona's first one.

        Raises HarnessError for a persona or a dialogue that the run does not have, or that another model answers.
        """
        key = _key_of(self.run, persona)
        scene = read_scene(self.run, persona, dialogue, self.files)
        folder = self.run.path / ADAPTERS
        if key is None:
            fitted = Fitted.of(Adapters(self.top))
        else:
            keys = _keys_read(self.run, key)
            check_adapters(self.run, keys)
            bank = load_bank(folder, self.top, keys)
            fitted = Fitted.of(Adapters(self.top, bank, folder), {persona: key})
        return Speaker(self.run, persona, scene, fitted, Transcript(_protocol(self.run), Progress("silent")))


class Talk:
    """One dialogue with one or more speakers; each has its own replies in its history."""

    def __init__(self, speakers: Sequence[Speaker]) -> None:
        self.speakers = tuple(speakers)
        self.turns = 0
        self._histories = [speaker.scene.system for speaker in speakers]

    def say(self, text: str) -> list[Answer]:
        """What each speaker answers. A turn that raises HarnessError leaves the dialogue as it was."""
        asked = [(*history, Message("user", text)) for history in self._histories]
        answers = [speaker.answer(messages) for speaker, messages in zip(self.speakers, asked, strict=True)]
        self._histories = [
            (*messages, Message("assistant", answer.reply)) for messages, answer in zip(asked, answers, strict=True)
        ]
        self.turns += 1
        return answers


# ---- opening ----


def open_sides(
    runs: Sequence[StoredRun],
    persona: str,
    note: Note,
    backbone: str | None = None,
    device: str | None = None,
    files: Files = (),
) -> list[Side]:
    """Load the models of stored runs; runs with the same settings share a backbone.

    persona   who will be talked as first: that nobody knows it is found before anything is loaded
    backbone, device   where the backbone lies and is computed now; None: as the runs were told
    files     loose plugin files, in which a benchmark may lie
    Raises HarnessError for a run that cannot be talked with, and for another backbone; StoreError for damage.
    """
    for run in runs:
        _check(run)
        if (key := _key_of(run, persona)) is not None:
            check_adapters(run, _keys_read(run, key))
    loaded: dict[str, Backbone] = {}
    sides = []
    for run in runs:
        told = settings_of(run)
        names = ("backbone", "dtype", "engine", "attn_implementation", "load_in", "chat_template", "device")
        # What a name leads to may have changed between two runs: each is loaded as its own, and refused if it is not.
        same = json.dumps([run.record.hashes.get("backbone"), *(str(told.get(name)) for name in names)])
        if same not in loaded:
            loaded[same] = load_as_run(run, backbone, device, note)
        sides.append(Side(run, merged_below(run.path / ADAPTERS, loaded[same])[1], files))
    return sides


def find_beside(root: Path, run: StoredRun, name: str) -> StoredRun:
    """The stored run that a name means beside another: an id, the beginning of one, or a method.

    Of several runs of a method that one is meant which is most like the other run, or which it stands on.
    Raises StoreError for none or several.
    """
    runs = [one for one in all_runs(root) if one.id != run.id]
    found = [one for one in runs if one.head.method == name and one.complete and not one.head.config.control]
    known = run_names(root)
    if not found or name in known:
        if not any(name and run_id.startswith(name) for run_id in known):
            names = {*known, *(one.head.method for one in runs if one.complete)}
            raise StoreError(f"--beside {name}: no run and no method in {root}; {did_you_mean(name, names)}")
        return find_run(root, name)
    for alike in (*map(_same_hash, ("backbone", "protocol", "split", "examples")), _same_seed, _stands_on):
        if len(found) == 1:  # the last question reads whole files of adapters
            break
        found = [one for one in found if alike(run, one)] or found
    if len(found) > 1:
        raise StoreError(f"--beside {name}: {len(found)} runs fit {run.id}; name one: {', '.join(r.id for r in found)}")
    return find_run(root, found[0].id)


def _same_hash(name: str) -> Callable[[StoredRun, StoredRun], bool]:
    return lambda one, other: one.head.hashes.get(name) == other.head.hashes.get(name)


def _same_seed(one: StoredRun, other: StoredRun) -> bool:
    return one.head.seed == other.head.seed


def _stands_on(run: StoredRun, other: StoredRun) -> bool:
    """Whether the other run's adapters are among those below the run's own."""
    own = _digests(other.path / ADAPTERS)
    return bool(own) and any(_digests(folder) == own for folder in saved_below(run.path / ADAPTERS))


def _digests(folder: Path) -> list[str]:
    return [file_digest(path) for path in sorted(folder.glob("*.safetensors"))]


def _check(run: StoredRun) -> None:
    """Raises HarnessError for a run whose model cannot be had from its folder."""
    record = run.record
    if not run.complete:
        raise HarnessError(f"{run.id} is {record.status} and has no model to talk with; run it again")
    if record.imported:
        raise HarnessError(f"{run.id} was imported: there are scores, and no model to talk with")
    instead = _instead(record)
    if record.adds_text:
        raise HarnessError(
            f"'{record.method}' adds text to prompts; that needs its own code, not only the stored run{instead}"
        )
    if not _is_bare(run) and not (run.path / ADAPTERS).is_dir():
        raise HarnessError(f"{run.id} has no adapters: '{record.method}' trains none of its own{instead}")
    if fault := run.damage(adapters=False):
        raise StoreError(f"{fault}; {run.mend}")


def _instead(record: RunRecord) -> str:
    """What can be talked with in place of a run that stands on others."""
    names = " or ".join(f"'{name}'" for name in record.requires)
    return f"; talk with a run of {names}" if names else ""


def _is_bare(run: StoredRun) -> bool:
    """Whether the backbone itself answers everybody: no adapters are stored, and the run stands on nothing."""
    record = run.record
    bare = record.base in (None, record.hashes.get("backbone")) and not record.requires
    return bare and not (record.cost and record.cost.adapters) and not (run.path / ADAPTERS).is_dir()


def _key_of(run: StoredRun, persona: str) -> str | None:
    """Key of the adapter that answers a persona; None: the bare backbone does. Raises HarnessError."""
    record = run.record
    unseen = record.unseen.per_persona.personas if record.unseen and record.unseen.per_persona else ()
    served: Mapping[str, str] = {} if _is_bare(run) else read_served(run.path)
    check_personas(run, [persona], {*served, *record.sums.personas, *unseen})
    if _is_bare(run):
        return None
    if persona not in served:
        raise HarnessError(
            f"'{persona}' is served by the base of {run.id}, not by one of its adapters{_instead(record)}"
        )
    return served[persona]


def _keys_read(run: StoredRun, key: str) -> list[str] | None:
    """The adapters that are read, of which there may be a million: the persona's own, and another one.

    A bank of a single LoRA is merged into the weights, which rounds differently: two stand for many. None: all.
    """
    other = min({*read_served(run.path).values()} - {key}, default=None)
    return None if other is None else [key, other]


@functools.cache
def _protocols() -> TypeAdapter[Protocol]:
    return TypeAdapter(Protocol)


def dataset_of(run: StoredRun, files: Files = ()) -> Dataset:
    """The data of a run from its benchmark as it is now, with the run's protocol.

    Raises pydantic's ValidationError where the benchmark does not take the run's options any more.
    """
    benchmark = load_benchmark(run.record.config.benchmark, files)
    options = TypeAdapter(benchmark.card.options).validate_python(run.record.benchmark.options)
    return replace(benchmark.load(options), protocol=_protocol(run))


def _protocol(run: StoredRun) -> Protocol:
    """The protocol of a run. Raises StoreError for one that this harness does not know."""
    try:
        return _protocols().validate_python(dict(run.record.protocol))
    except ValidationError as error:
        raise StoreError(f"{run.id} has a protocol that this harness does not know; run it again") from error


# ---- the first prompt of a dialogue ----


def read_scene(run: StoredRun, persona: str, dialogue: str | None, files: Files = ()) -> Scene:
    """How a test dialogue of the persona begins: the one of that id, or the first one.

    The text comes from the run's own replies. Where those have no texts, it comes from the benchmark. Either way its
    digest is that of the prompt which the run answered. Raises HarnessError for a dialogue that the run does not have.
    """
    replies = run.replies()
    owners, ids = (replies.column("persona"), replies.column("id")) if replies else ([], [])
    names = [name.rpartition("#")[0] for name in ids]
    own = [place for place, owner in enumerate(owners) if owner == persona]
    if replies is None or not own:
        raise HarnessError(f"{run.id} has no prompts of '{persona}', so the start of a dialogue is unknown")
    wanted = [place for place in own if dialogue in (None, names[place])]
    if not wanted:
        known = did_you_mean(str(dialogue), [names[place] for place in own])
        raise HarnessError(f"{run.id} has no test dialogue '{dialogue}' of '{persona}'; {known}")
    (asked,) = replies.rows(wanted[:1])
    messages = asked.messages() or _of_benchmark(run, asked, files)
    return Scene(names[wanted[0]], messages, asked.reply)


def _of_benchmark(run: StoredRun, asked: Reply, files: Files) -> tuple[Message, ...]:
    """The messages of a prompt from the run's benchmark. Raises HarnessError where its data are other ones now."""
    name = run.record.config.benchmark
    why = f"{run.id} keeps no texts of its prompts, and '{name}'"
    try:
        dataset = dataset_of(run, files)
    except ValidationError as error:
        raise HarnessError(f"{why} does not take the run's options any more; run it again with --texts") from error
    for example in split_examples(dataset, "test"):
        if example.prompt.id == asked.id and asked.answers(example.prompt.messages):
            return example.prompt.messages
    raise HarnessError(f"{why} does not have the run's prompts any more; run it again with --texts")
