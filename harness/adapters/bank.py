"""What every bank of adapters is: one tensor per part, with the N adapters in its leading dimension.

The kinds of adapter are in the neighbouring files; training, decoding and files are elsewhere.
Legend: N adapters, B rows of a batch, T tokens, P virtual tokens, D hidden.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from harness.errors import HarnessError, did_you_mean
from harness.model import Backbone

T = TypeVar("T")
# Part of an adapter -> an integer for each of the N adapters, which follows from the fit's seed and its key alone.
Seeds = Callable[[str], list[int]]


@dataclass(frozen=True)
class BaseFacts:
    """What a bank must know of its backbone; layers and heads only for PEFT's configuration file."""

    fingerprint: str
    dtype: torch.dtype
    hidden: int
    layers: int | None
    heads: int | None

    @classmethod
    def of(cls, backbone: Backbone) -> BaseFacts:
        config = backbone.model.config.get_text_config()
        return cls(
            fingerprint=backbone.fingerprint,
            dtype=backbone.dtype,
            hidden=backbone.hidden,
            layers=getattr(config, "num_hidden_layers", None),
            heads=getattr(config, "num_attention_heads", None),
        )


@dataclass(frozen=True, eq=False)
class Bank(ABC):
    """N adapters of one kind on one backbone. Row i belongs to keys[i].

    A kind of adapter is a subclass, made by the `create` of its `harness.AdapterKind`. It must say what `applied` does
    in the model; the other methods have defaults for a kind that only does that.

    spec     the adapter's shape, an instance of the kind's spec
    tensors  name -> [N, ...]; fp32, or fp64 on an fp64 backbone, whatever the backbone computes in
    base     the backbone they were made for
    keys     N distinct names, e.g. persona ids; any text. The harness gives them; training goes by rows
    """

    spec: Any
    tensors: dict[str, Tensor]
    base: BaseFacts
    keys: tuple[str, ...] = field(default=(), kw_only=True)

    @abstractmethod
    def applied(self, model: Any, rows: Tensor, *, dropout_seeds: Tensor | None = None) -> AbstractContextManager[None]:
        """While open, a forward of `model` on B rows uses adapter rows[b] in row b.

        rows           [B] long, in any order (equal rows side by side are faster)
        dropout_seeds  [B] int64, only while training with dropout: row b's masks follow from its number
        """

    def prefix(self, rows: Tensor) -> Tensor | None:
        """Input embeddings [B, P, D] that stand in front of the tokens, for bank rows [B]; None: nothing."""
        return None

    @property
    def prefix_tokens(self) -> int:
        """P, virtual tokens that are fed in front of every row and have hidden states; 0 for a kind without any."""
        return 0

    @property
    def cached_tokens(self) -> int:
        """P, virtual tokens that are keys and values only: they take positions, but nothing is fed for them."""
        return 0

    def cache_prefix(self, rows: Tensor) -> list[tuple[Tensor, Tensor]] | None:
        """(keys, values) of each layer, [B, heads, P, d] each, that stand first in the cache; None: nothing."""
        return None

    def weight_deltas(self, row: int) -> dict[str, Tensor]:
        """Module name -> what adapter `row` adds to that layer's weight [out, in], in the bank's dtype.

        Raises HarnessError for a kind of adapter that is no change of weights.
        """
        kind = type(self.spec).__name__
        raise HarnessError(f"a {kind} is no change of weights and cannot be merged; a LoRA can")

    def served(self) -> dict[str, Tensor]:
        """The tensors as they are used and saved: those of the bank, unless its kind trains others than it serves."""
        return self.tensors

    def low_rank(self) -> dict[str, tuple[Tensor, Tensor]] | None:
        """What the N adapters do inside the model: module name -> (a [N, rank, in], b [N, out, rank]), W x + b a x.

        Empty for a kind that only stands in front of the tokens, as embeddings or as keys and values; None for one that
        does something else.
        """
        return None

    def added(self) -> dict[int, Tensor]:
        """Block -> [N, D] what the N adapters add to its output at every token; one past the last block: to the hidden
        states that the head reads. Empty for a kind that adds none, and where `low_rank` is None."""
        return {}

    @property
    def dropout(self) -> float:
        """Share of an adapter's input that training drops; then `applied` wants dropout seeds."""
        return 0.0

    def words(self, row: int, tokenizer: Any) -> list[str] | None:
        """What adapter `row` reads as, a text a virtual token; None for a kind that is no text."""
        return None

    # ---- PEFT's format, where PEFT has the kind ----

    def peft_config(self) -> dict[str, Any]:
        """What adapter_config.json says of these adapters besides the base model; `peft_type` may be left out."""
        return {}

    def to_file(self, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of one adapter, without their leading dimension, as its file names and shapes them."""
        return dict(adapter)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def trainable_per_adapter(self) -> int:
        """Numbers that one adapter has."""
        return sum(tensor[0].numel() for tensor in self.tensors.values())

    @property
    def stored_bytes(self) -> int:
        """Bytes of all N adapters."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def with_tensors(self, tensors: Mapping[str, Tensor], rows: Sequence[int] | None = None) -> Self:
        """The same kind of bank around other tensors, those of `rows` of this one; no copy is made. None: of all."""
        return replace(
            self, tensors=dict(tensors), keys=self.keys if rows is None else tuple(self.keys[row] for row in rows)
        )

    def select(self, rows: Sequence[int]) -> Self:
        """A bank of copies of these rows, in this order. Raises HarnessError for a row that is not there."""
        wrong = [row for row in rows if not 0 <= row < len(self.keys)]
        if wrong:
            raise HarnessError(f"rows {wrong[:5]} are not in a bank of {len(self.keys)} adapters; rows count from 0")
        return self.with_tensors(
            {name: tensor.detach()[list(rows)].clone() for name, tensor in self.tensors.items()}, rows
        )

    def by_row(self, table: Mapping[str, Sequence[T]]) -> list[Sequence[T]]:
        """What a table by key has for each row; nothing where a key is missing. Raises HarnessError for another key."""
        if unknown := sorted(set(table) - set(self.keys)):
            raise HarnessError(f"the bank has no adapter {unknown[0]!r}; {did_you_mean(unknown[0], self.keys)}")
        return [table.get(key, ()) for key in self.keys]

    def row(self, key: str) -> int:
        """The row of a key. Raises HarnessError if the bank has no such adapter."""
        if key not in self.keys:
            raise HarnessError(f"the bank has no adapter {key!r}; it has {len(self.keys)} others")
        return self.keys.index(key)


def master_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that adapters are kept and updated in: a bf16 step of 1e-3 would be rounded away."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def runs_of(rows: Tensor) -> tuple[int, Tensor]:
    """(G, bank rows [G]): the batch is G runs of equally many rows, each run with one adapter.

    One run needs a plain matrix product, G even runs a batched one; anything else goes row by row (G = B).
    """
    listed = rows.tolist()
    run = next((i for i, row in enumerate(listed) if row != listed[0]), len(listed))
    if len(listed) % run == 0:
        firsts = listed[::run]
        if [row for row in firsts for _ in range(run)] == listed:
            return len(firsts), rows[::run]
    return len(listed), rows


def rows_of(tensor: Tensor, rows: Tensor) -> Tensor:
    """tensor[rows]; its backward adds repeated rows in a fixed order, so that equal runs give equal bits."""
    return _Rows.apply(tensor, rows)  # pyright: ignore[reportReturnType]


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rows: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(rows)
        ctx.shape = tensor.shape
        return tensor.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (rows,) = ctx.saved_tensors
        total = gradient.new_zeros(ctx.shape)
        if total.is_cuda:
            total.index_put_((rows,), gradient, accumulate=True)  # sorted there; index_add_ would use atomics
        else:
            total.index_add_(0, rows, gradient)  # serial over rows here; index_put_ would use atomics
        return total, None
