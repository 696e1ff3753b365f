"""IA3 (Liu et al. 2022) for chosen linear layers: each of a layer's outputs is multiplied by a trained number.

Files are those of PEFT's IA3, so that PeftModel.from_pretrained loads them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from harness import HarnessError
from harness.adapters import Bank, BaseFacts, master_dtype, rows_of, runs_of


class ScalingBank(Bank):
    """N vectors a layer; tensors `<module>` [N, out]."""

    @classmethod
    def fresh(cls, backbone: Any, spec: Any, count: int) -> Self:
        """N adapters that change nothing yet: every factor is 1."""
        dtype = master_dtype(backbone.dtype)
        modules = backbone.model.named_modules()
        layers = {name: module for name, module in modules if name.rpartition(".")[2] in spec.targets}
        if not layers:
            raise HarnessError(f"no layer of {backbone.name} is called {' or '.join(spec.targets)}")
        tensors = {
            name: torch.ones(count, layer.out_features, dtype=dtype, device=backbone.device)
            for name, layer in layers.items()
        }
        return cls(spec, tensors, BaseFacts.of(backbone))

    @contextlib.contextmanager
    def applied(self, model: Any, rows: Tensor, *, dropout_seeds: Tensor | None = None) -> Iterator[None]:
        groups, used = runs_of(rows)
        hooks = []
        try:
            for name, factors in self.tensors.items():
                hooks.append(model.get_submodule(name).register_forward_hook(_scaled(rows_of(factors, used), groups)))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def peft_config(self) -> dict[str, Any]:
        return {"peft_type": "IA3", "target_modules": list(self.spec.targets), "feedforward_modules": []}

    def to_file(self, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"base_model.model.{name}.ia3_l": factors[:, None] for name, factors in adapter.items()}


def _scaled(factors: Tensor, groups: int) -> Any:
    """Hook for one layer. factors [G, out]; the layer's output is [B, T, out]."""

    def hook(module: Any, inputs: Any, output: Tensor) -> Tensor:
        runs = output.reshape(groups, -1, output.shape[-1])
        return (runs * factors[:, None].to(output.dtype)).view(output.shape)

    return hook
