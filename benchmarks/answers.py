"""What people answered to items that they share: who takes part, and a split in which no test item was trained on.

Benchmarks of real people read their files into `Answer`s; the rules that follow are the same for all of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import SPLITS, ConfigError, DataError, Dataset, Dialogue, Message, Persona, Protocol
from harness.contract import Split, user_path

from .choices import Count, Some
from .reading import Faults, cut, read_choice, read_objects, read_parts, read_text, shuffled, split_names
from .yardsticks import rating_yardsticks

SCALE = ("1", "2", "3", "4", "5")
NAMED = 5  # people in a fact; a row of a leaderboard is no place for a list of hundreds


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply of one person to one item. `split`: where it belongs; None: the rule decides."""

    persona: str
    item: str
    prompt: str
    reply: str
    description: str = ""
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class PeopleOptions:
    """Who takes part, and how answers are split.

    data       file or folder, see the benchmark's page in docs; empty: fetched from the public source, and kept
    sha256     of what is fetched; empty: whatever comes, whose hash is then told
    people     so many of those who qualify, drawn by `split_seed`; None: all
    at_least   answers that a person must have; whoever has fewer, or none in one of the splits, is left out and named
    most       answers of a person that are used, the first of each split in file order; None: all
    splits     train/validation/test: the items are split in this proportion, so that no test item is trained on by
               anybody; a person's `most` answers too. Answers that say where they belong stay there
    split_seed of who takes part and which item is in which split
    profile    show the person's description in the system message
    """

    data: str = ""
    sha256: str = ""
    people: Some | None = None
    at_least: Count = 20
    most: Some | None = None
    splits: str = "30/10/10"
    split_seed: int = 0
    profile: bool = False


@dataclass(frozen=True, slots=True)
class People:
    """What a data set of people consists of; `facts` say what was done."""

    personas: tuple[Persona, ...]
    dialogues: tuple[Dialogue, ...]
    facts: Mapping[str, str]


def read_answers(path: Path, choices: Sequence[str] = ()) -> list[Answer]:
    """Answers from JSON lines {"persona_id", "prompt", "reply", "item"?, "split"?, "description"?}.

    Without "item" the prompt is the item. Raises DataError with file and line for every fault.
    """
    faults, found = Faults(), []
    for number, line in read_objects(path, faults):
        try:
            texts = {name: read_text(line.get(name), name) for name in ("persona_id", "prompt", "reply")}
            split = line.get("split")
            if split is not None and split not in SPLITS:
                raise ValueError(f"'split' is {split!r}; it should be one of {', '.join(SPLITS)}")
            found.append(
                Answer(
                    texts["persona_id"],
                    read_text(line["item"], "item") if "item" in line else item_of(texts["prompt"]),
                    texts["prompt"],
                    read_choice(texts["reply"], choices) if choices else texts["reply"],
                    read_text(line.get("description") or "", "description", empty=True),
                    split,
                )
            )
        except ValueError as error:
            faults.add(path, number, str(error))
    faults.stop_if_any()
    return found


def item_of(text: str) -> str:
    """A name for an item that has none: it follows from its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def items_by_split(items: Iterable[str], parts: Sequence[float], seed: int) -> dict[str, Split]:
    """Item -> its split, for everybody the same."""
    mixed = shuffled(sorted(set(items)), seed)
    return dict(zip(mixed, split_names(len(mixed), parts), strict=True))


def people_of(answers: Sequence[Answer], options: PeopleOptions, where: str) -> People:
    """The people who take part, and their answers as dialogues of one turn.

    Raises ConfigError for options that make no sense; DataError where nobody is left, naming `where`.
    """
    if options.people is not None and options.people < 1:
        raise ConfigError(f"people={options.people} should be 1 or more")
    parts = read_parts(options.splits)
    given = {answer.split is not None for answer in answers}
    if given == {True, False}:
        raise DataError(f"{where}: some answers say in which split they are and some do not; give it to all or to none")
    rule = items_by_split((answer.item for answer in answers), parts, options.split_seed)
    room: dict[Split, int] = {}  # of a person in a split; a split that is not named has no limit
    if options.most is not None:
        room = dict(zip(SPLITS, cut(options.most, parts), strict=True))
    kept: dict[str, list[tuple[Split, Answer]]] = {}
    counts: Counter[tuple[str, Split]] = Counter()
    for answer in answers:
        split = answer.split or rule[answer.item]
        own = kept.setdefault(answer.persona, [])
        if split not in room or counts[answer.persona, split] < room[split]:
            counts[answer.persona, split] += 1
            own.append((split, answer))
    least = max(options.at_least, 1)
    few = [p for p in kept if len(kept[p]) < least or not all(counts[p, split] for split in SPLITS)]
    out = set(few)
    qualified = [person for person in kept if person not in out]
    if not qualified:
        raise DataError(
            f"{where}: none of {len(kept)} people has {least} answers, and one in each split; lower at_least"
        )
    drawn = set(shuffled(qualified, options.split_seed)[: options.people])
    people = [person for person in qualified if person in drawn]
    dialogues = [
        Dialogue(
            f"{person}/{number:03d}",
            person,
            split,
            (Message("user", answer.prompt), Message("assistant", answer.reply)),
            item=answer.item,
        )
        for person in people
        for number, (split, answer) in enumerate(kept[person])
    ]
    facts = {
        "people": f"{len(people)} of {len(qualified)} who qualify"
        if len(people) < len(qualified)
        else str(len(people)),
        "split": "as given" if any(given) else f"by item, {options.splits}, seed {options.split_seed}",
        "items": items_fact(dialogues),
        **left_out(few, len(kept), f"fewer than {least} answers, or none in a split"),
    }
    described = {answer.persona: answer.description for answer in answers}
    return People(tuple(Persona(p, described[p]) for p in people), tuple(dialogues), facts)


def rating_dataset(name: str, system: str, data: str, answers: Sequence[Answer], options: PeopleOptions) -> Dataset:
    """A benchmark whose replies are steps of `SCALE`: absolute error decides."""
    people = people_of(answers, options, data)
    return Dataset(
        name=name,
        personas=people.personas,
        dialogues=people.dialogues,
        protocol=Protocol(system=system, profile=options.profile, max_new_tokens=4, choices=SCALE, decision="median"),
        metrics=("mae", "accuracy", "macro_f1", "rmse", "nll"),
        yardsticks=rating_yardsticks,
        facts={"data": Path(data).name, **people.facts},
    )


def items_fact(dialogues: Iterable[Dialogue]) -> str:
    """The word disjoint if no item of the test is in anybody's train or validation dialogues; else how many are."""
    of: dict[str, set[str]] = {name: set() for name in SPLITS}
    for dialogue in dialogues:
        of[dialogue.split].add(dialogue.item)
    seen = of["test"] & (of["train"] | of["validation"])
    return f"{len(seen)} of {len(of['test'])} test items were trained on" if seen else "disjoint"


def left_out(people: Sequence[str], among: int, why: str) -> dict[str, str]:
    """The fact that names people with too little data; none without any."""
    if not people:
        return {}
    names = ", ".join([*people[:NAMED], *(["..."] if len(people) > NAMED else [])])
    return {"left out": f"{len(people)} of {among} with {why}: {names}"}


def answers_from(data: str, originals: Callable[[Path], list[Answer]], choices: Sequence[str] = ()) -> list[Answer]:
    """Answers from a sample in JSON lines, or from the original release by `originals`."""
    path = user_path(data)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return read_answers(path, choices) if path.suffix in (".jsonl", ".json") else originals(path)
