"""The one way from an example to token ids: system text, turns, label mask, and the hashes that name them.

Training, generation and likelihood all come through here, so a prompt is the same wherever it is used.
No model and no plugin here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.contract import Dataset, Dialogue, Example, Message, Persona, Prompt, Protocol
from harness.errors import HarnessError
from harness.model.templates import encode_plain, encode_rendered, plain_ends, template_text, turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT_VERSION = 1  # raise when any rule in this file changes what a model sees; part of every protocol hash


@dataclass(frozen=True, slots=True)
class Encoded:
    """A dialogue as token ids [T]; `labels` [T] is True on reply tokens and their end-of-turn tokens."""

    ids: tuple[int, ...]
    labels: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.ids)


# ---- from data to messages ----


def system_text(protocol: Protocol, persona: Persona, dialogue: Dialogue) -> str:
    """The system message: the protocol's text, a context line, and the profile where the protocol shows it.

    Empty when none of the three has anything to say; then no system message (a template may add its own).
    """
    lines = [protocol.system] if protocol.system else []
    if dialogue.context:
        lines.append("Context: " + "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in dialogue.context))
    if protocol.profile and persona.description:
        lines.append(f"Profile: {persona.description}")
    return "\n".join(lines)


def with_system_text(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """The messages with a text at the end of the system message, which is made if there is none; empty text: as is."""
    if not text.strip():
        return tuple(messages)
    if messages and messages[0].role == "system":
        return (Message("system", f"{messages[0].text}\n{text}"), *messages[1:])
    return (Message("system", text), *messages)


def dialogue_messages(protocol: Protocol, persona: Persona, dialogue: Dialogue) -> tuple[Message, ...]:
    """The whole dialogue, its system message in front: what training encodes and prompts are cut from."""
    system = system_text(protocol, persona, dialogue)
    opening = (Message("system", system),) if system else ()
    return opening + dialogue.messages


def split_examples(dataset: Dataset, split: str) -> list[Example]:
    """All examples of a split in data set order: each assistant turn that answers a user (or the last).

    The history of a prompt holds the true earlier replies, never a model's own.
    """
    personas = {persona.id: persona for persona in dataset.personas}
    found: list[Example] = []
    for dialogue in dataset.dialogues:
        if dialogue.split != split:
            continue
        if dialogue.persona not in personas:
            raise HarnessError(
                f"dialogue '{dialogue.id}' of data set '{dataset.name}' belongs to persona "
                f"'{dialogue.persona}', which is not in the data set; add that persona or drop the dialogue"
            )
        found += dialogue_examples(dataset.protocol, personas[dialogue.persona], dialogue)
    return found


def dialogue_examples(protocol: Protocol, persona: Persona, dialogue: Dialogue) -> list[Example]:
    """The examples of one dialogue: the assistant turns that answer a user, of those that the protocol asks for."""
    messages = dialogue_messages(protocol, persona, dialogue)
    turns: list[Example] = []
    depth = 0
    for place, message in enumerate(messages):
        if message.role != "assistant":
            continue
        if place > 0 and messages[place - 1].role == "user":
            prompt = Prompt(f"{dialogue.id}#{depth}", dialogue.persona, depth, messages[:place])
            turns.append(Example(prompt, message.text))
        depth += 1
    if protocol.turns == "from_third":
        return [example for example in turns if example.prompt.depth >= 2]
    return turns if protocol.turns == "all" else turns[-1:]


# ---- from messages to token ids ----


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an assistant turn in this chat template, else the end-of-sequence token."""
    return turn_end(tokenizer, template_text(tokenizer))[0]


def encode_reply(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a reply with the end-of-turn token. Control tokens spelled out in the text stay text."""
    return [*encode_plain(tokenizer, text), end_of_turn_id(tokenizer)]


def reply_ends(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """How many characters of a reply have been said when each of its tokens (`encode_reply`) has.

    The end-of-turn token ends behind them all.
    """
    return [*plain_ends(tokenizer, text), len(text) + 1]


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_tokens: int
) -> tuple[list[int], bool]:
    """Token ids of a prompt up to where the reply begins, and whether history was cut to fit `max_tokens`.

    The oldest turns (all up to and including an assistant message) go first, the system message stays.
    Raises HarnessError if the last turn alone does not fit: a prompt without its question is no prompt.
    """
    system, turns = _turns(messages)
    if not turns or turns[-1].reply is not None:
        raise HarnessError("a prompt must end with what the assistant has to answer, not with an assistant message")
    segments, cut = _fit(tokenizer, system, turns, max_tokens)
    return [token for prompt, reply in segments for token in prompt + reply], cut > 0


def encode_dialogue(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_tokens: int | None = None
) -> Encoded:
    """A whole dialogue packed once, with the loss on all its assistant turns; an unanswered end is left out.

    The prompt of any turn (encode_prompt, uncut) is a prefix of the result. With `max_tokens` the oldest
    turns are left out until the rest fits, as in a prompt.
    """
    system, turns = _turns(messages)
    turns = [turn for turn in turns if turn.reply is not None]
    if not turns:
        return Encoded((), ())
    if max_tokens is None:
        segments = _segments(tokenizer, system, turns)
    else:
        segments, _ = _fit(tokenizer, system, turns, max_tokens)
    ids: list[int] = []
    labels: list[bool] = []
    for prompt, reply in segments:
        ids += prompt + reply
        labels += [False] * len(prompt) + [True] * len(reply)
    return Encoded(tuple(ids), tuple(labels))


@dataclass(frozen=True, slots=True)
class _Turn:
    asked: tuple[Message, ...]  # messages before the reply; usually one from the user
    reply: str | None  # None: the reply is what we want to know


_Segment = tuple[list[int], list[int]]  # tokens that lead to a reply, tokens of that reply


def _turns(messages: Sequence[Message]) -> tuple[Message | None, list[_Turn]]:
    """The system message, if there is one, and the rest cut after each assistant message."""
    system = messages[0] if messages and messages[0].role == "system" else None
    turns: list[_Turn] = []
    asked: list[Message] = []
    for message in messages[1 if system else 0 :]:
        if message.role == "assistant":
            turns.append(_Turn(tuple(asked), message.text))
            asked = []
        else:
            asked.append(message)
    if asked:
        turns.append(_Turn(tuple(asked), None))
    return system, turns


def _segments(tokenizer: PreTrainedTokenizerBase, system: Message | None, turns: Sequence[_Turn]) -> list[_Segment]:
    """Per turn the tokens that lead to the reply and the tokens of the reply (empty where it is wanted).

    Each turn is rendered and tokenised by itself, so earlier tokens never depend on later text and a prompt
    is a prefix of its dialogue with every template, also with those that rewrite earlier turns.
    """
    return [_segment(tokenizer, turn, system, opens=place == 0) for place, turn in enumerate(turns)]


def _segment(tokenizer: PreTrainedTokenizerBase, turn: _Turn, system: Message | None, *, opens: bool) -> _Segment:
    """Of one turn, which opens the dialogue, behind the system message, or follows a reply."""
    if opens:
        prompt = encode_rendered(tokenizer, ([system] if system else []) + list(turn.asked), after_reply=False)
    else:
        prompt = encode_rendered(tokenizer, turn.asked, after_reply=True)
    return prompt, [] if turn.reply is None else encode_reply(tokenizer, turn.reply)


def _fit(
    tokenizer: PreTrainedTokenizerBase, system: Message | None, turns: list[_Turn], max_tokens: int
) -> tuple[list[_Segment], int]:
    """Segments of the latest turns that fit into `max_tokens`, and how many of the oldest turns were cut."""
    # What follows a reply is the same wherever the cut is, so it is encoded once, from the end up to where it is full.
    following: list[_Segment] = []
    tokens, earliest = 0, len(turns) - 1
    while earliest > 0:
        segment = _segment(tokenizer, turns[earliest], None, opens=False)
        if tokens + _size(segment) > max_tokens:
            break
        following.insert(0, segment)
        tokens, earliest = tokens + _size(segment), earliest - 1
    for cut in range(earliest, len(turns)):
        segments = [_segment(tokenizer, turns[cut], system, opens=True), *following[cut - earliest :]]
        tokens = sum(map(_size, segments))
        if tokens <= max_tokens:
            return segments, cut
    begins = " ".join(message.text for message in turns[-1].asked)[:60]
    raise HarnessError(
        f"the system text and the last turn alone take {tokens} tokens, but the limit is {max_tokens}; "
        f"raise max_prompt_tokens, or shorten the turn that begins {begins!r}"
    )


def _size(segment: _Segment) -> int:
    prompt, reply = segment
    return len(prompt) + len(reply)


# ---- hashes ----


def protocol_hash(dataset: Dataset, tokenizer_template: str) -> str:
    """SHA-256 of all that decides how methods are asked and scored; unlike hashes are never compared."""
    protocol = asdict(dataset.protocol)
    if not protocol["holdout_personas"]:
        del protocol["holdout_personas"]  # runs from before there was such a field were made without
    return _sha256(
        {
            "prompt_version": PROMPT_VERSION,
            "protocol": protocol,
            "metrics": list(dataset.metrics),
            "template": tokenizer_template,
        }
    )


def example_set_hash(examples: Iterable[Example]) -> str:
    """SHA-256 of the set of prompt ids with their references; the order does not matter."""
    return _sha256(sorted([example.prompt.id, example.reference] for example in examples))


def split_hash(dataset: Dataset) -> str:
    """SHA-256 of which dialogue, with which text, of which persona is in which split, in any order."""
    return _sha256(
        sorted(
            [
                dialogue.id,
                dialogue.persona,
                dialogue.split,
                [list(pair) for pair in dialogue.context],
                [[message.role, message.text] for message in dialogue.messages],
            ]
            for dialogue in dataset.dialogues
        )
    )


def people_hash(dataset: Dataset) -> str:
    """SHA-256 of who the personas are, in their order, and of what their dialogues are about.

    Methods see the one and yardsticks the other; no other hash has them.
    """
    about = [[dialogue.id, dialogue.item] for dialogue in dataset.dialogues if dialogue.item]
    return _sha256([*([persona.id, persona.description, persona.cluster] for persona in dataset.personas), *about])


def _sha256(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
