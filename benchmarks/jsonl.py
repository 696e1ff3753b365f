"""Benchmark `jsonl`: a user's own data, one prompt with its reply or one dialogue per line.

{"persona_id", "prompt", "reply", "description"?} or {"persona_id", "messages": [{"role", "text"}],
"dialogue_idx"?, "description"?, "context"?}. Reading and splitting lines in general is `benchmarks.reading`.
"""

from __future__ import annotations

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
from harness.contract import CORE_METRICS, Split
from harness.scoring import expand_metrics, metric_named

from .choices import as_numbers, parse_choices
from .reading import Faults, read_context, read_messages, read_objects, read_text, shuffled, split_names


@dataclass(frozen=True, slots=True)
class JsonlOptions:
    """Options of the benchmark.

    data               the file
    choices            closed set of replies: "1..5", "yes,no" or a list; empty means free text
    split              order: each person's lines in file order; persona: different people train and test
    splits             train/validation/test, as counts (30/10/10) or shares (.6/.2/.2); counts that are not
                       what a person has are taken as proportions
    split_seed         which people test, for `split: persona`
    metrics            the first decides; default: mae, accuracy, nll for numbers to choose from; accuracy,
                       nll for other choices; similarity for free text
    profile            show the person's description in the system message
    system             text that opens every system message
    turns              score all replies of the test dialogues, or the last of each
    max_new_tokens     longest reply in free text
    max_prompt_tokens  longer prompts lose their oldest turns
    limit_personas     only the first so many persons of the file
    """

    data: str = ""
    choices: str | tuple[str, ...] = ()
    split: Literal["order", "persona"] = "order"
    splits: str = ".6/.2/.2"
    split_seed: int = 0
    metrics: tuple[str, ...] = ()
    profile: bool = False
    system: str = ""
    turns: Literal["all", "last"] = "all"
    max_new_tokens: int = 64
    max_prompt_tokens: int = 1024
    limit_personas: int | None = None


@hookimpl
def card() -> BenchmarkCard:
    return BenchmarkCard("your own data: a JSON line per prompt and reply, or per dialogue", JsonlOptions)


@hookimpl
def load(options: JsonlOptions) -> Dataset:
    choices = parse_choices(options.choices)
    parts = _parts(options.splits)
    chosen = _metrics(options.metrics, choices)
    if not options.data:
        raise ConfigError("the benchmark needs a file: --set data=FILE")
    path = Path(options.data).expanduser()
    personas, lines = _read(path, choices, options.limit_personas)
    dialogues = _split(lines, [persona.id for persona in personas], options, parts)
    _check_splits(path, dialogues, options.split)
    sizes = Counter(dialogue.split for dialogue in dialogues)
    how = {
        "order": "by file order within the persona",
        "persona": f"by persona, shuffled with seed {options.split_seed}",
    }
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
        facts={
            "data": path.name,
            "split": how[options.split],
            "dialogues": "/".join(str(sizes[split]) for split in SPLITS),
        },
    )


@dataclass(frozen=True, slots=True)
class _Line:
    id: str
    persona: str
    messages: tuple[Message, ...]
    context: tuple[tuple[str, str], ...]


def _read(path: Path, choices: tuple[str, ...], limit: int | None) -> tuple[tuple[Persona, ...], list[_Line]]:
    faults = Faults()
    descriptions: dict[str, tuple[int, str]] = {}  # persona -> first line with a description, that text
    order: dict[str, int] = {}  # persona -> lines so far, in order of appearance
    seen: dict[str, int] = {}  # dialogue id -> line
    lines: list[_Line] = []
    for number, item in read_objects(path, faults):
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
        except ValueError as error:
            faults.add(path, number, str(error))
            continue
        order[person] = place + 1
        seen[name] = number
        lines.append(_Line(name, person, messages, context))
    faults.stop_if_any()
    people = list(order)[:limit]
    personas = tuple(Persona(person, descriptions.get(person, (0, ""))[1]) for person in people)
    kept = set(people)
    return personas, [line for line in lines if line.persona in kept]


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
        Message(message.role, _choice(message.text, choices)) if message.role == "assistant" else message
        for message in messages
    )


def _choice(reply: str, choices: tuple[str, ...]) -> str:
    if reply.strip() not in choices:
        raise ValueError(f"the reply '{reply[:40]}' is none of the choices {', '.join(choices[:20])}")
    return reply.strip()


def _field(item: dict[str, Any], name: str) -> Any:
    if name in item:
        return item[name]
    raise ValueError(f"no '{name}' (it has {', '.join(map(repr, sorted(item))) or 'nothing'})")


def _split(
    lines: list[_Line], people: list[str], options: JsonlOptions, parts: tuple[float, float, float]
) -> tuple[Dialogue, ...]:
    if options.split == "persona":
        order = shuffled(people, options.split_seed)
        of_person = dict(zip(order, split_names(len(order), parts), strict=True))
        splits: list[Split] = [of_person[line.persona] for line in lines]
    else:
        sizes = Counter(line.persona for line in lines)
        queues = {person: iter(split_names(sizes[person], parts)) for person in people}
        splits = [next(queues[line.persona]) for line in lines]
    return tuple(
        Dialogue(line.id, line.persona, split, line.messages, line.context)
        for line, split in zip(lines, splits, strict=True)
    )


def _check_splits(path: Path, dialogues: tuple[Dialogue, ...], split: str) -> None:
    for name in SPLITS:
        there = [dialogue for dialogue in dialogues if dialogue.split == name]
        if not there:
            hint = (
                "too few people"
                if split == "persona"
                else "no person has three lines; to test on other people than those trained on: split=persona"
            )
            raise DataError(f"{path}: nothing is left for {name} ({len(dialogues)} lines): {hint}")
        if not any(_answers(dialogue) for dialogue in there):
            raise DataError(f"{path}: no assistant message answers a user in the {len(there)} lines for {name}")


def _answers(dialogue: Dialogue) -> bool:
    roles = [message.role for message in dialogue.messages]
    return ("user", "assistant") in pairwise(roles)


def _parts(text: str) -> tuple[float, float, float]:
    try:
        parts = tuple(float(part) for part in text.split("/"))
    except ValueError:
        parts = ()
    if len(parts) != 3 or not all(0 < part < float("inf") for part in parts):
        raise ConfigError(f"splits={text} should be three positive numbers, such as 30/10/10 or .6/.2/.2")
    return parts[0], parts[1], parts[2]


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
        if name == "mae" and not as_numbers(choices):
            raise ConfigError("metric 'mae' needs numbers to choose from, such as --set choices=1..5")
    return chosen
