"""Banks on disk in PEFT's format: one folder per adapter that PeftModel.from_pretrained loads, and an index.

A kind that PEFT does not have has the same two files under a `peft_type` of its own. What stands in them is said by
the bank. Written by hand, not through peft: the format is two small files, and importing peft costs seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.adapters.bank import Bank, check_keys
from harness.adapters.create import create_bank, kind_named, kind_of
from harness.errors import HarnessError, StoreError
from harness.model import Backbone

FORMAT = 1
INDEX, CONFIG, WEIGHTS = "index.json", "adapter_config.json", "adapter_model.safetensors"
FOLDER_NAME = re.compile(r"[0-9]{4,}(-[A-Za-z0-9_-]+)?")


def save_bank(bank: Bank, folder: Path, base_name: str) -> None:
    """Write every adapter of a bank below `folder`, and index.json last: a folder without it is incomplete.

    base_name  what PEFT shall load as the base model; it is written into each adapter_config.json
    What is written is what is served: a discrete prompt's projection, from which training could not go on the same.
    Folder names come from row number and a harmless part of the key, so a key such as "../../x" stays inside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    tensors = {name: tensor.detach().cpu() for name, tensor in bank.served().items()}
    entries = []
    for row, key in enumerate(bank.keys):
        name = _folder_name(row, key)
        place = folder / name
        place.mkdir(exist_ok=True)
        part = {name: values[row].clone() for name, values in tensors.items()}
        save_file(bank.to_file(part), place / WEIGHTS, metadata={"format": "pt"})
        _write_json(place / CONFIG, _peft_config(bank, base_name))
        entries.append({"key": key, "folder": name})
    index = {
        "format": FORMAT,
        "kind": kind_of(bank.spec).name,
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
    return bank.with_tensors({name: values.to(bank.tensors[name]) for name, values in tensors.items()}, keys)


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


def _peft_config(bank: Bank, base_name: str) -> dict[str, Any]:
    common = {"task_type": "CAUSAL_LM", "base_model_name_or_path": base_name, "inference_mode": True}
    return {**common, "peft_type": kind_of(bank.spec).name.upper(), **bank.peft_config()}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=True, sort_keys=True) + "\n", encoding="utf-8")
