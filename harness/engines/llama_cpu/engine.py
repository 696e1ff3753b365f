"""The engine `llama_cpu`: packed training and shared-prefix decoding of Llama-like models in fp32 or fp64 on a CPU.

The weights are laid out once a backbone. Likelihood and choices go through the model's own forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.adapters import Bank
from harness.engines.batching import Wave
from harness.engines.decoding import BATCH_TOKENS, ProgressCallback, plan_passes, virtual_tokens
from harness.engines.generation import Finished, decode
from harness.engines.head import head_losses
from harness.engines.llama_cpu.cached_decoder import CachedDecoder, DecoderBatch
from harness.engines.llama_cpu.decoder import Decoder, read_decoder
from harness.engines.llama_cpu.decoder_pass import hidden_states, run
from harness.engines.llama_cpu.packed import pack_ids
from harness.engines.parallel import side_by_side
from harness.engines.transformers_engine import TransformersEngine, close
from harness.model import Backbone

MEMO = "llama_cpu engine"


def laid_out(backbone: Backbone) -> LlamaCpuEngine | str:
    """The engine of a backbone with its weights laid out, made once; or why this backbone cannot have one."""
    if MEMO not in backbone.memo:
        decoder = read_decoder(backbone)
        why = decoder if isinstance(decoder, str) else _disagreement(backbone, decoder)
        backbone.memo[MEMO] = why or LlamaCpuEngine(backbone, decoder)  # pyright: ignore[reportArgumentType]
    return backbone.memo[MEMO]


def _disagreement(backbone: Backbone, decoder: Decoder) -> str:
    """A structure that looks right may compute something else: its logits must be the model's own."""
    ids = torch.randint(len(decoder.table), (2, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = backbone.model(input_ids=ids, use_cache=False).logits
        found = backbone.model.get_output_embeddings()(run(decoder, pack_ids(ids))).view_as(wanted)
    return "" if close(found, wanted) else "the laid-out weights give other logits than the model itself"


class LlamaCpuEngine:
    """See `engine.Engine`."""

    name = "llama_cpu"
    packed = True

    def __init__(self, backbone: Backbone, decoder: Decoder) -> None:
        self.backbone, self.decoder = backbone, decoder

    def why_not(self, bank: Bank | None, dropout: bool) -> str:
        """Why this kind of adapters needs the model's own forward; "" where it does not."""
        if dropout:
            return "adapters with dropout hook into the model"
        low_rank = None if bank is None else bank.low_rank()
        if bank is not None and (low_rank is None or not set(low_rank) <= set(self.decoder.places)):
            return f"adapters of the kind {type(bank.spec).__name__} hook into the model"
        return ""

    def token_losses(self, bank: Bank, wave: Wave, dropout_seeds: Tensor | None = None) -> Tensor:
        """Cross-entropy [n] in nats of each target of a wave; see `engine.Engine`."""
        hidden = hidden_states(self.decoder, bank, wave)
        return head_losses(self.backbone.model.get_output_embeddings(), hidden, wave.targets)

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
        """Greedy replies; the prompts of one dialogue share a prefill, and each thread takes whole batches."""
        replies: list[list[int]] = [[] for _ in prompts]
        finished = Finished(len(prompts), progress)
        longest = max(map(len, prompts)) + virtual_tokens(bank) + max_new_tokens
        with torch.no_grad():
            model = CachedDecoder(self.backbone, self.decoder, bank, longest)

        def one(passes: list[list[int]]) -> None:
            with torch.no_grad():  # a thread starts with gradients
                ends = [prompts[chain[-1]] for chain in passes]
                lengths = [[len(prompts[i]) for i in chain] for chain in passes]
                batch = DecoderBatch(model, ends, lengths, [rows[chain[-1]] for chain in passes], max_new_tokens - 1)
                decode(batch, [i for chain in passes for i in chain], replies, max_new_tokens, stop_id, finished)

        workers = torch.get_num_threads()
        with side_by_side(workers) as each:
            each(one, plan_passes(prompts, rows, max_new_tokens, batch_tokens, workers))
        return replies

    def reply_nll(self, bank: Bank | None, rows: Any, prompts: Any, replies: Any, *, progress: Any = None) -> Any:
        """By the model's own forward; see `likelihood.reply_nll`."""
        return TransformersEngine(self.backbone).reply_nll(bank, rows, prompts, replies, progress=progress)

    def choice_log_probs(
        self, bank: Bank | None, rows: Any, prompts: Any, choices: Any, *, progress: Any = None
    ) -> Any:
        """By the model's own forward; see `likelihood.choice_log_probs`."""
        return TransformersEngine(self.backbone).choice_log_probs(bank, rows, prompts, choices, progress=progress)
