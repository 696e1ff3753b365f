"""Prompts through a `Fitted`: greedy replies, choices from a closed set, likelihood of the references.

The one place where prompts meet adapters, for methods (through their study) and for scoring alike.
"""

from __future__ import annotations

import contextlib
import functools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.adapters import Bank, LoRABank, block_number, on_states
from harness.contract import Message, Prompt, Protocol
from harness.engines.choice import engine_for
from harness.engines.fitted import Adapters, Fitted, Replier
from harness.engines.likelihood import decide
from harness.model import Backbone, encode_prompt, encode_reply, end_of_turn_id
from harness.progress import Progress

T = TypeVar("T")
_Report = Callable[[int, int], None]
# (backbone, bank, rows, prompt ids, places, report) -> one result a prompt
_Work = Callable[[Backbone, Bank | None, list[int], list[list[int]], list[int], _Report], Sequence[T]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt as a model gets it.

    ids  token ids, four bytes each: they are kept from the reply until its likelihood is computed
    cut  whether old turns were left out to fit
    """

    replier: Replier
    ids: array[int]
    cut: bool


@dataclass(frozen=True)
class Predicted:
    """A method's replies to n prompts, and how they came about.

    replies           in the order of the prompts
    asked             the prompts as the fitted model got them; None where a reply is not what that model generated
    choice_log_probs  [n, C] of the protocol's choices, where there are any and `asked` is known
    cut               how many prompts lost old turns to fit
    likelihood        references -> (summed nats, tokens) of each, where another process knows how it was asked
    """

    replies: list[str]
    asked: list[Asked] | None = None
    choice_log_probs: NDArray[np.float64] | None = None
    cut: int = 0
    likelihood: Callable[[Sequence[str]], list[tuple[float, int]]] | None = None


class _Answer(NamedTuple):
    fitted: Fitted
    prompt: Prompt
    asked: Asked
    reply: str
    log_probs: NDArray[np.float64] | None


class Transcript:
    """Prompts to the models of one study, and their replies: kept, so that scoring knows how replies came about."""

    def __init__(self, protocol: Protocol, progress: Progress) -> None:
        self.protocol, self.progress = protocol, progress
        self._answers: dict[str, _Answer] = {}  # by the prompt's id
        self._known: dict[tuple[Any, tuple[Message, ...]], tuple[array[int], bool]] = {}

    def ask(self, fitted: Fitted, prompts: Sequence[Prompt]) -> list[Asked]:
        """The prompts as they reach the models; each is tokenised once."""
        asked = []
        for prompt in prompts:
            replier = fitted.who(prompt.persona)
            tokenizer, messages = replier.adapters.backbone.tokenizer, tuple(replier.messages(prompt))
            if (tokenizer, messages) not in self._known:
                ids, cut = encode_prompt(tokenizer, messages, self.protocol.max_prompt_tokens)
                self._known[tokenizer, messages] = array("i", ids), cut
            asked.append(Asked(replier, *self._known[tokenizer, messages]))
        return asked

    def generate(self, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
        """Replies by the protocol: greedy text, or the decision over the closed set of choices."""
        asked = self.ask(fitted, prompts)
        log_probs = None
        if self.protocol.choices:
            log_probs = choice_log_probs(self.protocol, asked, self.progress)
            decided = decide(log_probs, self.protocol.choices, self.protocol.decision)
            replies = [self.protocol.choices[i] for i in decided]
        else:
            replies = generate_replies(self.protocol, asked, self.progress)
        for i, prompt in enumerate(prompts):
            row = None if log_probs is None else log_probs[i]
            self._answers[prompt.id] = _Answer(fitted, prompt, asked[i], replies[i], row)
        return replies

    def predicted(self, fitted: Fitted, prompts: Sequence[Prompt], replies: list[str]) -> Predicted:
        """Replies of a method to all its prompts, with how `fitted` was asked if it made every one of them."""
        given = [self._answers.get(prompt.id) for prompt in prompts]
        self.clear()
        cut = sum(answer.asked.cut for answer in given if answer)
        generated = [
            answer
            for answer, prompt, reply in zip(given, prompts, replies, strict=True)
            if answer and answer.fitted is fitted and answer.prompt == prompt and answer.reply == reply
        ]
        if len(generated) < len(replies):
            return Predicted(replies, cut=cut)
        weights = [answer.log_probs for answer in generated if answer.log_probs is not None]
        return Predicted(replies, [answer.asked for answer in generated], np.stack(weights) if weights else None, cut)

    def clear(self) -> None:
        """Forget everything: what comes next is another question."""
        self._answers.clear()
        self._known.clear()


def generate_replies(protocol: Protocol, asked: Sequence[Asked], progress: Progress) -> list[str]:
    """Greedy replies by the protocol."""

    def work(
        backbone: Backbone, bank: Bank | None, rows: list[int], ids: list[list[int]], _: list[int], report: _Report
    ) -> list[str]:
        tokens = engine_for(backbone, bank)[0].replies(
            bank, rows, ids,
            max_new_tokens=protocol.max_new_tokens, stop_id=end_of_turn_id(backbone.tokenizer), progress=report,
        )  # fmt: skip
        return [backbone.tokenizer.decode(reply, skip_special_tokens=True) for reply in tokens]

    return _through(asked, progress, "reply", work)


def choice_log_probs(protocol: Protocol, asked: Sequence[Asked], progress: Progress) -> NDArray[np.float64]:
    """Log probabilities [n, C] of the protocol's choices after each prompt, normalised over the choices."""

    def work(
        backbone: Backbone, bank: Bank | None, rows: list[int], ids: list[list[int]], _: list[int], report: _Report
    ) -> Any:
        choices = [encode_reply(backbone.tokenizer, choice) for choice in protocol.choices]
        return engine_for(backbone, bank)[0].choice_log_probs(bank, rows, ids, choices, progress=report)

    found = _through(asked, progress, "weigh choices", work)
    return np.stack(found) if found else np.zeros((0, len(protocol.choices)))


def reply_nll(asked: Sequence[Asked], references: Sequence[str], progress: Progress) -> list[tuple[float, int]]:
    """(summed nats, tokens) of each reference after its prompt."""

    def work(
        backbone: Backbone, bank: Bank | None, rows: list[int], ids: list[list[int]], places: list[int], report: _Report
    ) -> Any:
        encoded = [encode_reply(backbone.tokenizer, references[place]) for place in places]
        return engine_for(backbone, bank)[0].reply_nll(bank, rows, ids, encoded, progress=report)

    return _through(asked, progress, "likelihood", work)


def reply_states(
    backbone: Backbone, asked: Sequence[Asked], replies: Sequence[str], layers: Sequence[int], progress: Progress
) -> NDArray[np.float32]:
    """Hidden states [n, layers, D] of a backbone behind some of its blocks: means over the tokens of each reply."""
    model, tokenizer = backbone.model, backbone.tokenizer
    blocks = [block_number(layer, model.config.get_text_config().num_hidden_layers) for layer in layers]
    found = np.zeros((len(asked), len(blocks), backbone.hidden), dtype=np.float32)

    def watch(place: int, number: int, start: int, states: Tensor) -> Tensor:
        found[place, number] = states[0, start:].float().mean(dim=0).cpu().numpy()
        return states

    with progress.task("hidden states", len(asked), "replies") as advance, torch.no_grad():
        for place, (prompt, reply) in enumerate(zip(asked, replies, strict=True)):
            ids = prompt.ids.tolist()
            row = torch.tensor([[*ids, *encode_reply(tokenizer, reply)]], device=backbone.device)
            with contextlib.ExitStack() as stack:
                for number, block in enumerate(blocks):
                    stack.enter_context(on_states(model, block, functools.partial(watch, place, number, len(ids))))
                model(input_ids=row, use_cache=False)
            advance.to(place + 1, len(asked))
    return found


def _through(asked: Sequence[Asked], progress: Progress, name: str, work: _Work[T]) -> list[T]:
    """Results in the order of the prompts; those that the same adapters serve are computed together."""
    parts: dict[Adapters, list[int]] = {}
    for place, prompt in enumerate(asked):
        parts.setdefault(prompt.replier.adapters, []).append(place)
    results: dict[int, T] = {}
    with progress.task(name, len(asked), "replies") as advance:
        for adapters, places in parts.items():
            before = len(results)
            backbone, bank, rows = _serving(adapters, [asked[place].replier.row for place in places])
            ids = [asked[place].ids.tolist() for place in places]
            report: _Report = lambda done, _, before=before: advance.to(before + done, len(asked))  # noqa: E731
            results.update(zip(places, work(backbone, bank, rows, ids, places, report), strict=True))
    return [results[place] for place in range(len(asked))]


def _serving(adapters: Adapters, rows: list[int]) -> tuple[Backbone, Bank | None, list[int]]:
    """Backbone, bank and bank row per prompt; a single LoRA that serves everybody is merged, which is faster."""
    if isinstance(adapters.bank, LoRABank) and len(adapters.bank) == 1 and all(row == 0 for row in rows):
        return adapters.merged, None, [-1] * len(rows)
    return adapters.backbone, adapters.bank, rows
