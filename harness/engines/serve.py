"""Prompts through a `Fitted`: greedy replies, choices from a closed set, likelihood of the references.

The one place where prompts meet adapters, for methods (through their study) and for scoring alike.
"""

from __future__ import annotations

import contextlib
import functools
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.adapters import LoRABank, block_number, on_states
from harness.contract import Likelihood, Message, Prompt, Protocol
from harness.engines.fitted import Adapters, Fitted, Replier
from harness.engines.likelihood import decide
from harness.engines.parts import Answering, Part, Question, answers
from harness.model import Backbone, encode_prompt, encode_reply, reply_ends
from harness.progress import Progress

_Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt as a model gets it.

    ids    token ids, four bytes each: they are kept from the reply until its likelihood is computed
    cut    whether old turns were left out to fit
    shard  people of one shard are answered together
    """

    replier: Replier
    ids: array[int]
    cut: bool
    shard: int = 0


@dataclass(frozen=True)
class Predicted:
    """A method's replies to n prompts, and how they came about.

    replies           in the order of the prompts
    asked             the prompts as the fitted model got them; None where a reply is not what that model generated
    choice_log_probs  [n, C] of the protocol's choices, where there are any and `asked` is known
    cut               how many prompts lost old turns to fit
    likelihood        references -> how likely each is, where another process knows how it was asked
    """

    replies: list[str]
    asked: list[Asked] | None = None
    choice_log_probs: NDArray[np.float64] | None = None
    cut: int = 0
    likelihood: Callable[[Sequence[str]], list[Likelihood]] | None = None


class _Answer(NamedTuple):
    fitted: Fitted
    prompt: Prompt
    asked: Asked
    reply: str
    log_probs: NDArray[np.float64] | None


class Transcript:
    """Prompts to the models of one study, and their replies: kept, so that scoring knows how replies came about.

    shards     persona -> number of its shard; None: all are in one
    elsewhere  where replies are computed; None: here
    """

    def __init__(
        self,
        protocol: Protocol,
        progress: Progress,
        shards: Mapping[str, int] | None = None,
        elsewhere: Answering | None = None,
    ) -> None:
        self.protocol, self.progress = protocol, progress
        self._shards, self._elsewhere = shards or {}, elsewhere
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
            shard = self._shards.get(prompt.persona, 0)
            asked.append(Asked(replier, *self._known[tokenizer, messages], shard))
        return asked

    def generate(self, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
        """Replies by the protocol: greedy text, or the decision over the closed set of choices."""
        asked = self.ask(fitted, prompts)
        log_probs = None
        if self.protocol.choices:
            weighed = self._through(asked, Question("weigh choices", choices=self.protocol.choices))
            log_probs = np.array(weighed, dtype=np.float64).reshape(len(asked), len(self.protocol.choices))
            decided = decide(log_probs, self.protocol.choices, self.protocol.decision)
            replies = [self.protocol.choices[i] for i in decided]
        else:
            tokens = self._through(asked, Question("reply", self.protocol.max_new_tokens))
            replies = [
                one.replier.adapters.backbone.tokenizer.decode(reply, skip_special_tokens=True)
                for one, reply in zip(asked, tokens, strict=True)
            ]
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

    def _through(self, asked: Sequence[Asked], question: Question) -> list[Any]:
        return _through(asked, question, (), self.progress, self._elsewhere)

    def clear(self) -> None:
        """Forget everything: what comes next is another question."""
        self._answers.clear()
        self._known.clear()


def reply_nll(
    asked: Sequence[Asked], references: Sequence[str], progress: Progress, elsewhere: Answering | None = None
) -> list[Likelihood]:
    """How likely each reference is after its prompt."""
    found = _through(asked, Question("likelihood"), references, progress, elsewhere)
    return [
        likelihood_of(prompt.replier.adapters.backbone, reference, nats)
        for prompt, reference, nats in zip(asked, references, found, strict=True)
    ]


def likelihood_of(backbone: Backbone, reference: str, nats: NDArray[np.float64]) -> Likelihood:
    """From the nats [T] of the reference's tokens. Raises ValueError where they are not one a token."""
    ends = np.array(reply_ends(backbone.tokenizer, reference), dtype=np.int64)
    if nats.shape != ends.shape:
        raise ValueError(f"nats of shape {nats.shape} for {len(ends)} tokens")
    return Likelihood(nats, ends)


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


def _through(
    asked: Sequence[Asked],
    question: Question,
    references: Sequence[str],
    progress: Progress,
    elsewhere: Answering | None,
) -> list[Any]:
    """Answers in the order of the prompts. People of one shard whom the same adapters serve are computed together."""
    together: dict[tuple[Adapters, int], list[int]] = {}
    for place, prompt in enumerate(asked):
        together.setdefault((prompt.replier.adapters, prompt.shard), []).append(place)
    whole = len({shard for _, shard in together}) < 2
    parts = (
        _part(adapters, [asked[i] for i in places], [references[i] for i in places] if references else [], whole)
        for (adapters, _), places in together.items()
    )
    if elsewhere is not None:
        found = elsewhere.answer(question, list(parts), progress)
    else:
        found = _here(question, parts, len(asked), progress)
    results: dict[int, Any] = {}
    for places, values in zip(together.values(), found, strict=True):
        results.update(zip(places, values, strict=True))
    return [results[place] for place in range(len(asked))]


def _here(question: Question, parts: Iterable[Part], total: int, progress: Progress) -> list[Sequence[Any]]:
    found: list[Sequence[Any]] = []
    before = 0
    with progress.task(question.title, total, "replies") as advance:
        for part in parts:
            report: _Report = lambda done, _, before=before: advance.to(before + done, total)  # noqa: E731
            found.append(answers(question, part, report))
            before += len(part.rows)
    return found


def _part(adapters: Adapters, asked: Sequence[Asked], references: Sequence[str], whole: bool) -> Part:
    """Prompts to one bank. A single LoRA that serves everybody is merged, which is faster.

    whole   the bank is used as it is; else only those of its adapters that are asked
    """
    bank, rows, ids = adapters.bank, [one.replier.row for one in asked], [one.ids.tolist() for one in asked]
    if isinstance(bank, LoRABank) and len(bank) == 1 and all(row == 0 for row in rows):
        return Part(adapters.merged, None, [-1] * len(rows), ids, references)
    if bank is not None and not whole:
        used = sorted({row for row in rows if row >= 0})
        place = {row: number for number, row in enumerate(used)}
        bank, rows = bank.select(used) if used else None, [place.get(row, -1) for row in rows]
    return Part(adapters.backbone, bank, rows, ids, references)
