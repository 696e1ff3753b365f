"""Static text: the persona's description in the system message of the unified model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import HarnessError, Message, MethodCard, Prompt, hookimpl
from harness.model import with_system_text

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Nothing to set."""


@hookimpl
def card() -> MethodCard:
    summary = "the persona's description in the prompt of the unified model"
    return MethodCard(summary, Options, requires=("unified",), shares="persona")


@hookimpl
def fit(study: Study) -> Fitted:
    about = {p.id: p.description for p in (*study.personas, *study.newcomers) if p.description.strip()}
    if not about:
        raise HarnessError("no persona has a description; this benchmark has no text to put before the prompts")

    def with_description(prompt: Prompt) -> tuple[Message, ...]:
        text = about.get(prompt.persona, "")
        return with_system_text(prompt.messages, f"Profile: {text}" if text else "")

    return study.fitted("unified").with_messages(with_description)
