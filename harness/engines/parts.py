"""What a model is asked in one go: the prompts of some people to the adapters that serve them. Here or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from harness.adapters import Bank
from harness.engines.choice import engine_for
from harness.model import Backbone, encode_reply, end_of_turn_id
from harness.progress import Progress

Kind = Literal["reply", "weigh choices", "likelihood"]


@dataclass(frozen=True)
class Question:
    """What is wanted of every prompt.

    reply          token ids of a greedy reply of at most `max_new_tokens`
    weigh choices  log probabilities [C] of the texts in `choices`, normalised over them
    likelihood     nats [T] of the tokens of the prompt's reference
    """

    kind: Kind
    max_new_tokens: int = 0
    choices: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Of the work, as progress shows it: a choice, too, is a reply."""
        return "likelihood" if self.kind == "likelihood" else "reply"


@dataclass(frozen=True, eq=False)
class Part:
    """n prompts that are computed together: nothing else decides on the bits of their answers.

    rows        [n] bank row of each prompt; -1: no adapter
    ids         [n] token ids of each prompt
    references  [n] texts, for the likelihood
    """

    backbone: Backbone
    bank: Bank | None
    rows: Sequence[int]
    ids: Sequence[Sequence[int]]
    references: Sequence[str] = ()


class Answering(Protocol):
    """Where parts may be computed in place of this process."""

    def answer(self, question: Question, parts: Sequence[Part], progress: Progress) -> list[Sequence[Any]]:
        """One answer a prompt, for each part: those that `answers` gives."""
        ...


def answers(question: Question, part: Part, report: Callable[[int, int], None] | None = None) -> Sequence[Any]:
    """Compute a part: one answer a prompt. report: called with (prompts done, prompts to do)."""
    tokenizer, bank = part.backbone.tokenizer, part.bank
    engine = engine_for(part.backbone, bank)[0]
    if question.kind == "reply":
        return engine.replies(
            bank, part.rows, part.ids,
            max_new_tokens=question.max_new_tokens, stop_id=end_of_turn_id(tokenizer), progress=report,
        )  # fmt: skip
    if question.kind == "weigh choices":
        choices = [encode_reply(tokenizer, choice) for choice in question.choices]
        return list(engine.choice_log_probs(bank, part.rows, part.ids, choices, progress=report))
    wanted = [encode_reply(tokenizer, reference) for reference in part.references]
    return engine.reply_nll(bank, part.rows, part.ids, wanted, progress=report)
