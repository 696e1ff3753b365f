"""LoRA: W x + (alpha / rank) B A x on chosen linear layers (Hu et al. 2021), one A and B per adapter.

The backbone is never changed: forward hooks add the low-rank part while a batch runs. Sums of LoRAs, and a copy of the
backbone with one folded in, are exact on the weight update.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from harness.adapters.bank import Bank, BaseFacts, Seeds, master_dtype, rows_of, runs_of
from harness.contract import ALL_LINEAR, DEFAULT_TARGETS, AdapterKind, LoRA
from harness.errors import HarnessError, did_you_mean
from harness.model import Backbone, freeze

A, B = ".lora_A", ".lora_B"  # tensor name = module name + one of these
IN_FILES = "base_model.model."  # what PEFT puts before a module's name


@dataclass(frozen=True, eq=False)
class LoRABank(Bank):
    """N LoRAs; tensors `<module>.lora_A` [N, rank, in] and `<module>.lora_B` [N, out, rank].

    targets      the adapted layers as PEFT's files name them
    transposed   whether these layers keep their weights as [in, out] (GPT-2's Conv1D)
    """

    spec: LoRA
    targets: tuple[str, ...] = ()
    transposed: bool = False

    @property
    def dropout(self) -> float:
        return self.spec.dropout

    @contextlib.contextmanager
    def applied(self, model: Any, rows: Tensor, *, dropout_seeds: Tensor | None = None) -> Iterator[None]:
        groups, used = runs_of(rows)
        handles = []
        try:
            for number, name in enumerate(self.modules):
                a, b = rows_of(self.tensors[name + A], used), rows_of(self.tensors[name + B], used)
                drop = None
                if self.spec.dropout and dropout_seeds is not None:
                    drop = _dropper(dropout_seeds, number, self.spec.dropout)
                hook = _hook(a, b, self.spec.scale, groups, drop)
                handles.append(model.get_submodule(name).register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def modules(self) -> list[str]:
        """Full names of the adapted layers, in the model's order."""
        return [name.removesuffix(A) for name in self.tensors if name.endswith(A)]

    def low_rank(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (self.tensors[name + A], self.spec.scale * self.tensors[name + B]) for name in self.modules}

    def weight_deltas(self, row: int) -> dict[str, Tensor]:
        deltas = {
            name: self.spec.scale * self.tensors[name + B][row].detach() @ self.tensors[name + A][row].detach()
            for name in self.modules
        }
        return {name: delta.T for name, delta in deltas.items()} if self.transposed else deltas

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "LORA",
            "r": self.spec.rank,
            "lora_alpha": self.spec.alpha,
            "lora_dropout": self.spec.dropout,
            "target_modules": list(self.targets),
            "bias": "none",
            "fan_in_fan_out": self.transposed,
        }

    def to_file(self, adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"{IN_FILES}{name}.weight": values for name, values in adapter.items()}


def create_loras(backbone: Backbone, spec: LoRA, count: int, seeds: Seeds) -> LoRABank:
    """N LoRAs: A uniform in +-1/sqrt(in), each from its own seed of the layer; B zero, so each starts as the backbone.

    Raises HarnessError if a target names no linear layer of the model, or its head.
    """
    dtype, model = master_dtype(backbone.dtype), backbone.model
    tensors: dict[str, Tensor] = {}
    modules = target_modules(model, spec.targets)
    kinds = {isinstance(model.get_submodule(name), Conv1D) for name in modules}
    if len(kinds) != 1:
        raise HarnessError(f"LoRA targets {', '.join(spec.targets)} mix two kinds of layers; name those of one kind")
    for module_name in modules:
        in_features, out_features = _features(model.get_submodule(module_name))
        bound = 1.0 / math.sqrt(in_features)
        draws = []
        for seed in seeds(module_name):
            generator = torch.Generator().manual_seed(seed)
            draw = torch.rand(spec.rank, in_features, generator=generator, dtype=dtype)
            draws.append(draw.mul_(2 * bound).sub_(bound))
        tensors[module_name + A] = torch.stack(draws).to(backbone.device)
        tensors[module_name + B] = torch.zeros(count, out_features, spec.rank, dtype=dtype, device=backbone.device)
    return LoRABank(spec, tensors, BaseFacts.of(backbone), _short_names(model, modules), kinds.pop())


def target_modules(model: Any, targets: Sequence[str]) -> list[str]:
    """Full names of the linear layers that the targets mean, in the model's order."""
    head = model.get_output_embeddings()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    linear = [name for name, module in layers.items() if module is not head]
    if tuple(targets) == (DEFAULT_TARGETS,):
        targets = _default_targets(model, linear)
    if tuple(targets) == (ALL_LINEAR,):
        return linear
    for target in targets:
        if any(_matches(name, target) and module is head for name, module in layers.items()):
            raise HarnessError(
                f"LoRA target {target!r} is the head of {type(model).__name__}, which turns hidden states into logits "
                f"and stays as it is; name layers below it, or '{DEFAULT_TARGETS}'"
            )
        if not any(_matches(name, target) for name in linear):
            known = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise HarnessError(
                f"LoRA target {target!r} is no linear layer of {type(model).__name__}; "
                f"{did_you_mean(target, known)} Linear layers: {', '.join(known) or 'none'}"
            )
    return [name for name in linear if any(_matches(name, target) for target in targets)]


def _default_targets(model: Any, linear: Sequence[str]) -> Sequence[str]:
    """q_proj and v_proj where the model has both; else what PEFT takes for the architecture; else all linear layers."""
    usual = ("q_proj", "v_proj")
    if all(any(_matches(name, target) for name in linear) for target in usual):
        return usual
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    found: Any = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.get_text_config().model_type)
    fits = isinstance(found, list) and all(any(_matches(name, target) for name in linear) for target in found)
    return found if fits else (ALL_LINEAR,)


def _short_names(model: Any, modules: Sequence[str]) -> tuple[str, ...]:
    """The last parts of these names where they mean just these layers, else the names."""
    short = tuple(dict.fromkeys(name.rsplit(".", 1)[-1] for name in modules))
    meant = [name for name, _ in model.named_modules() if any(_matches(name, target) for target in short)]
    return short if meant == list(modules) else tuple(modules)


def _features(module: Any) -> tuple[int, int]:
    """(in, out) of a linear layer, whatever its weights look like."""
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    return module.in_features, module.out_features


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _dropper(seeds: Tensor, number: int, share: float) -> Callable[[Tensor], Tensor]:
    return lambda x: dropped(x, seeds, number, share)


def _hook(a: Tensor, b: Tensor, scale: float, groups: int, drop: Callable[[Tensor], Tensor] | None) -> Any:
    """Hook for one layer. a [G, rank, in], b [G, out, rank]; the layer maps [B, T, in] to [B, T, out]."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0] if drop is None else drop(inputs[0])
        down, up = a.to(x.dtype).mT, b.to(x.dtype).mT
        if x.shape[0] % groups:
            raise ValueError(f"adapters were set for a multiple of {groups} rows, the batch has {x.shape[0]}")
        x = x.reshape(groups, -1, x.shape[-1])
        wide = output.reshape(groups, -1, output.shape[-1])
        if groups == 1:  # one adapter: plain products, about what a merged layer costs
            return torch.addmm(wide[0], x[0] @ down[0], up[0], alpha=scale).view(output.shape)
        return torch.baddbmm(wide, torch.bmm(x, down), up, alpha=scale).view(output.shape)

    return hook


def dropped(x: Tensor, seeds: Tensor, layer: int, share: float) -> Tensor:
    """x [B, T, C] with about `share` of its numbers set to 0 and the others scaled up, as nn.Dropout does.

    seeds [B] int64: the same seed and layer give the same mask for a row, whatever T the batch is padded to.
    """
    rows, length, width = x.shape
    index = torch.arange(length * width, dtype=torch.int32, device=x.device).view(1, length, width)
    row = (seeds ^ (layer * 0x9E3779B97F4A7C15 & 0x7FFFFFFFFFFFFFFF)).to(x.device)
    bits = _mix(index ^ (row & 0x7FFFFFFF).to(torch.int32).view(rows, 1, 1))
    bits = _mix(bits.bitwise_xor_((row >> 31 & 0x7FFFFFFF).to(torch.int32).view(rows, 1, 1)))
    # Signed 32-bit numbers are uniform in [-2^31, 2^31): keep those above the share's quantile.
    keep = bits >= round(share * 2**32) - 2**31
    return x * keep.to(x.dtype).mul_(1.0 / (1.0 - share))


def _mix(bits: Tensor) -> Tensor:
    """MurmurHash3's 32-bit finaliser (Appleby), in place on int32; every input bit moves every output bit."""
    bits.bitwise_xor_(bits >> 16 & 0xFFFF)
    bits.mul_(0x85EBCA6B - 2**32)
    bits.bitwise_xor_(bits >> 13 & 0x7FFFF)
    bits.mul_(0xC2B2AE35 - 2**32)
    return bits.bitwise_xor_(bits >> 16 & 0xFFFF)


def combine_loras(bank: LoRABank, recipes: Mapping[str, Mapping[str, float]], *, same_rank: bool = False) -> LoRABank:
    """New LoRAs whose update is sum_i w_i (alpha / r) B_i A_i, for each new key a recipe {key of the bank: w}.

    The rank becomes r times the longest recipe's length, the rest is filled with zeros; alpha becomes the rank, so
    that the scale is 1. With `same_rank` the shape stays the bank's, and the update is the nearest one of that rank
    (Eckart and Young 1936).
    Raises HarnessError for an unknown key, an empty recipe, and for no recipes at all.
    """
    if not recipes or not all(recipes.values()):
        raise HarnessError("a combination of LoRAs needs at least one recipe, and each at least one LoRA")
    length = max(len(recipe) for recipe in recipes.values())
    rank = length * bank.spec.rank
    tensors = {}
    for module in bank.modules:
        a, b = bank.tensors[module + A].detach(), bank.tensors[module + B].detach()
        downs, ups = [], []
        for recipe in recipes.values():
            rows = [bank.row(key) for key in recipe]
            weights = bank.spec.scale * torch.tensor(list(recipe.values()), dtype=b.dtype, device=b.device)
            down = a[rows].flatten(0, 1)  # [len r, in]
            up = (b[rows] * weights[:, None, None]).permute(1, 0, 2).flatten(1)  # [out, len r]
            missing = rank - down.shape[0]
            downs.append(torch.nn.functional.pad(down, (0, 0, 0, missing)))
            ups.append(torch.nn.functional.pad(up, (0, missing)))
        down, up = torch.stack(downs), torch.stack(ups)
        if same_rank:
            down, up = _nearest(down, up, bank.spec.rank)
            up = up / bank.spec.scale
        tensors[module + A], tensors[module + B] = down, up
    spec = bank.spec if same_rank else replace(bank.spec, rank=rank, alpha=float(rank), dropout=0.0)
    return replace(bank, spec=spec, tensors=tensors, keys=tuple(recipes))


def _nearest(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors [N, rank, in], [N, out, rank] of the best approximation of b a from a [N, R, in], b [N, out, R]; both
    get the root of the singular values, so that a step moves them alike."""
    left, from_left = torch.linalg.qr(b.double())
    right, from_right = torch.linalg.qr(a.double().mT)
    u, s, v = torch.linalg.svd(from_left @ from_right.mT)
    root = s[:, :rank].sqrt()
    return (
        (root[..., None] * v[:, :rank] @ right.mT).to(a.dtype),
        (left @ u[..., :rank] * root[:, None]).to(b.dtype),
    )


def merged(backbone: Backbone, bank: Bank, row: int) -> Backbone:
    """A copy of the backbone with one LoRA folded in: W + scale * B A (Hu et al. 2021, section 4.1).

    bank  LoRA bank made for this backbone;  row: which of its N adapters
    The original stays as it is; the copy has a fingerprint of its own. Raises HarnessError for a soft prompt.
    """
    if not 0 <= row < len(bank.keys):
        raise HarnessError(f"row {row} is not in a bank of {len(bank.keys)} adapters; rows count from 0")
    model = copy.deepcopy(backbone.model)
    for module_name, delta in bank.weight_deltas(row).items():
        if not model.get_submodule(module_name).weight.is_floating_point():
            _widen(model, module_name, backbone.dtype)
        weight = model.get_submodule(module_name).weight
        # Added in the bank's (wider) dtype: a small change must not be rounded before it is added.
        weight.data = (weight.data.to(delta.dtype) + delta.to(weight.device)).to(weight.dtype)
    return freeze(f"{backbone.name}+{bank.keys[row]}", model, backbone.tokenizer, backbone.engine, backbone.attention)


def _widen(model: Any, name: str, dtype: torch.dtype) -> None:
    """Put a plain layer with the numbers that they stand for in the place of one with quantised weights."""
    from peft.utils.integrations import dequantize_module_weight

    quantised = model.get_submodule(name)
    weight = dequantize_module_weight(quantised).to(dtype)
    plain = nn.Linear(weight.shape[1], weight.shape[0], quantised.bias is not None, dtype=dtype, device=weight.device)
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if quantised.bias is not None:
        plain.bias = nn.Parameter(quantised.bias.data.to(dtype), requires_grad=False)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, plain)


KIND = AdapterKind("lora", "low-rank updates of linear layers", LoRA, create_loras)
