"""Kinds of adapters by name and by spec, those of the core and of plugins, and new banks of any kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from harness.adapters import discrete_prompt, gated_prefix, kv_prefix, lora, soft_prompt, steering_vector
from harness.adapters.bank import Bank
from harness.contract import AdapterKind, Listing, extensions_of, list_extensions, of_the_core
from harness.errors import HarnessError, did_you_mean
from harness.model import Backbone
from harness.store import plugin_hash

AdapterSpec: TypeAlias = Any  # an instance of the spec of a kind: SoftPrompt, LoRA, ..., or a plugin's
_MODULES = (soft_prompt, kv_prefix, discrete_prompt, gated_prefix, lora, steering_vector)
CORE = [module.KIND for module in _MODULES]


def create_bank(
    backbone: Backbone, spec: AdapterSpec, keys: Sequence[str], seed: int, start: Bank | None = None
) -> Bank:
    """N adapters for a backbone, row i for keys[i].

    seed   with a key it decides on that key's initial values; neither order nor company matters
    start  fitted adapters to begin from: one row (all begin there) or N rows (row i begins at row i)
    Raises HarnessError for a spec of no kind, equal keys, a model that cannot take this kind of adapter, a start of
    another shape or backbone.
    """
    names, kind = check_keys(keys), kind_of(spec)
    bank = kind.create(backbone, spec, len(names), lambda part: [key_seed(seed, key, part) for key in names])
    if not isinstance(bank, Bank) or any(len(tensor) != len(names) for tensor in bank.tensors.values()):
        raise HarnessError(f"adapter kind '{kind.name}': create must return a harness.adapters.Bank of that many")
    bank = replace(bank, keys=names)
    return bank if start is None else _started(bank, start)


def kind_of(spec: AdapterSpec) -> AdapterKind:
    """The kind that a spec means. Raises HarnessError if it means none."""
    kinds = _kinds()
    for cls in type(spec).__mro__:
        for kind in kinds:
            if kind.spec is cls and all(getattr(spec, name) == value for name, value in kind.when.items()):
                return kind
    known = ", ".join(sorted({kind.spec.__name__ for kind in kinds}))
    raise HarnessError(
        f"{spec!r} is the spec of no kind of adapter; known: {known}. A plugin's kind is declared as an entry point of "
        "the group harness.adapters, or by a hook `adapters` in the --plugin file"
    )


def kind_named(name: str) -> AdapterKind:
    """The kind of that name. Raises HarnessError with the nearest known name otherwise."""
    kinds = {kind.name: kind for kind in _kinds()}
    if name not in kinds:
        hint = f"{did_you_mean(name, kinds)} Is the plugin that brings it installed?"
        raise HarnessError(f"there is no kind of adapter '{name}'; {hint}")
    return kinds[name]


def list_adapters() -> list[Listing]:
    """A line for each kind of adapter, and for each plugin of kinds that cannot be used."""
    core = [of_the_core("adapter", module.KIND, str(module.__file__)).listing() for module in _MODULES]
    return [*core, *list_extensions("adapter")]


def kind_source(spec: AdapterSpec) -> str | None:
    """Hash of the code of the plugin that brings the kind of a spec; None for a kind of the core."""
    kind = kind_of(spec)
    return next((plugin_hash(found.source) for found in extensions_of("adapter") if found.item is kind), None)


def is_core(spec: AdapterSpec) -> bool:
    """Whether the harness itself applies adapters of this shape, and no plugin."""
    return any(type(spec) is kind.spec for kind in CORE)


def _kinds() -> list[AdapterKind]:
    return [*CORE, *(found.item for found in extensions_of("adapter"))]


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


def key_seed(*parts: Any) -> int:
    """63 bits that follow from the parts alone (seed, adapter key, ...), never from an order."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def check_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """The keys as a tuple; raises HarnessError if there are none or two are equal."""
    if not keys:
        raise HarnessError("a bank needs at least one adapter; no keys were given")
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise HarnessError(f"adapter key {key!r} is given twice; every adapter of a bank needs a key of its own")
        seen.add(key)
    return tuple(keys)
