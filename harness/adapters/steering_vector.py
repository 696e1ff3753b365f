"""Steering vectors: a vector that is added to the output of one block, or to what the head reads, at every token.

How a vector is found, by training or as a difference of hidden states, is a method's. Legend: D hidden, G runs of rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from harness.adapters.bank import Bank, BaseFacts, Seeds, master_dtype, rows_of, runs_of
from harness.contract import AdapterKind, SteeringVector
from harness.errors import HarnessError
from harness.model import Backbone

VECTOR = "vector"


class SteeringVectorBank(Bank):
    """N vectors; tensor `vector` [N, D]."""

    spec: SteeringVector

    @contextlib.contextmanager
    def applied(self, model: Any, rows: Tensor, *, dropout_seeds: Tensor | None = None) -> Iterator[None]:
        groups, used = runs_of(rows)
        chosen = rows_of(self.tensors[VECTOR], used)  # [G, D]

        def add(states: Tensor) -> Tensor:
            runs = states.reshape(groups, -1, states.shape[-1])
            return (runs + chosen[:, None].to(states.dtype)).view(states.shape)

        (place,) = self.added()
        with on_states(model, place, add):
            yield

    def low_rank(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {}

    def added(self) -> dict[int, Tensor]:
        assert self.base.layers is not None
        return {block_number(self.spec.layer, self.base.layers): self.tensors[VECTOR]}


def block_number(layer: int | None, layers: int) -> int:
    """A block from 0; one past the last for None. Raises HarnessError for one that the model does not have."""
    if layer is None:
        return layers
    if not -layers <= layer < layers:
        raise HarnessError(f"the model has {layers} blocks, and layer {layer} is none of them; take 0 to {layers - 1}")
    return layer % layers


def decoder_blocks(model: Any, layers: int) -> nn.ModuleList:
    """The model's blocks, from the first. Raises HarnessError for a model without a list of them."""
    found = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == layers)
    if blocks := next(found, None):
        return blocks
    raise HarnessError(f"{type(model).__name__} has no list of {layers} blocks whose outputs could be changed")


@contextlib.contextmanager
def on_states(model: Any, place: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, `change` of the hidden states [B, T, D] behind a block stands in their place; one past the last
    block: of those that the head reads. Raises HarnessError for a model in which they cannot be reached."""
    layers = model.config.get_text_config().num_hidden_layers

    def behind_block(module: Any, inputs: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    changed = False  # by the body, which an engine may call alone; not every model calls its own as a whole

    def behind_norm(module: Any, inputs: Any, output: Any) -> Any:
        nonlocal changed
        output.last_hidden_state, changed = change(output.last_hidden_state), True
        return output

    def before_head(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal changed
        done, changed = changed, False
        return inputs if done else (change(inputs[0]), *inputs[1:])

    with contextlib.ExitStack() as stack:
        if place < layers:
            stack.callback(decoder_blocks(model, layers)[place].register_forward_hook(behind_block).remove)
        else:
            if model.base_model is not model:
                stack.callback(model.base_model.register_forward_hook(behind_norm).remove)
            stack.callback(model.get_output_embeddings().register_forward_pre_hook(before_head).remove)
        yield


def create_steering_vectors(backbone: Backbone, spec: SteeringVector, count: int, seeds: Seeds) -> SteeringVectorBank:
    """N vectors of zeros, which change nothing. Raises HarnessError for a layer that is not there."""
    facts = BaseFacts.of(backbone)
    if facts.layers is None:
        raise HarnessError(f"{backbone.name} does not say how many blocks it has; a steering vector needs one of them")
    block_number(spec.layer, facts.layers)
    zeros = torch.zeros(count, facts.hidden, dtype=master_dtype(backbone.dtype), device=backbone.device)
    return SteeringVectorBank(spec, {VECTOR: zeros}, facts)


KIND = AdapterKind(
    "steering_vector", "a vector added to the output of one block", SteeringVector, create_steering_vectors
)
