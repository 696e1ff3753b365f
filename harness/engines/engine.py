"""The seam between what is asked of a frozen backbone with adapters and how it is computed.

Implementations: transformers_engine, and llama_cpu.engine. Which one serves is decided in choice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.adapters import Bank
from harness.engines.batching import Entry, Wave, collate
from harness.engines.decoding import (
    BATCH_TOKENS,
    Batch,
    ProgressCallback,
    check_prompts,
    decode,
    forward_tokens,
)
from harness.engines.likelihood import Choices, normalised, reply_entries
from harness.engines.parallel import side_by_side
from harness.model import Backbone

T = TypeVar("T")


class Engine(Protocol):
    """Runs a frozen backbone with the adapters of a bank; `bank` may be None: the bare backbone.

        engine, why = engine_for(backbone, bank)
        losses = engine.token_losses(local, wave)     # [n] nats, on the graph of the bank's tensors
        losses.backward(weights)                # gradients of the adapters
        replies = engine.replies(bank, rows, prompts, max_new_tokens=60, stop_id=2)
        nats = engine.reply_nll(bank, rows, prompts, replies)
        log_probs = engine.choice_log_probs(bank, rows, prompts, choices)

    An implementation writes what has no body here; the other three follow from it.

    name  as in the configuration
    """

    name: str
    backbone: Backbone

    @property
    def workers(self) -> int:
        """Pieces of work that can be computed side by side; to be asked before they are, see `side_by_side`."""
        return 1

    def token_losses(self, bank: Bank | None, wave: Wave, dropout_seeds: Tensor | None = None) -> Tensor:
        """Cross-entropy in nats of each target of a wave, [n], in fp32 (fp64 on an fp64 backbone).

        bank           the U adapters of the wave
        dropout_seeds  [B], only while training with dropout
        """
        ...

    def cut(self, bank: Bank | None, entries: Sequence[Entry], budget_tokens: int, workers: int) -> list[list[Entry]]:
        """Rows in waves of about `budget_tokens`, by their content alone, shared out evenly among the workers."""
        ...

    def lengths(self, bank: Bank | None, entries: Sequence[Entry]) -> list[int]:
        """Tokens of each row of a wave that go through the layers, virtual ones and padding included."""
        ...

    def each_batch(
        self,
        bank: Bank | None,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        room: int,
        batch_tokens: int,
        work: Callable[[Batch, list[int]], T],
    ) -> list[T]:
        """Call `work` with every batch of prompts, and with the index of each batch row's prompt.

        room   how many tokens will be fed after each prompt at most
        """
        ...

    def can_take_back(self) -> bool:
        """Whether batches can forget a token that was fed."""
        ...

    def replies(
        self,
        bank: Bank | None,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop_id: int,
        batch_tokens: int = BATCH_TOKENS,
        progress: ProgressCallback | None = None,
    ) -> list[list[int]]:
        """Decode a reply to each prompt, greedily, until `stop_id` or `max_new_tokens`.

        rows          bank row per prompt; -1 means no adapter
        prompts       token ids per prompt, generation prompt included
        batch_tokens  limit of rows x columns of a batch; together with prompts and rows it fixes the batches
        progress      called with (replies finished, replies in all)

        Returns the new tokens per prompt in the given order, without the stop token; a reply may be empty.
        Raises HarnessError before starting if a prompt with its reply does not fit the model's positions.
        """
        check_prompts(self.backbone, bank, rows, prompts, [max_new_tokens] * len(prompts))
        if max_new_tokens <= 0 or not prompts:
            return [[] for _ in prompts]
        count = _Count(len(prompts), progress)

        def work(batch: Batch, indices: list[int]) -> dict[int, list[int]]:
            return decode(batch, indices, max_new_tokens, stop_id, count.add)

        found: dict[int, list[int]] = {}
        for part in self.each_batch(bank, rows, prompts, max_new_tokens - 1, batch_tokens, work):
            found |= part
        return [found[index] for index in range(len(prompts))]

    def reply_nll(
        self,
        bank: Bank | None,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Sequence[int]],
        *,
        batch_tokens: int = BATCH_TOKENS,
        progress: ProgressCallback | None = None,
    ) -> list[NDArray[np.float64]]:
        """Negative log-probabilities [number of tokens], in nats, of the tokens of each reply after its prompt.

        rows     bank row per prompt; -1 means no adapter
        prompts  token ids per prompt, generation prompt included
        replies  token ids per reply, end-of-turn token included (it counts)

        Raises HarnessError before starting if a prompt with its reply does not fit the model's positions.
        """
        check_prompts(self.backbone, bank, rows, prompts, [len(reply) for reply in replies])
        fed = 0 if bank is None else bank.prefix_tokens
        entries = reply_entries(rows, prompts, replies, [fed if row >= 0 else 0 for row in rows])
        readers = {entry.place: order for entry, order in entries}
        results = [np.zeros(0)] * len(prompts)
        count = _Count(len(prompts), progress)

        def work(wave: Wave) -> None:
            used = None if bank is None or wave.adapters[0] < 0 else bank.select(wave.adapters)
            with torch.no_grad():  # a thread starts with gradients
                nats = self.token_losses(used, wave).double().cpu().numpy()
            order = [index for entry in wave.entries for index in readers[entry.place]]
            ends = np.cumsum([len(replies[index]) for index in order])
            for index, own in zip(order, np.split(nats, ends[:-1]), strict=True):
                results[index] = own.copy()  # not a view, which would keep the whole wave
            count.add(len(order))

        waves = []
        for used in [None] if bank is None else [bank, None]:  # rows without an adapter get waves of their own
            some = [entry for entry, _ in entries if (entry.adapter >= 0) == (used is not None)]
            prefix = 0 if used is None else used.prefix_tokens
            for part in self.cut(used, some, forward_tokens(self.backbone, batch_tokens), self.workers) if some else []:
                waves.append(collate(part, prefix, self.backbone.device))
        with side_by_side(self.workers) as each:
            each(work, waves)
        return results

    def choice_log_probs(
        self,
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
        root, C = Choices.of(choices), len(choices)
        longest = max(map(len, choices))
        check_prompts(self.backbone, bank, rows, prompts, [longest] * len(prompts))
        if not self.can_take_back():  # then every choice is a reply of its own
            found = self.reply_nll(
                bank,
                [row for row in rows for _ in range(C)],
                [prompt for prompt in prompts for _ in range(C)],
                [choice for _ in prompts for choice in choices],
                batch_tokens=batch_tokens,
                progress=None if progress is None else lambda done, total: progress(done // C, total // C),
            )
            return normalised(-np.array([nats.sum() for nats in found]).reshape(len(prompts), C))
        scores = np.zeros((len(prompts), C))
        count = _Count(len(prompts), progress)

        def work(batch: Batch, indices: list[int]) -> None:
            found = torch.zeros(len(indices), C, dtype=torch.float64, device=self.backbone.device)
            root.weigh(batch, found)
            scores[indices] = found.cpu().numpy()
            count.add(len(indices))

        self.each_batch(bank, rows, prompts, longest - 1, batch_tokens, work)
        return normalised(scores)


class _Count:
    """Counts what is finished, whichever thread finished it."""

    def __init__(self, total: int, progress: ProgressCallback | None) -> None:
        self.total, self.progress = total, progress
        self.finished = 0
        self.lock = threading.Lock()

    def add(self, count: int) -> None:
        with self.lock:
            self.finished += count
            if self.progress is not None:
                self.progress(self.finished, self.total)
