"""Kinds of adapters by name and by spec, those of the core and of plugins, and banks of any kind: new, and on disk.

On disk a bank is one folder per adapter that PeftModel.from_pretrained loads, and an index. A kind that PEFT does not
have has the same two files under a `peft_type` of its own. The bank decides what stands in them. They are not written
through peft: the format is two small files, and importing peft costs seconds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.adapters import discrete_prompt, gated_prefix, kv_prefix, lora, soft_prompt, steering_vector
from harness.adapters.bank import Bank
from harness.contract import AdapterKind, Listing, extensions_of, list_extensions, of_the_core
from harness.errors import HarnessError, StoreError, did_you_mean
from harness.model import Backbone
from harness.store import plugin_hash

AdapterSpec: TypeAlias = Any  # an instance of the spec of a kind: SoftPrompt, LoRA, ..., or a plugin's
_MODULES = (soft_prompt, kv_prefix, discrete_prompt, gated_prefix, lora, steering_vector)
CORE = [module.KIND for module in _MODULES]
FORMAT = 1
INDEX, CONFIG, WEIGHTS = "index.json", "adapter_config.json", "adapter_model.safetensors"
FOLDER_NAME = re.compile(r"[0-9]{4,}(-[A-Za-z0-9_-]+)?")


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


# ---- on disk ----


def save_bank(bank: Bank, folder: Path, base_name: str) -> None:
    """Write every adapter of a bank below `folder`, and index.json last: a folder without it is incomplete.

    base_name  what PEFT shall load as the base model; it is written into each adapter_config.json
    What is written is what is served: a discrete prompt's projection, from which training could not go on the same.
    Folder names come from row number and a harmless part of the key, so a key such as "../../x" stays inside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    tensors = {name: tensor.detach().cpu() for name, tensor in bank.served().items()}
    kind, entries = kind_of(bank.spec).name, []
    common = {"task_type": "CAUSAL_LM", "base_model_name_or_path": base_name, "inference_mode": True}
    config = {**common, "peft_type": kind.upper(), **bank.peft_config()}
    for row, key in enumerate(bank.keys):
        name = _folder_name(row, key)
        place = folder / name
        place.mkdir(exist_ok=True)
        part = {name: values[row].clone() for name, values in tensors.items()}
        save_file(bank.to_file(part), place / WEIGHTS, metadata={"format": "pt"})
        _write_json(place / CONFIG, config)
        entries.append({"key": key, "folder": name})
    index = {
        "format": FORMAT,
        "kind": kind,
        "spec": asdict(bank.spec),
        "base": {"name": base_name, "fingerprint": bank.base.fingerprint},
        "adapters": entries,
    }
    _write_json(folder / INDEX, index)


def load_bank(folder: Path, backbone: Backbone) -> Bank:
    """Read a bank that save_bank wrote, in its order of keys.

    Raises StoreError if it is incomplete, damaged, or made for a backbone with another fingerprint.
    """
    index = _read_index(folder)
    if index["base"]["fingerprint"] != backbone.fingerprint:
        raise StoreError(
            f"the adapters in {folder} belong to another backbone ({index['base']['name']}, or the same "
            "in another dtype); load that one, or fit them again"
        )
    try:
        spec = kind_named(index["kind"]).spec(**index["spec"])
        keys = check_keys([entry["key"] for entry in index["adapters"]])
        # Only the shapes of the fresh adapter are used; all its numbers are replaced.
        bank = create_bank(backbone, spec, keys[:1], seed=0)
    except (KeyError, TypeError, HarnessError) as fault:
        raise StoreError(f"{folder / INDEX} is not an index of adapters for this backbone: {fault}") from fault
    parts = [_read_adapter(folder, entry["folder"], bank) for entry in index["adapters"]]
    tensors = {name: torch.stack([part[name] for part in parts]) for name in bank.tensors}
    return replace(bank, keys=keys, tensors={name: values.to(bank.tensors[name]) for name, values in tensors.items()})


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as fault:
        raise StoreError(f"{folder} holds no complete bank of adapters ({INDEX} is missing); fit again") from fault
    except (OSError, ValueError) as fault:
        raise StoreError(f"{path} cannot be read ({fault}); fit again") from fault
    try:
        if index["format"] != FORMAT:
            raise StoreError(f"{path} has format {index['format']}, this version reads {FORMAT}; fit again")
        names = [entry["folder"] for entry in index["adapters"]]
        _ = index["base"]["fingerprint"], index["base"]["name"]
    except (KeyError, TypeError) as fault:
        raise StoreError(f"{path} is not an index of adapters ({fault!r}); fit again") from fault
    for name in names:
        if not isinstance(name, str) or not FOLDER_NAME.fullmatch(name):
            raise StoreError(f"{path} names the folder {name!r}, which save_bank never writes; do not trust it")
    return index


def _read_adapter(folder: Path, name: str, bank: Bank) -> dict[str, Tensor]:
    path = folder / name / WEIGHTS
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as fault:
        raise StoreError(f"{path} cannot be read ({fault}); fit again") from fault
    example = {name: values[0] for name, values in bank.tensors.items()}
    for name, values in bank.to_file(example).items():
        found = stored.get(name)
        if found is None or found.shape != values.shape:
            got = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise StoreError(f"{path}: {name} {got}, wanted shape {tuple(values.shape)}; fit again")
    return bank.from_file(stored)


def _folder_name(row: int, key: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", key).strip("-")[:40]
    return f"{row:04d}-{slug}" if slug else f"{row:04d}"


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=True, sort_keys=True) + "\n", encoding="utf-8")
