"""Chat templates of tokenizers: messages -> token ids, one turn at a time, and where a turn ends.

Only `harness.model.prompts` uses it, and decides what goes into the messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contract import Message, read_file, user_path
from harness.errors import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# For base models, whose tokenizers have no template: names before the turns, the end-of-sequence token behind a reply.
PLAIN = """\
{% if bos_token %}{{ bos_token }}{% endif %}{% for m in messages %}\
{% if m['role'] == 'system' %}{{ m['content'] }}

{% elif m['role'] == 'user' %}User:
{{ m['content'] }}

{% else %}Assistant:
{{ m['content'] }}{{ eos_token }}

{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:
{% endif %}"""
THINKING = "enable_thinking"  # a switch of some templates; replies here are what a person said, without thoughts

# Private-use characters: templates neither trim nor split them, and nobody types them.
_REPLY_MARK = "\ue000reply\ue001"
_TEXT_MARK = "\ue000text{}\ue001"


def set_template(tokenizer: PreTrainedTokenizerBase, file: Path | None, note: Callable[[str], None]) -> None:
    """Give a tokenizer the template of a file; or PLAIN, with a note, where it has none of its own.

    Raises HarnessError for a file that cannot be read, or is no template.
    """
    if file is not None:
        try:
            tokenizer.chat_template = read_file(user_path(file)).decode()
        except (OSError, UnicodeDecodeError) as fault:
            raise HarnessError(f"--chat-template {file} cannot be read: {fault}") from fault
        _render(tokenizer, [{"role": "user", "content": "?"}], generation_prompt=True)
    elif not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = PLAIN
        note(
            f"'{tokenizer.name_or_path}' has no chat template, as base models do: a plain one stands in (User:, "
            "Assistant:); --chat-template FILE sets another"
        )


def template_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template as text; part of the protocol hash. Raises HarnessError where there is none."""
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise HarnessError(f"the tokenizer of '{tokenizer.name_or_path}' has no chat template; set one")
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return text + "{# without thinking #}" if THINKING in text else text


def encode_rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, after_reply: bool) -> list[int]:
    """Tokens of messages plus generation prompt, at the start of a dialogue or right behind an earlier reply.

    Behind a reply, what the template puts after the end-of-turn token (often a newline) comes first.
    """
    controls = control_texts(tokenizer)
    spelled: dict[str, str] = {}  # mark -> text that must not be read as control tokens
    chat: list[dict[str, str]] = []
    for message in messages:
        text = message.text
        if any(control in text for control in controls):
            mark = _TEXT_MARK.format(len(spelled))
            spelled[mark] = text
            text = mark
        chat.append({"role": message.role, "content": text})
    if after_reply:
        opening = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _REPLY_MARK}]
        rendered = _render(tokenizer, opening + chat, generation_prompt=True).partition(_REPLY_MARK)[2]
        end_text = turn_end(tokenizer, template_text(tokenizer))[1]
        rendered = rendered.removeprefix(end_text)
    else:
        rendered = _render(tokenizer, chat, generation_prompt=True)
    ids: list[int] = []
    for mark, text in spelled.items():
        before, _, rendered = rendered.partition(mark)
        ids += tokenizer.encode(before, add_special_tokens=False) + encode_plain(tokenizer, text)
    return ids + tokenizer.encode(rendered, add_special_tokens=False)


def _render(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]], *, generation_prompt: bool) -> str:
    switches: dict[str, Any] = {THINKING: False} if THINKING in str(tokenizer.chat_template) else {}
    try:
        return str(
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=generation_prompt, **switches)
        )
    except Exception as error:  # jinja raises whatever the template's author chose
        # Some templates know no system role: then the first user message says it.
        if [message["role"] for message in chat[:2]] == ["system", "user"]:
            system, *rest = chat
            joined = {"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}
            return _render(tokenizer, [joined, *rest[1:]], generation_prompt=generation_prompt)
        if not chat:
            raise HarnessError(
                "an assistant message that opens a dialogue needs a system text before it, as no chat template renders "
                "nothing; give one (--set protocol.system=TEXT), or leave that message out"
            ) from error
        roles = ", ".join(message["role"] for message in chat)
        raise HarnessError(
            f"the chat template of '{tokenizer.name_or_path}' refuses messages with roles {roles}: {error}; "
            "choose a backbone with a chat template for alternating user and assistant messages"
        ) from error


def encode_plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of text in which nothing is read as a control token."""
    return list(tokenizer.encode(text, **_plainly(tokenizer, text)))


def plain_ends(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """How many characters of the text each of these tokens ends behind."""
    if not tokenizer.is_fast:  # it knows no offsets: by what the tokens up to it say
        ids = encode_plain(tokenizer, text)
        return [min(len(tokenizer.decode(ids[: place + 1])), len(text)) for place in range(len(ids))]
    found = tokenizer(text, return_offsets_mapping=True, **_plainly(tokenizer, text))
    return [end for _, end in found["offset_mapping"]]


def _plainly(tokenizer: PreTrainedTokenizerBase, text: str) -> dict[str, Any]:
    control = any(control in text for control in control_texts(tokenizer))
    return {"add_special_tokens": False, **({"split_special_tokens": True} if control else {})}


# The two look-ups below are asked once per reply; a tokenizer hashes as its identity: one entry per object.


@lru_cache(maxsize=16)
def control_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts that the tokenizer reads as one control token each."""
    added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    special = {str(token) for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
    return tuple(sorted(text for text in special if text))


@lru_cache(maxsize=16)
def turn_end(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[int, str]:
    """Id of the end-of-turn token, and the template's text behind a reply up to and including that token."""
    del template  # part of the key: a changed template is another answer
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _REPLY_MARK}]
    tail = _render(tokenizer, chat, generation_prompt=False).partition(_REPLY_MARK)[2]
    places = [(tail.index(text), -len(text), text) for text in control_texts(tokenizer) if text in tail]
    if places:
        place, _, text = min(places)
        return tokenizer.encode(text, add_special_tokens=False)[0], tail[: place + len(text)]
    if tokenizer.eos_token_id is None:
        raise HarnessError(
            f"the tokenizer of '{tokenizer.name_or_path}' has neither an end-of-turn token in its template "
            "nor an end-of-sequence token, so no reply could ever end; choose a backbone made for chat"
        )
    return int(str(tokenizer.eos_token_id)), ""
