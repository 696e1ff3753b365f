"""Banks on disk in PEFT's format: one folder per adapter that PeftModel.from_pretrained loads, and an index.

A gated prefix, which PEFT does not have, has the same two files under a `peft_type` of its own.
Written by hand, not through peft: the format is two small files, and importing peft costs seconds.
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

from harness.adapters import kv_prefix
from harness.adapters.bank import Bank, check_keys
from harness.adapters.create import AdapterSpec, create_bank
from harness.adapters.soft_prompt import PROMPT
from harness.contract import GatedPrefix, LoRA, SoftPrompt
from harness.errors import HarnessError, StoreError
from harness.model import Backbone

FORMAT = 1
INDEX, CONFIG, WEIGHTS = "index.json", "adapter_config.json", "adapter_model.safetensors"
KINDS: dict[str, type[AdapterSpec]] = {"soft_prompt": SoftPrompt, "gated_prefix": GatedPrefix, "lora": LoRA}
FOLDER_NAME = re.compile(r"[0-9]{4,}(-[A-Za-z0-9_-]+)?")
LORA_PREFIX = "base_model.model."


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
        save_file(_to_file(bank.spec, part), place / WEIGHTS, metadata={"format": "pt"})
        _write_json(place / CONFIG, _peft_config(bank, base_name))
        entries.append({"key": key, "folder": name})
    kind = next(name for name, spec in KINDS.items() if isinstance(bank.spec, spec))
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
        spec = KINDS[index["kind"]](**index["spec"])
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
    for name, values in _to_file(bank.spec, example).items():
        found = stored.get(name)
        if found is None or found.shape != values.shape:
            got = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise StoreError(f"{path}: {name} {got}, wanted shape {tuple(values.shape)}; fit again")
    return _from_file(bank, stored)


def _folder_name(row: int, key: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", key).strip("-")[:40]
    return f"{row:04d}-{slug}" if slug else f"{row:04d}"


def _to_file(spec: AdapterSpec, part: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one adapter as they stand in its file."""
    if isinstance(spec, SoftPrompt) and spec.kind == "kv":
        return {PROMPT: kv_prefix.to_peft(part[kv_prefix.KEY], part[kv_prefix.VALUE])}
    return {_peft_name(name): values for name, values in part.items()}


def _from_file(bank: Bank, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(bank, kv_prefix.KVPrefixBank):
        _, layers, heads, _, _ = bank.tensors[kv_prefix.KEY].shape
        key, value = kv_prefix.from_peft(stored[PROMPT], layers, heads)
        return {kv_prefix.KEY: key, kv_prefix.VALUE: value}
    return {name: stored[_peft_name(name)] for name in bank.tensors}


def _peft_name(tensor: str) -> str:
    """Our tensor name -> PEFT's: `x.lora_A` is `base_model.model.x.lora_A.weight`, a prompt's the same."""
    return f"{LORA_PREFIX}{tensor}.weight" if tensor.endswith((".lora_A", ".lora_B")) else tensor


def _peft_config(bank: Bank, base_name: str) -> Mapping[str, Any]:
    common = {"task_type": "CAUSAL_LM", "base_model_name_or_path": base_name, "inference_mode": True}
    match bank.spec:
        case SoftPrompt(tokens=tokens, kind="kv"):
            _, layers, heads, _, width = bank.tensors[kv_prefix.KEY].shape
            return common | {
                "peft_type": "PREFIX_TUNING",
                "num_virtual_tokens": tokens,
                # Of keys and values, not of queries: so PEFT itself writes it for grouped-query attention.
                "token_dim": heads * width,
                "num_layers": layers,
                "num_attention_heads": heads,
                "num_transformer_submodules": 1,
                "encoder_hidden_size": heads * width,
                "prefix_projection": False,
            }
        case SoftPrompt(tokens=tokens):
            return common | {
                "peft_type": "PROMPT_TUNING",
                "num_virtual_tokens": tokens,
                "token_dim": bank.base.hidden,
                "num_layers": bank.base.layers,
                "num_attention_heads": bank.base.heads,
                "num_transformer_submodules": 1,
            }
        case GatedPrefix(tokens=tokens):
            return common | {"peft_type": "GATED_PREFIX", "num_virtual_tokens": tokens}
        case LoRA() as lora:
            return common | {
                "peft_type": "LORA",
                "r": lora.rank,
                "lora_alpha": lora.alpha,
                "lora_dropout": lora.dropout,
                "target_modules": list(lora.targets),
                "bias": "none",
                "fan_in_fan_out": False,
            }
        case other:
            raise TypeError(f"no PEFT format for {other!r}")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=True, sort_keys=True) + "\n", encoding="utf-8")
