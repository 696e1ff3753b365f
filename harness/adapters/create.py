"""A new bank from a specification, fresh or started from fitted adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.adapters.bank import Bank
from harness.adapters.discrete_prompt import create_discrete_prompts
from harness.adapters.gated_prefix import create_gated_prefixes
from harness.adapters.kv_prefix import create_kv_prefixes
from harness.adapters.lora import create_loras
from harness.adapters.soft_prompt import create_soft_prompts
from harness.contract import GatedPrefix, LoRA, SoftPrompt
from harness.errors import HarnessError
from harness.model import Backbone

AdapterSpec = SoftPrompt | GatedPrefix | LoRA


def create_bank(
    backbone: Backbone, spec: AdapterSpec, keys: Sequence[str], seed: int, start: Bank | None = None
) -> Bank:
    """N adapters for a backbone, row i for keys[i].

    seed   with a key it decides on that key's initial values; neither order nor company matters
    start  fitted adapters to begin from: one row (all begin there) or N rows (row i begins at row i)
    Raises HarnessError for equal keys, a model that cannot take this kind of adapter, a start of another shape or
    backbone.
    """
    match spec:
        case SoftPrompt(kind="kv"):
            bank: Bank = create_kv_prefixes(backbone, spec, keys, seed)
        case SoftPrompt(kind="discrete"):
            bank = create_discrete_prompts(backbone, spec, keys, seed)
        case SoftPrompt():
            bank = create_soft_prompts(backbone, spec, keys, seed)
        case GatedPrefix():
            bank = create_gated_prefixes(backbone, spec, keys, seed)
        case LoRA():
            bank = create_loras(backbone, spec, keys, seed)
    return bank if start is None else _started(bank, start)


def _started(bank: Bank, start: Bank) -> Bank:
    if start.base.fingerprint != bank.base.fingerprint:
        raise HarnessError("the adapters to start from were fitted on another backbone; fit them on this one first")
    if len(start) not in (1, len(bank)):
        raise HarnessError(f"a bank of {len(bank)} can start from 1 adapter or from {len(bank)}, not {len(start)}")
    shapes = {name: tensor.shape[1:] for name, tensor in bank.tensors.items()}
    other = {name: tensor.shape[1:] for name, tensor in start.tensors.items()}
    if type(bank) is not type(start) or shapes != other:
        raise HarnessError(f"adapters {bank.spec} cannot start from {start.spec}; use the same kind and shape")
    tensors = {
        name: start.tensors[name].detach().to(tensor.device, tensor.dtype).expand_as(tensor).clone()
        for name, tensor in bank.tensors.items()
    }
    return replace(bank, tensors=tensors)
