"""A method from another distribution: the persona's own earlier words as a note, on a soft prompt per persona."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness import Message, MethodCard, Prompt, SoftPrompt, TrainOptions, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    words: int = 3
    prompt: SoftPrompt = SoftPrompt(tokens=4)
    train: TrainOptions = TrainOptions(learning_rate=3e-2, epochs=3)


class BorrowedWords:
    """The hooks of an object serve as well as those of a module."""

    @hookimpl
    def card(self) -> MethodCard:
        return MethodCard("a soft prompt and a few of the persona's own words", Options)

    @hookimpl
    def fit(self, study: Study) -> Fitted:
        options = study.options
        notes = {}
        for persona in study.personas:
            said = [m.text for d in study.dialogues(persona.id, "train") for m in d.messages if m.role == "user"]
            notes[persona.id] = " ".join(" ".join(said).split()[: options.words])

        def messages(prompt: Prompt) -> tuple[Message, ...]:
            note = Message("user", notes.get(prompt.persona, ""))
            return (*prompt.messages[:-1], replace(note, text=f"{note.text} {prompt.messages[-1].text}"))

        fitted = study.fit_adapters(options.prompt, study.by_persona(), None, options.train)
        return fitted.with_messages(messages)


plugin = BorrowedWords()
