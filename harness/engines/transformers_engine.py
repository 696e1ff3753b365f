"""The engine for any causal LM of transformers, any device and any kind of adapter: the model's own forward.

Training calls the body once and the head on label positions only. Legend: B rows, T tokens, P virtual tokens, D hidden,
V vocabulary, n label positions of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.adapters import Bank, filled_cache
from harness.engines import likelihood
from harness.engines.batching import Wave
from harness.engines.decoding import BATCH_TOKENS, CachedBatch, ProgressCallback, plan_batches, virtual_tokens
from harness.engines.generation import Finished, decode
from harness.engines.head import head_losses, wide
from harness.errors import HarnessError
from harness.model import Backbone

MEMO = "transformers engine"


@dataclass(frozen=True)
class Body:
    """How this architecture is run in training; found once a backbone by `examine`.

    mask   what its body takes as attention mask so that it builds none (right-padded rows need none)
    split  whether body and head can be called apart; else the whole model gives all logits
    """

    mask: dict[str, None] | None
    split: bool


class TransformersEngine:
    """See `engine.Engine`."""

    name = "transformers"
    packed = False

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @property
    def body(self) -> Body:
        if MEMO not in self.backbone.memo:
            self.backbone.memo[MEMO] = examine(self.backbone)
        return self.backbone.memo[MEMO]

    def token_losses(self, bank: Bank, wave: Wave, dropout_seeds: Tensor | None = None) -> Tensor:
        """Cross-entropy [n] in nats of each target of a wave; see `engine.Engine`."""
        model, body = self.backbone.model, self.body
        embedded = model.get_input_embeddings()(wave.ids)
        prefix = bank.prefix(wave.rows)
        if prefix is not None:
            embedded = torch.cat([prefix, embedded], dim=1)
        inputs: dict[str, Any] = {"inputs_embeds": embedded, "attention_mask": body.mask, "use_cache": False}
        past = bank.cache_prefix(wave.rows)
        if past is not None:
            # Behind a cache the model must build its mask: causal attention without one would hide the last columns.
            inputs |= {"attention_mask": None, "use_cache": True, "past_key_values": filled_cache(model, past)}
        with bank.applied(model, wave.rows, dropout_seeds=dropout_seeds):
            if not body.split:
                chosen = model(**inputs).logits.flatten(0, 1).index_select(0, wave.index)
                return F.cross_entropy(wide(chosen), wave.targets, reduction="none")
            hidden = model.base_model(**inputs).last_hidden_state.flatten(0, 1).index_select(0, wave.index)
        return head_losses(model.get_output_embeddings(), hidden, wave.targets)

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
        """Greedy replies; batch_tokens limits rows x columns of a batch, and with the prompts it fixes the batches."""
        replies: list[list[int]] = [[] for _ in prompts]
        finished = Finished(len(prompts), progress)
        extra = [max_new_tokens + virtual_tokens(bank)] * len(prompts)
        with torch.no_grad():
            for places in plan_batches(prompts, rows, extra, batch_tokens):
                chosen = [rows[place] for place in places], [prompts[place] for place in places]
                with CachedBatch(self.backbone, bank, *chosen, max_new_tokens - 1) as batch:
                    decode(batch, places, replies, max_new_tokens, stop_id, finished)
        return replies

    def reply_nll(self, bank: Bank | None, rows: Any, prompts: Any, replies: Any, *, progress: Any = None) -> Any:
        """See `likelihood.reply_nll`."""
        return likelihood.reply_nll(self.backbone, bank, rows, prompts, replies, progress=progress)

    def choice_log_probs(
        self, bank: Bank | None, rows: Any, prompts: Any, choices: Any, *, progress: Any = None
    ) -> Any:
        """See `likelihood.choice_log_probs`."""
        return likelihood.choice_log_probs(self.backbone, bank, rows, prompts, choices, progress=progress)


def examine(backbone: Backbone) -> Body:
    """Find out, by three short forwards, how this architecture can be run without masks and spare logits.

    Raises HarnessError if a later token changes an earlier logit: then the model is not causal.
    """
    model = backbone.model
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(backbone.model.get_input_embeddings().weight.shape[0], (2, 8), generator=generator)
    with torch.no_grad():
        embedded = model.get_input_embeddings()(ids.to(backbone.device))
        short = embedded[:, :5]
        ones = torch.ones(short.shape[:2], dtype=torch.long, device=backbone.device)
        wanted = model(inputs_embeds=short, attention_mask=ones, use_cache=False).logits
        if not close(model(inputs_embeds=embedded, use_cache=False).logits[:, :5], wanted):
            raise HarnessError(
                f"backbone {backbone.name!r} ({type(model).__name__}) lets later tokens change earlier "
                "predictions; only causal language models can be trained here"
            )
        for mask in ({"full_attention": None}, None):
            try:
                hidden = model.base_model(inputs_embeds=embedded, attention_mask=mask, use_cache=False)
                logits = model.get_output_embeddings()(hidden.last_hidden_state)[:, :5]
            except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):
                continue  # this architecture does not take that mask, or names its parts otherwise
            if isinstance(model.get_output_embeddings(), nn.Linear) and close(logits, wanted):
                return Body(mask, split=True)
    return Body(None, split=False)


def close(got: Tensor, wanted: Tensor) -> bool:
    """Whether two ways to compute the same logits agree as well as their dtype lets them."""
    tolerance = 0.05 if wanted.dtype in (torch.bfloat16, torch.float16) else 1e-3
    return torch.allclose(got, wanted, rtol=tolerance, atol=tolerance * float(wanted.float().std()))
