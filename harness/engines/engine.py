"""One seam for every forward pass: an `Engine` runs a backbone with adapters. Which engine serves is decided here.

    engine, why = engine_for(backbone, bank)
    losses = engine.token_losses(bank, wave)                      # [n], their backward gives the bank's gradients
    replies = engine.replies(bank, rows, prompts, max_new_tokens=40, stop_id=2)

`auto` takes `llama_cpu` where it serves the backbone and the kind of adapter, else `transformers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.adapters import Bank
from harness.engines.batching import Wave
from harness.engines.decoding import BATCH_TOKENS, ProgressCallback, check_prompts
from harness.engines.llama_cpu.engine import LlamaCpuEngine, laid_out
from harness.engines.llama_cpu.scripted import slowed
from harness.engines.transformers_engine import TransformersEngine
from harness.errors import HarnessError
from harness.model import ENGINES, Backbone

Ids = Sequence[Sequence[int]]  # token ids of each text


class Engine(Protocol):
    """How a backbone is run with a bank's adapters; row -1 means no adapter. B texts, n labels of a wave.

    name    "transformers" or "llama_cpu"
    packed  whether rows of a wave lie one after the other without padding; then waves are computed side by side
    """

    name: str
    packed: bool

    def token_losses(self, bank: Bank, wave: Wave, dropout_seeds: Tensor | None = None) -> Tensor:
        """Cross-entropy in nats of each target of a wave, [n], in fp32 (fp64 on an fp64 backbone).

        bank           the U adapters of the wave
        dropout_seeds  [B], only while training with dropout
        """
        ...

    def replies(
        self,
        bank: Bank | None,
        rows: Sequence[int],
        prompts: Ids,
        *,
        max_new_tokens: int,
        stop_id: int,
        batch_tokens: int = BATCH_TOKENS,
        progress: ProgressCallback | None = None,
    ) -> list[list[int]]:
        """Greedy new tokens of each of the B prompts, without the stop token; all rows have an adapter, or none has.

        batch_tokens  limit of rows x columns of a batch; together with prompts and rows it fixes the batches
        """
        ...

    def reply_nll(
        self,
        bank: Bank | None,
        rows: Sequence[int],
        prompts: Ids,
        replies: Ids,
        *,
        progress: ProgressCallback | None = None,
    ) -> list[tuple[float, int]]:
        """(summed nats, tokens) of each reply after its prompt."""
        ...

    def choice_log_probs(
        self,
        bank: Bank | None,
        rows: Sequence[int],
        prompts: Ids,
        choices: Ids,
        *,
        progress: ProgressCallback | None = None,
    ) -> NDArray[np.float64]:
        """[B, C] log-probabilities of the choices after each prompt, normalised over the choices."""
        ...


def engine_for(backbone: Backbone, bank: Bank | None = None, *, dropout: bool = False) -> tuple[Engine, str]:
    """The engine that runs this backbone with this kind of adapters, and why not a faster way ("": it is the fastest).

    Raises HarnessError where the configuration asks for `llama_cpu` and it cannot serve them.
    """
    if backbone.engine == "transformers":
        return TransformersEngine(backbone), "it was asked for"
    found = laid_out(backbone)
    why = found if isinstance(found, str) else found.why_not(bank, dropout)
    if not why and isinstance(found, LlamaCpuEngine):
        return found, slowed()
    if backbone.engine == "llama_cpu":
        raise HarnessError(f"engine llama_cpu cannot be used: {why}; take --engine auto or transformers ({ENGINES})")
    return TransformersEngine(backbone), why


def generate(
    backbone: Backbone,
    bank: Bank | None,
    rows: Sequence[int],
    prompts: Ids,
    *,
    max_new_tokens: int,
    stop_id: int,
    batch_tokens: int = BATCH_TOKENS,
    progress: ProgressCallback | None = None,
) -> list[list[int]]:
    """Decode a reply to each prompt, greedily, until `stop_id` or `max_new_tokens`, each by the engine that serves it.

    rows      bank row per prompt; -1 means no adapter
    prompts   token ids per prompt, generation prompt included
    progress  called with (replies finished, replies in all)

    Returns the new tokens per prompt in the given order, without the stop token; a reply may be empty.
    Raises HarnessError before starting if a prompt with its reply does not fit the model's positions.
    """
    check_prompts(backbone, bank, rows, prompts, [max_new_tokens] * len(prompts))
    replies: list[list[int]] = [[] for _ in prompts]
    finished = 0
    for used in [None] if bank is None else [bank, None]:
        some = [i for i, row in enumerate(rows) if (row >= 0) == (used is not None)]
        if not some or max_new_tokens <= 0:
            continue
        before = finished
        found = engine_for(backbone, used)[0].replies(
            used, [rows[i] for i in some], [prompts[i] for i in some], max_new_tokens=max_new_tokens, stop_id=stop_id,
            batch_tokens=batch_tokens,
            progress=None if progress is None else lambda done, _, before=before: progress(before + done, len(prompts)),
        )  # fmt: skip
        for i, reply in zip(some, found, strict=True):
            replies[i] = reply
        finished += len(some)
    return replies
