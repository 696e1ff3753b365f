"""The engine `llama_cpu`: Llama-like decoders in fp32 or fp64 on a CPU, rows without padding, a thread a wave.

Adapters are soft prompts, prefixes of keys and values, low-rank updates, and added vectors. See `Engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from harness.adapters import Bank
from harness.engines.batching import Entry, Wave, share_out
from harness.engines.decoding import Batch, plan_passes, virtual_tokens
from harness.engines.engine import Engine
from harness.engines.head import close, head_losses
from harness.engines.llama_cpu.batch import DecoderBatch, Served
from harness.engines.llama_cpu.decoder import UnsupportedError, read_decoder
from harness.engines.llama_cpu.layers import changes_of, hidden_states
from harness.engines.llama_cpu.packed import Packed, pack
from harness.engines.parallel import side_by_side
from harness.model import Backbone

T = TypeVar("T")


class LlamaCpuEngine(Engine):
    """See Engine. The weights are laid out once, here.

    Raises UnsupportedError if the backbone is no such decoder, or computes other logits than its structure suggests.
    """

    name = "llama_cpu"

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.decoder = read_decoder(backbone)
        self.head: torch.nn.Linear = backbone.model.get_output_embeddings()
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(len(self.decoder.table), (2, 8), generator=generator)
        every = [torch.arange(8).numpy()] * 2
        with torch.no_grad():
            wanted = backbone.model(input_ids=ids, use_cache=False).logits
            found = self.head(self._hidden(None, pack(list(ids.numpy()), every, [0, 0], 0), torch.zeros(2).long()))
        if not close(found.view_as(wanted), wanted):
            raise UnsupportedError(f"{type(backbone.model).__name__} computes other logits than its layers suggest")

    @property
    def workers(self) -> int:
        """Threads that each take whole waves or batches: none waits for another inside a product."""
        return torch.get_num_threads()

    def cannot_serve(self, bank: Bank | None, dropout: bool) -> str:
        """Why adapters cannot be served here, or not be trained with dropout; empty if they can."""
        if bank is None:
            return ""
        low_rank = bank.low_rank()
        if low_rank is None:
            return f"adapters of the kind {type(bank.spec).__name__} change the inside of the layers"
        if elsewhere := sorted(set(low_rank) - set(self.decoder.places)):
            return f"the adapters change {elsewhere[0]}, which is no projection of a layer"
        return "it does not train with dropout" if dropout else ""

    def token_losses(self, bank: Bank | None, wave: Wave, dropout_seeds: Tensor | None = None) -> Tensor:
        virtual, cached = virtual_tokens(bank), 0 if bank is None else bank.cached_tokens
        owners = wave.rows.tolist()
        inputs = [entry.row.inputs for entry in wave.entries]
        packed = pack(inputs, [entry.row.positions + cached for entry in wave.entries], owners, virtual)
        return head_losses(self._hidden(bank, packed, wave.rows), self.head, wave.targets)

    def _hidden(self, bank: Bank | None, packed: Packed, rows: Tensor) -> Tensor:
        """Hidden states [n, D] at the label positions of packed rows with adapters `rows` [B]."""
        return hidden_states(self.decoder, changes_of(self.decoder, bank), bank, packed, rows)

    def cut(self, bank: Bank | None, entries: Sequence[Entry], budget_tokens: int, workers: int) -> list[list[Entry]]:
        return share_out(entries, virtual_tokens(bank), budget_tokens, workers)

    def lengths(self, bank: Bank | None, entries: Sequence[Entry]) -> list[int]:
        return [virtual_tokens(bank) + len(entry.row.inputs) for entry in entries]

    def each_batch(
        self,
        bank: Bank | None,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        room: int,
        batch_tokens: int,
        work: Callable[[Batch, list[int]], T],
    ) -> list[T]:
        found: list[T] = []
        for used in [None] if bank is None else [bank, None]:
            some = [i for i, row in enumerate(rows) if (row >= 0) == (used is not None)]
            if not some:
                continue
            longest = max(len(prompts[i]) for i in some) + virtual_tokens(used) + room + 1
            with torch.no_grad():
                served = Served(self.decoder, self.head, used, longest)

            def one(passes: list[list[int]], served: Served = served) -> T:
                with torch.no_grad():  # a thread starts with gradients
                    longest = [prompts[chain[-1]] for chain in passes]
                    lengths = [[len(prompts[i]) for i in chain] for chain in passes]
                    batch = DecoderBatch(served, longest, lengths, [rows[chain[-1]] for chain in passes], room)
                    return work(batch, [i for chain in passes for i in chain])

            asked, served_by = [prompts[i] for i in some], [rows[i] for i in some]
            plan = plan_passes(asked, served_by, room + 1, batch_tokens, self.workers)
            with side_by_side(self.workers) as each:
                found += each(one, [[[some[i] for i in chain] for chain in passes] for passes in plan])
        return found

    def can_take_back(self) -> bool:
        return True
