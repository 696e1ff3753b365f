"""Prompts through a `Fitted`: greedy replies, choices from a closed set, likelihood of the references.

The one place where prompts meet adapters, for methods (through their study) and for scoring alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from harness.adapters import Bank, LoRABank
from harness.contract import Prompt, Protocol
from harness.engines import likelihood
from harness.engines.fitted import Fitted, parts
from harness.engines.generation import generate
from harness.model import Backbone, encode_prompt, encode_reply, end_of_turn_id
from harness.progress import Advance, Progress

T = TypeVar("T")
# (backbone, bank, rows, prompt ids, places, report done) -> one result a prompt
_Told = Callable[[int, int], None]
_Work = Callable[[Backbone, Bank | None, list[int], list[list[int]], list[int], _Told], Sequence[T]]


def generate_replies(protocol: Protocol, fitted: Fitted, prompts: Sequence[Prompt], progress: Progress) -> list[str]:
    """Replies by the protocol: greedy text, or the decision over the closed set of choices."""
    if protocol.choices:
        weights = choice_log_probs(protocol, fitted, prompts, progress)
        return [protocol.choices[i] for i in likelihood.decide(weights, protocol.choices, protocol.decision)]

    def work(
        backbone: Backbone, bank: Bank | None, rows: list[int], ids: list[list[int]], _: list[int], told: Any
    ) -> list[str]:
        tokens = generate(
            backbone, bank, rows, ids,
            max_new_tokens=protocol.max_new_tokens, stop_id=end_of_turn_id(backbone.tokenizer), progress=told,
        )  # fmt: skip
        return [backbone.tokenizer.decode(reply, skip_special_tokens=True) for reply in tokens]

    return _through(protocol, fitted, prompts, progress, "reply", work)[0]


def choice_log_probs(protocol: Protocol, fitted: Fitted, prompts: Sequence[Prompt], progress: Progress) -> Any:
    """Log probabilities [n, C] of the protocol's choices after each prompt, normalised over the choices."""

    def work(
        backbone: Backbone, bank: Bank | None, rows: list[int], ids: list[list[int]], _: list[int], told: Any
    ) -> Any:
        choices = [encode_reply(backbone.tokenizer, choice) for choice in protocol.choices]
        return likelihood.choice_log_probs(backbone, bank, rows, ids, choices, progress=told)

    found, _ = _through(protocol, fitted, prompts, progress, "weigh choices", work)
    return np.stack(found) if found else np.zeros((0, len(protocol.choices)))


def reply_nll(
    protocol: Protocol, fitted: Fitted, prompts: Sequence[Prompt], references: Sequence[str], progress: Progress
) -> tuple[list[tuple[float, int]], int]:
    """(summed nats, tokens) of each reference after its prompt, and how many prompts lost old turns to fit."""

    def work(
        backbone: Backbone, bank: Bank | None, rows: list[int], ids: list[list[int]], places: list[int], told: Any
    ) -> Any:
        encoded = [encode_reply(backbone.tokenizer, references[place]) for place in places]
        return likelihood.reply_nll(backbone, bank, rows, ids, encoded, progress=told)

    return _through(protocol, fitted, prompts, progress, "likelihood", work)


def _through(
    protocol: Protocol, fitted: Fitted, prompts: Sequence[Prompt], progress: Progress, name: str, work: _Work[T]
) -> tuple[list[T], int]:
    """Results in the order of the prompts, each by who answers for its persona; and how many prompts were cut."""
    results: dict[int, T] = {}
    cut = 0
    with progress.task(name, len(prompts), "replies") as advance:
        for part, places in parts(fitted, [p.persona for p in prompts]):
            asked = [prompts[place] for place in places]
            backbone, bank, rows = _serving(part, asked)
            encoded = [encode_prompt(backbone.tokenizer, part.messages(p), protocol.max_prompt_tokens) for p in asked]
            cut += sum(was_cut for _, was_cut in encoded)
            told = _counting(advance, len(results), len(prompts))
            found = work(backbone, bank, rows, [ids for ids, _ in encoded], places, told)
            results.update(zip(places, found, strict=True))
    return [results[place] for place in range(len(prompts))], cut


def _counting(advance: Advance, before: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _: advance.to(before + done, total)


def _serving(fitted: Fitted, prompts: Sequence[Prompt]) -> tuple[Backbone, Bank | None, list[int]]:
    """Backbone, bank and bank row per prompt; a single LoRA that serves everybody is merged, which is faster."""
    rows = [fitted.row(p.persona) for p in prompts]
    if isinstance(fitted.bank, LoRABank) and len(fitted.bank) == 1 and all(row == 0 for row in rows):
        return fitted.merged, None, [-1] * len(prompts)
    return fitted.backbone, fitted.bank, rows
