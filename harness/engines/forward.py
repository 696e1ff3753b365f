"""Token losses of a frozen causal LM with adapters: the body once, the head on label positions only.

Used by training and by its validation; decoding is elsewhere. Legend: B rows, T tokens, P virtual tokens,
D hidden, V vocabulary, n label positions of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.adapters import Bank, filled_cache
from harness.engines.batching import Wave
from harness.engines.llama_cpu.decoder import Decoder, read_decoder
from harness.engines.llama_cpu.decoder_pass import hidden_states, run
from harness.engines.llama_cpu.packed import pack_ids
from harness.errors import HarnessError
from harness.model import Backbone

# Logits that exist at one time. On a CPU a block should stay in the second-level cache.
BLOCK_NUMBERS = {"cpu": 2**19, "cuda": 2**27}
LEAST_ROWS = 64  # of a block: with a large vocabulary the head's weights are read anew for each


@dataclass(frozen=True, eq=False)
class LabelForward:
    """How this backbone is run; made by `prepare`.

    backbone  the frozen model
    mask      what its body takes as attention mask so that it builds none (right-padded rows need none)
    split     whether body and head can be called apart; else the whole model gives all logits
    decoder   the body's weights laid out for decoder_pass, where the model is of that kind
    """

    backbone: Backbone
    mask: dict[str, None] | None
    split: bool
    decoder: Decoder | None = None

    def by_hand(self, bank: Bank, dropout: bool) -> bool:
        """Whether adapters of this kind go through decoder_pass, which hooks nothing into the model."""
        return self.decoder is not None and not dropout and takes_by_hand(self.decoder, bank)

    def token_losses(self, bank: Bank, wave: Wave, dropout_seeds: Tensor | None = None) -> Tensor:
        """Cross-entropy in nats of each target of a wave, [n], in fp32 (fp64 on an fp64 backbone).

        bank           the U adapters of the wave
        dropout_seeds  [B], only while training with dropout
        """
        model = self.backbone.model
        head = model.get_output_embeddings()
        if self.decoder is not None and self.by_hand(bank, dropout_seeds is not None):
            hidden = hidden_states(self.decoder, bank, wave)
            return _HeadLoss.apply(hidden, head.weight, head.bias, wave.targets)  # pyright: ignore[reportReturnType]
        embedded = model.get_input_embeddings()(wave.ids)
        prefix = bank.prefix(wave.rows)
        if prefix is not None:
            embedded = torch.cat([prefix, embedded], dim=1)
        inputs: dict[str, Any] = {"inputs_embeds": embedded, "attention_mask": self.mask, "use_cache": False}
        past = bank.cache_prefix(wave.rows)
        if past is not None:
            # Behind a cache the model must build its mask: causal attention without one would hide the last columns.
            inputs |= {"attention_mask": None, "use_cache": True, "past_key_values": filled_cache(model, past)}
        with bank.applied(model, wave.rows, dropout_seeds=dropout_seeds):
            if not self.split:
                chosen = model(**inputs).logits.flatten(0, 1).index_select(0, wave.index)
                return F.cross_entropy(_wide(chosen), wave.targets, reduction="none")
            hidden = model.base_model(**inputs).last_hidden_state.flatten(0, 1).index_select(0, wave.index)
        return _HeadLoss.apply(hidden, head.weight, head.bias, wave.targets)  # pyright: ignore[reportReturnType]


def prepare(backbone: Backbone) -> LabelForward:
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
        if not _close(model(inputs_embeds=embedded, use_cache=False).logits[:, :5], wanted):
            raise HarnessError(
                f"backbone {backbone.name!r} ({type(model).__name__}) lets later tokens change earlier "
                "predictions; only causal language models can be trained here"
            )
        for mask in ({"full_attention": None}, None):
            try:
                hidden = _body(model, embedded, mask)
                logits = model.get_output_embeddings()(hidden)[:, :5]
            except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):
                continue  # this architecture does not take that mask, or names its parts otherwise
            if isinstance(model.get_output_embeddings(), nn.Linear) and _close(logits, wanted):
                return LabelForward(backbone, mask, split=True, decoder=tried_decoder(backbone))
    return LabelForward(backbone, None, split=False)


def tried_decoder(backbone: Backbone) -> Decoder | None:
    """The backbone's decoder, if it is of that kind and computes the same logits as the model itself."""
    decoder = read_decoder(backbone)
    if decoder is None:
        return None
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(len(decoder.table), (2, 8), generator=generator)
    with torch.no_grad():
        wanted = backbone.model(input_ids=ids, use_cache=False).logits
        found = backbone.model.get_output_embeddings()(run(decoder, pack_ids(ids))).view_as(wanted)
    return decoder if _close(found, wanted) else None


def takes_by_hand(decoder: Decoder, bank: Bank) -> bool:
    """Whether adapters of this kind go through a decoder by hand, which hooks nothing into the model."""
    low_rank = bank.low_rank()
    return low_rank is not None and set(low_rank) <= set(decoder.places)


def _body(model: Any, embedded: Tensor, mask: dict[str, None] | None) -> Tensor:
    """Hidden states [B, P + T, D] after the last layer and its norm."""
    return model.base_model(inputs_embeds=embedded, attention_mask=mask, use_cache=False).last_hidden_state


def rows_of_logits(device_type: str, vocabulary: int) -> int:
    """Label positions whose logits exist at one time."""
    return max(LEAST_ROWS, BLOCK_NUMBERS.get(device_type, 2**24) // vocabulary)


def _close(got: Tensor, wanted: Tensor) -> bool:
    tolerance = 0.05 if wanted.dtype in (torch.bfloat16, torch.float16) else 1e-3
    return torch.allclose(got, wanted, rtol=tolerance, atol=tolerance * float(wanted.float().std()))


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


class _HeadLoss(torch.autograd.Function):
    """Cross-entropy of a frozen linear head, block by block, without ever holding all logits.

    The gradient for a hidden state is (softmax - onehot) W; it is cheapest while the block's logits are at
    hand, so the forward computes it and the backward only scales it.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> Tensor:
        block = rows_of_logits(hidden.device.type, weight.shape[0])
        losses, gradients = [], []
        for start in range(0, hidden.shape[0], block):
            part, target = hidden[start : start + block], targets[start : start + block, None]
            logits = _wide(F.linear(part, weight, bias))
            logarithms = logits.log_softmax(dim=1)
            losses.append(-logarithms.gather(1, target).squeeze(1))
            if ctx.needs_input_grad[0]:
                probability = logarithms.exp_()
                probability.scatter_add_(1, target, probability.new_full(target.shape, -1.0))
                gradients.append(probability.to(weight.dtype) @ weight)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradients,) = ctx.saved_tensors
        return gradients * upstream[:, None].to(gradients.dtype), None, None, None
