"""Benchmark `jsonl`: a user's own data, one prompt with its reply or one dialogue per line.

{"persona_id", "prompt", "reply"} or {"persona_id", "messages": [{"role", "text"}]}, with "description", "context",
"dialogue_idx", "item", "split" where there are any; fields may be called otherwise. Reading lines in general is
`benchmarks.reading`, items that people share are `benchmarks.answers`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from harness import (
    SPLITS,
    BenchmarkCard,
    ConfigError,
    DataError,
    Dataset,
    Dialogue,
    Message,
    Persona,
    Protocol,
    did_you_mean,
    hookimpl,
)
from harness.contract import CORE_METRICS, Split, user_path
from harness.scoring import expand_metrics, metric_named

from .answers import items_by_split, items_fact, left_out
from .choices import Count, Some, as_numbers, parse_choices
from .reading import (
    Faults,
    read_choice,
    read_context,
    read_messages,
    read_objects,
    read_parts,
    read_text,
    shuffled,
    split_names,
)
from .yardsticks import choice_yardsticks, rating_yardsticks, text_yardsticks


@dataclass(frozen=True, slots=True)
class Fields:
    """What the fields of a line are called in the file."""

    persona_id: str = "persona_id"
    prompt: str = "prompt"
    reply: str = "reply"
    messages: str = "messages"
    description: str = "description"
    context: str = "context"
    dialogue_idx: str = "dialogue_idx"
    item: str = "item"
    split: str = "split"


@dataclass(frozen=True, slots=True)
class JsonlOptions:
    """Options of the benchmark.

    data               the file
    fields             names of the fields where they differ, e.g. fields.prompt=question
    choices            closed set of replies: "1..5", "yes,no" or a list; empty means free text
    split              auto: as given where every line has a split, else order; order: each person's lines in file
                       order; given: by the field; item: different items train and test, for everybody the same ones;
                       persona: different people train and test
    splits             train/validation/test, as counts (30/10/10) or shares (.6/.2/.2); counts that are not
                       what a person has are taken as proportions
    split_seed         which people or items test, for `split: persona` and `item`
    at_least           a person with fewer lines is left out and named; 0: nobody is (without train lines a person is
                       served by what is shared)
    metrics            the first decides; default: mae, accuracy, nll for numbers to choose from; accuracy,
                       nll for other choices; similarity for free text. Also: macro_f1, rmse, rouge_1, rouge_l
    profile            show the person's description in the system message
    system             text that opens every system message
    turns              score all replies of the test dialogues, or the last of each
    max_new_tokens     longest reply in free text
    max_prompt_tokens  longer prompts lose their oldest turns
    limit_personas     only the first so many persons of the file
    """

    data: str = ""
    fields: Fields = Fields()
    choices: str | tuple[str, ...] = ()
    split: Literal["auto", "order", "given", "item", "persona"] = "auto"
    splits: str = ".6/.2/.2"
    split_seed: int = 0
    at_least: Count = 0
    metrics: tuple[str, ...] = ()
    profile: bool = False
    system: str = ""
    turns: Literal["all", "last"] = "all"
    max_new_tokens: Some = 64
    max_prompt_tokens: Some = 1024
    limit_personas: Some | None = None


@hookimpl
def card() -> BenchmarkCard:
    return BenchmarkCard("your own data: a JSON line per prompt and reply, or per dialogue", JsonlOptions)


@hookimpl
def load(options: JsonlOptions) -> Dataset:
    choices = parse_choices(options.choices)
    parts = read_parts(options.splits)
    chosen = _metrics(options.metrics, choices)
    if not options.data:
        raise ConfigError("the benchmark needs a file: --set data=FILE")
    path = user_path(options.data)
    personas, lines = _read(path, choices, options)
    personas, lines, few = _enough(path, personas, lines, options.at_least)
    split = _how(path, lines, options.split)
    dialogues = _split(lines, [persona.id for persona in personas], options, split, parts)
    _check_splits(path, dialogues, split)
    sizes = Counter(dialogue.split for dialogue in dialogues)
    how = {
        "order": "by file order within the persona",
        "given": "as given",
        "item": f"by item, seed {options.split_seed}",
        "persona": f"by persona, shuffled with seed {options.split_seed}",
    }
    yardsticks = text_yardsticks
    if choices:
        yardsticks = rating_yardsticks if as_numbers(choices) else choice_yardsticks
    return Dataset(
        name=path.stem,
        personas=personas,
        dialogues=dialogues,
        protocol=Protocol(
            system=options.system,
            profile=options.profile,
            turns=options.turns,
            max_new_tokens=options.max_new_tokens,
            max_prompt_tokens=options.max_prompt_tokens,
            choices=choices,
            decision="median" if as_numbers(choices) else "mode",
        ),
        metrics=chosen,
        yardsticks=yardsticks,
        facts={
            "data": path.name,
            "split": how[split],
            "dialogues": "/".join(str(sizes[name]) for name in SPLITS),
            **({"items": items_fact(dialogues)} if all(line.item for line in lines) else {}),
            **left_out(few, len(few) + len(personas), f"fewer than {options.at_least} lines"),
        },
    )


@dataclass(frozen=True, slots=True)
class _Line:
    id: str
    persona: str
    messages: tuple[Message, ...]
    context: tuple[tuple[str, str], ...]
    item: str = ""
    split: Split | None = None


def _read(path: Path, choices: tuple[str, ...], options: JsonlOptions) -> tuple[tuple[Persona, ...], list[_Line]]:
    faults = Faults()
    descriptions: dict[str, tuple[int, str]] = {}  # persona -> first line with a description, that text
    order: dict[str, int] = {}  # persona -> lines so far, in order of appearance
    seen: dict[str, int] = {}  # dialogue id -> line
    lines: list[_Line] = []
    for number, given_item in read_objects(path, faults):
        item = _renamed(given_item, options.fields)
        try:
            person = read_text(_field(item, "persona_id"), "persona_id")
            messages = _messages(item, choices)
            context = read_context(item.get("context"), "context")
            place = order.get(person, 0)
            given = item.get("dialogue_idx")
            name = f"{person}/{place if given is None else read_text(given, 'dialogue_idx')}"
            if name in seen:
                raise ValueError(f"dialogue '{name}' is already on line {seen[name]}")
            description = read_text(item.get("description") or "", "description", empty=True)
            known = descriptions.setdefault(person, (number, description)) if description else None
            if known is not None and known[1] != description:
                raise ValueError(f"another description of '{person}' than on line {known[0]}")
            shared = read_text(item["item"], "item") if item.get("item") is not None else ""
            split = item.get("split")
            if split is not None and split not in SPLITS:
                raise ValueError(f"'split' is {split!r}; {did_you_mean(str(split), SPLITS)}")
        except ValueError as error:
            faults.add(path, number, str(error))
            continue
        order[person] = place + 1
        seen[name] = number
        lines.append(_Line(name, person, messages, context, shared, split))
    faults.stop_if_any()
    people = list(order)[: options.limit_personas]
    personas = tuple(Persona(person, descriptions.get(person, (0, ""))[1]) for person in people)
    kept = set(people)
    return personas, [line for line in lines if line.persona in kept]


def _renamed(item: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """The line with the fields' own names; what has the own name of a field that is called otherwise is left out."""
    names = {getattr(fields, one.name): one.name for one in dataclasses.fields(fields)}
    taken = set(names.values()) - set(names)
    return {names.get(name, name): value for name, value in item.items() if name not in taken}


def _enough(
    path: Path, personas: tuple[Persona, ...], lines: list[_Line], least: int
) -> tuple[tuple[Persona, ...], list[_Line], list[str]]:
    """Those with enough lines, and the ids of the others."""
    counts = Counter(line.persona for line in lines)
    few = [persona.id for persona in personas if counts[persona.id] < least]
    if len(few) == len(personas):
        raise DataError(f"{path}: no person has {least} lines; lower at_least")
    out = set(few)
    kept = tuple(persona for persona in personas if persona.id not in out)
    return kept, [line for line in lines if line.persona not in out], few


def _how(path: Path, lines: list[_Line], split: str) -> str:
    """What `auto` stands for; DataError where the lines lack what a split needs."""
    if split == "auto":
        return "given" if all(line.split for line in lines) else "order"
    for name in ("split", "item") if split in ("given", "item") else ():
        if split == ("given" if name == "split" else name) and not all(getattr(line, name) for line in lines):
            raise DataError(f"{path}: split={split} needs a field '{name}' in every line")
    return split


def _messages(item: dict[str, Any], choices: tuple[str, ...]) -> tuple[Message, ...]:
    if "messages" in item:
        if "prompt" in item or "reply" in item:
            raise ValueError("has both 'messages' and 'prompt' or 'reply'; a line is one or the other")
        messages = read_messages(item["messages"])
    else:
        if "prompt" not in item and "reply" not in item:
            raise ValueError(f"needs 'prompt' and 'reply', or 'messages'; it has {sorted(item)}")
        messages = (
            Message("user", read_text(_field(item, "prompt"), "prompt")),
            Message("assistant", read_text(_field(item, "reply"), "reply")),
        )
    if not choices:
        return messages
    return tuple(
        Message(message.role, read_choice(message.text, choices)) if message.role == "assistant" else message
        for message in messages
    )


def _field(item: dict[str, Any], name: str) -> Any:
    if name in item:
        return item[name]
    raise ValueError(f"no '{name}' (it has {', '.join(map(repr, sorted(item))) or 'nothing'})")


def _split(
    lines: list[_Line], people: list[str], options: JsonlOptions, how: str, parts: tuple[float, float, float]
) -> tuple[Dialogue, ...]:
    splits: list[Split]
    if how == "given":
        splits = [line.split or "train" for line in lines]
    elif how == "item":
        of_item = items_by_split((line.item for line in lines), parts, options.split_seed)
        splits = [of_item[line.item] for line in lines]
    elif how == "persona":
        order = shuffled(people, options.split_seed)
        of_person = dict(zip(order, split_names(len(order), parts), strict=True))
        splits = [of_person[line.persona] for line in lines]
    else:
        sizes = Counter(line.persona for line in lines)
        queues = {person: iter(split_names(sizes[person], parts)) for person in people}
        splits = [next(queues[line.persona]) for line in lines]
    return tuple(
        Dialogue(line.id, line.persona, split, line.messages, line.context, line.item)
        for line, split in zip(lines, splits, strict=True)
    )


def _check_splits(path: Path, dialogues: tuple[Dialogue, ...], split: str) -> None:
    for name in SPLITS:
        there = [dialogue for dialogue in dialogues if dialogue.split == name]
        if not there:
            hint = {"persona": "too few people", "item": "too few items", "given": "no line is given to it"}.get(
                split, "no person has three lines; to test on other people than those trained on: split=persona"
            )
            raise DataError(f"{path}: nothing is left for {name} ({len(dialogues)} lines): {hint}")
        if not any(_answers(dialogue) for dialogue in there):
            raise DataError(f"{path}: no assistant message answers a user in the {len(there)} lines for {name}")


def _answers(dialogue: Dialogue) -> bool:
    roles = [message.role for message in dialogue.messages]
    return ("user", "assistant") in pairwise(roles)


def _metrics(names: tuple[str, ...], choices: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        if not choices:
            return ("similarity",)
        return ("mae", "accuracy", "nll") if as_numbers(choices) else ("accuracy", "nll")
    chosen = expand_metrics(names)
    for name in chosen:
        if "schema" in metric_named(name).needs:
            raise ConfigError(
                f"metric '{name}' needs a schema, and this benchmark has none; {did_you_mean(name, CORE_METRICS)}"
            )
        if name in ("mae", "rmse") and not as_numbers(choices):
            raise ConfigError(f"metric '{name}' needs numbers to choose from, such as --set choices=1..5")
        if "choices" in metric_named(name).needs and not choices:
            raise ConfigError(f"metric '{name}' needs a closed set of replies, such as --set choices=yes,no")
    return chosen
