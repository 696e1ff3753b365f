"""LoRAs merged into a backbone, and weighted sums of LoRAs: both exact on the weight update W + B A."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch

from harness.adapters.bank import Bank
from harness.adapters.lora import A, B, LoRABank
from harness.errors import HarnessError
from harness.model import Backbone, freeze

Recipe = Mapping[str, float]  # key of a LoRA -> weight


def combine_loras(bank: LoRABank, recipes: Mapping[str, Recipe]) -> LoRABank:
    """New LoRAs whose update is sum_i w_i (alpha / r) B_i A_i, for each new key a recipe {key of the bank: w}.

    The rank becomes r times the longest recipe's length, the rest is filled with zeros; alpha becomes the rank, so
    that the scale is 1.
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
        tensors[module + A], tensors[module + B] = torch.stack(downs), torch.stack(ups)
    spec = replace(bank.spec, rank=rank, alpha=float(rank), dropout=0.0)
    return LoRABank(spec, tuple(recipes), tensors, bank.base)


def merged(backbone: Backbone, bank: Bank, row: int) -> Backbone:
    """A copy of the backbone with one LoRA folded in: W + scale * B A (Hu et al. 2021, section 4.1).

    bank  LoRA bank made for this backbone;  row: which of its N adapters
    The original stays as it is; the copy has a fingerprint of its own. Raises HarnessError for a soft prompt.
    """
    if not 0 <= row < len(bank.keys):
        raise HarnessError(f"row {row} is not in a bank of {len(bank.keys)} adapters; rows count from 0")
    model = copy.deepcopy(backbone.model)
    for module_name, delta in bank.weight_deltas(row).items():
        weight = model.get_submodule(module_name).weight
        # Added in the bank's (wider) dtype: a small change must not be rounded before it is added.
        weight.data = (weight.data.to(delta.dtype) + delta.to(weight.device)).to(weight.dtype)
    return freeze(f"{backbone.name}+{bank.keys[row]}", model, backbone.tokenizer, backbone.engine)
