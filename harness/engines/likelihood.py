"""How probable given replies are: the rows and trees by which an engine computes it, and decisions over a closed set.

No decoding of free text and no metrics here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.engines.batching import Entry, Row
from harness.engines.decoding import Batch, shared_passes
from harness.errors import HarnessError


def reply_entries(
    rows: Sequence[int], prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], virtual: Sequence[int]
) -> list[tuple[Entry, list[int]]]:
    """Rows of a wave whose targets are the tokens of replies; with each, which replies, one after the other.

    virtual  virtual tokens that are fed in front of each prompt
    Turns of a dialogue share a row: each is the beginning of the next.
    """
    # The last reply token is predicted but never fed.
    fed = [[*prompt, *reply[:-1]] for prompt, reply in zip(prompts, replies, strict=True)]
    found = []
    for place, (longest, readers) in enumerate(shared_passes(prompts, fed, rows).items()):
        order = sorted(readers, key=lambda index: len(prompts[index]))  # replies of one row never overlap
        positions = [virtual[longest] + len(prompts[i]) - 1 + np.arange(len(replies[i])) for i in order]
        row = Row(
            inputs=np.asarray(fed[longest], dtype=np.int64),
            positions=np.concatenate(positions),
            targets=np.concatenate([np.asarray(replies[index], dtype=np.int64) for index in order]),
        )
        found.append((Entry(rows[longest], rows[longest], place, row), order))
    return found


@dataclass
class Choices:
    """Beginnings that choices share, as a tree; `ends` are the choices that are complete here."""

    children: dict[int, Choices] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, choices: Sequence[Sequence[int]]) -> Choices:
        """From the token ids of each choice. Raises ValueError if there are none, or one is empty."""
        if not choices or any(len(choice) == 0 for choice in choices):
            raise ValueError("choices must be a non-empty list of non-empty token lists")
        root = cls()
        for number, choice in enumerate(choices):
            node = root
            for token in choice:
                node = node.children.setdefault(token, cls())
            node.ends.append(number)
        return root

    def weigh(self, batch: Batch, found: Tensor, score: Tensor | int = 0) -> None:
        """Score all choices below this beginning, which the batch has been fed.

        found   [B, C] summed log-probabilities, filled in
        score   [B] of the beginning
        """
        tokens = sorted(self.children)
        logits = batch.logits.float()  # [B, V]
        steps = (logits[:, tokens] - logits.logsumexp(-1, keepdim=True)).double()  # [B, children]
        for place, token in enumerate(tokens):
            child = self.children[token]
            reached = score + steps[:, place]
            for number in child.ends:
                found[:, number] = reached
            if child.children:
                batch.feed(torch.full_like(batch.logits[:, 0], token, dtype=torch.long))
                child.weigh(batch, found, reached)
                batch.take_back()


def normalised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities [n, C] from scores, over the closed set."""
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def decide(log_probs: NDArray[np.float64], choices: Sequence[str], decision: Literal["median", "mode"]) -> list[int]:
    """Which choice to reply, per row of `log_probs` [n, C].

    "mode" takes the most probable choice (the earlier of two equals). "median" takes the choice with the
    least expected absolute error, a median of the distribution; of two equals the lower number.
    Raises HarnessError if "median" meets choices that are not numbers.
    """
    if decision == "mode":
        return [int(best) for best in log_probs.argmax(axis=1)]
    try:
        values = np.array([float(choice) for choice in choices])
    except ValueError:
        wrong = [choice for choice in choices if not _is_number(choice)]
        raise HarnessError(
            f"decision 'median' needs numbers to choose from, and '{wrong[0]}' is none; use decision 'mode', "
            "or give numeric choices"
        ) from None
    errors = np.exp(log_probs) @ np.abs(values[:, None] - values[None, :])  # [n, C]
    by_value = np.argsort(values, kind="stable")
    # Rounding must not break a tie between two medians: the first within a hair of the least, from below.
    close = errors[:, by_value] <= errors.min(axis=1, keepdims=True) + 1e-9 * np.ptp(values)
    return [int(by_value[place]) for place in close.argmax(axis=1)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
