"""How probable given replies are: negative log-likelihood, and distributions over a closed set of replies.

No decoding of free text and no metrics here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.engines.decoding import (
    BATCH_TOKENS,
    CachedBatch,
    ProgressCallback,
    adapted,
    check_prompts,
    forward,
    forward_tokens,
    plain_cache,
    plan_batches,
    prefilled,
    shared_passes,
    virtual_tokens,
)
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.adapters import Bank
    from harness.model import Backbone


def reply_nll(
    backbone: Backbone,
    bank: Bank | None,
    rows: Sequence[int],
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: ProgressCallback | None = None,
) -> list[tuple[float, int]]:
    """Negative log-likelihood of each reply after its prompt.

    rows     bank row per prompt; -1 means no adapter
    prompts  token ids per prompt, generation prompt included
    replies  token ids per reply, end-of-turn token included (it counts)

    Returns (summed nats, number of reply tokens) per prompt, in the given order.
    Raises HarnessError before starting if a prompt with its reply does not fit the model's positions.
    """
    check_prompts(backbone, bank, rows, prompts, [len(reply) for reply in replies])
    virtual = virtual_tokens(bank)
    # The last reply token is predicted but never fed.
    fed = [[*prompt, *reply[:-1]] for prompt, reply in zip(prompts, replies, strict=True)]
    readers = shared_passes(prompts, fed, rows)
    longest = list(readers)
    own = [rows[index] for index in longest]
    extra = [virtual if row >= 0 else 0 for row in own]
    texts = [fed[index] for index in longest]
    results: list[tuple[float, int]] = [(0.0, 0)] * len(prompts)
    scored = 0
    with torch.no_grad():
        for chosen in plan_batches(texts, own, extra, forward_tokens(backbone, batch_tokens)):
            used = bank if own[chosen[0]] >= 0 else None
            batch_rows = torch.tensor([own[place] for place in chosen], device=backbone.device)
            fed_before = 0 if used is None else used.prefix_tokens
            spans = [
                [(index, fed_before + len(prompts[index]) - 1) for index in readers[longest[place]]] for place in chosen
            ]
            nats = _reply_nats(backbone, used, batch_rows, [texts[place] for place in chosen], spans, replies)
            for index, values in nats.items():
                results[index] = (float(values.sum()), len(values))
            scored += len(nats)
            if progress is not None:
                progress(scored, len(prompts))
    return results


def _reply_nats(
    backbone: Backbone,
    bank: Bank | None,
    rows: Tensor,
    fed: Sequence[Sequence[int]],
    spans: Sequence[Sequence[tuple[int, int]]],
    replies: Sequence[Sequence[int]],
) -> dict[int, NDArray[np.float64]]:
    """Nats of the tokens of each reply that the rows of a batch hold, by its index. Right-padded: causal attention
    needs no mask then.

    spans   for each row (index of a reply, column whose logits predict its first token)
    """
    width = max(len(ids) for ids in fed)
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in fed], device=backbone.device)  # [B, T]
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    prefix = None if bank is None else bank.prefix(rows)  # [B, P, D]
    if prefix is not None:
        embeddings = backbone.model.get_input_embeddings()(ids)
        inputs = {"inputs_embeds": torch.cat([prefix.to(embeddings.dtype), embeddings], dim=1), "use_cache": False}
        width += prefix.shape[1]
    if bank is not None and bank.cached_tokens:
        inputs |= {"past_key_values": prefilled(backbone, bank, rows), "use_cache": True}
    wanted = torch.zeros(len(fed), width, dtype=torch.bool)
    for row, found in enumerate(spans):
        for index, first in found:
            wanted[row, first : first + len(replies[index])] = True
    # Replies of one row never overlap, so its wanted columns are those of one reply after the other.
    order = [index for found in spans for index, _ in sorted(found, key=lambda span: span[1])]
    wanted = wanted.to(backbone.device)
    with adapted(backbone, bank, rows):
        logits = forward(backbone, **inputs, logits_to_keep=wanted).logits
    if logits.dim() == 3:  # an architecture that always returns all positions
        logits = logits[wanted]
    targets = torch.tensor([token for index in order for token in replies[index]], device=backbone.device)
    nats = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none").double().cpu().numpy()
    ends = np.cumsum([len(replies[index]) for index in order])
    return dict(zip(order, np.split(nats, ends[:-1]), strict=True))


# ---- closed sets of replies ----


@dataclass
class _Node:
    """A beginning that some choices share; `ends` are the choices that are complete here."""

    children: dict[int, _Node] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)

    @property
    def depth(self) -> int:
        return 1 + max((child.depth for child in self.children.values()), default=-1)


def choice_log_probs(
    backbone: Backbone,
    bank: Bank | None,
    rows: Sequence[int],
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[int]],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: ProgressCallback | None = None,
) -> NDArray[np.float64]:
    """Log-probability of each choice after each prompt, normalised over the closed set.

    choices  token ids per choice, end-of-turn token included (it counts)

    A choice weighs the product of its tokens' probabilities. Each prompt is encoded once; what choices have
    in common is fed once, and what they do not is taken back out of the cache.
    Returns [number of prompts, C]; the probabilities of a row sum to 1.
    """
    if not choices or any(len(choice) == 0 for choice in choices):
        raise ValueError("choices must be a non-empty list of non-empty token lists")
    longest = max(len(choice) for choice in choices)
    check_prompts(backbone, bank, rows, prompts, [longest] * len(prompts))
    if not plain_cache(backbone):
        return _choices_one_by_one(backbone, bank, rows, prompts, choices, batch_tokens, progress)
    root = _Node()
    for number, choice in enumerate(choices):
        node = root
        for token in choice:
            node = node.children.setdefault(token, _Node())
        node.ends.append(number)
    virtual = virtual_tokens(bank)
    room = [longest + (virtual if row >= 0 else 0) for row in rows]
    scores = np.zeros((len(prompts), len(choices)))
    scored = 0
    with torch.no_grad():
        for indices in plan_batches(prompts, rows, room, batch_tokens):
            used = bank if rows[indices[0]] >= 0 else None
            batch_rows, batch_prompts = (
                [rows[index] for index in indices],
                [prompts[index] for index in indices],
            )
            with CachedBatch(backbone, used, batch_rows, batch_prompts, root.depth - 1) as batch:
                found = torch.zeros(len(indices), len(choices), dtype=torch.float64, device=backbone.device)
                _visit(batch, root, torch.zeros_like(found[:, 0]), found)
            scores[indices] = found.cpu().numpy()
            scored += len(indices)
            if progress is not None:
                progress(scored, len(prompts))
    return _normalised(scores)


def _visit(batch: CachedBatch, node: _Node, score: Tensor, found: Tensor) -> None:
    """Score all choices below `node`, whose tokens the batch has been fed.

    score   [B] summed log-probabilities up to here
    found   [B, C] filled in
    """
    tokens = sorted(node.children)
    logits = batch.logits.float()  # [B, V]
    steps = (logits[:, tokens] - logits.logsumexp(-1, keepdim=True)).double()  # [B, children]
    for place, token in enumerate(tokens):
        child = node.children[token]
        reached = score + steps[:, place]
        for number in child.ends:
            found[:, number] = reached
        if child.children:
            batch.feed(torch.full_like(batch.logits[:, 0], token, dtype=torch.long))
            _visit(batch, child, reached, found)
            batch.take_back()


def _choices_one_by_one(
    backbone: Backbone,
    bank: Bank | None,
    rows: Sequence[int],
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[int]],
    batch_tokens: int,
    progress: ProgressCallback | None,
) -> NDArray[np.float64]:
    """The same for models whose cache cannot forget tokens: every choice is scored as a reply of its own."""
    C = len(choices)
    pairs = reply_nll(
        backbone,
        bank,
        [row for row in rows for _ in range(C)],
        [prompt for prompt in prompts for _ in range(C)],
        [choice for _ in prompts for choice in choices],
        batch_tokens=batch_tokens,
        progress=None if progress is None else lambda done, total: progress(done // C, total // C),
    )
    return _normalised(-np.array([nats for nats, _ in pairs]).reshape(len(prompts), C))


def _normalised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
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
