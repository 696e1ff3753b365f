"""Banks on disk: shards of stacked tensors with an index, and on demand a folder in PEFT's format for each adapter.

A shard is one safetensors file of at most SHARD adapters: each tensor of the bank as [n, ...], and the n keys in its
metadata. The index names each shard by its first key's row, so that one adapter of a million is read by itself.

A PEFT folder is what PeftModel.from_pretrained loads. A kind that PEFT does not have has the same two files under a
`peft_type` of its own. They are not written through peft: it is two small files, and importing peft costs seconds.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.adapters.bank import Bank
from harness.adapters.kinds import check_keys, create_bank, kind_named, kind_of
from harness.errors import HarnessError, StoreError, did_you_mean
from harness.model import Backbone

FORMAT = 2
SHARD = 256  # adapters of one file
INDEX, CONFIG, WEIGHTS = "index.json", "adapter_config.json", "adapter_model.safetensors"
BELOW = "below"
SHARD_NAME = re.compile(r"shard-[0-9]{5,}\.safetensors")


def save_bank(bank: Bank, folder: Path, base_name: str, below: Path | None = None, shard: int = SHARD) -> None:
    """Write a bank below `folder`, and index.json last: a folder without it is incomplete.

    base_name  what the backbone is called
    below      folder of the saved adapter that is merged into that backbone; it is copied, so that this one is whole
    What is written is what is served: a discrete prompt's projection, from which training could not go on the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in bank.served().items()}
    shards = []
    for number, first in enumerate(range(0, len(bank), shard)):
        name, keys = f"shard-{number:05d}.safetensors", bank.keys[first : first + shard]
        part = {name: values[first : first + shard] for name, values in tensors.items()}
        save_file(part, folder / name, metadata={"keys": json.dumps(keys)})  # one: several come in any order
        shards.append({"file": name, "first": keys[0], "adapters": len(keys)})
    if below is not None:
        shutil.copytree(below, folder / BELOW, dirs_exist_ok=True)
    index = {
        "format": FORMAT,
        "kind": kind_of(bank.spec).name,
        "spec": asdict(bank.spec),
        "base": {"name": base_name, "fingerprint": bank.base.fingerprint},
        "adapters": len(bank),
        "sorted": list(bank.keys) == sorted(bank.keys),
        "shards": shards,
    }
    _write_json(folder / INDEX, index)


def load_bank(folder: Path, backbone: Backbone, keys: Sequence[str] | None = None) -> Bank:
    """Read a bank that save_bank wrote, in its order of keys.

    keys  only the adapters of these keys, in this order; no other shard is read
    Raises StoreError if it is incomplete, damaged, or made for a backbone with another fingerprint; HarnessError for a
    key that it does not have.
    """
    index = _Index.read(folder)
    if index.fingerprint != backbone.fingerprint:
        raise StoreError(
            f"the adapters in {folder} belong to another backbone ({index.base_name}, or the same "
            "in another dtype); load that one, or fit them again"
        )
    shards = list(map(_Shard.read, index.files)) if keys is None else index.of(keys)
    try:
        spec = kind_named(index.kind).spec(**index.spec)
        names = check_keys([key for shard in shards for key in shard.keys])
        # Only the shapes of the fresh adapter are used; all its numbers are replaced.
        bank = create_bank(backbone, spec, names[:1], seed=0)
    except (KeyError, TypeError, HarnessError) as fault:
        raise StoreError(f"{folder / INDEX} is not an index of adapters for this backbone: {fault}") from fault
    parts = [shard.tensors({name: values.shape[1:] for name, values in bank.tensors.items()}) for shard in shards]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in bank.tensors}
    return replace(bank, keys=names, tensors={name: values.to(bank.tensors[name]) for name, values in tensors.items()})


def open_adapter(folder: Path, key: str) -> dict[str, Tensor]:
    """The tensors of one adapter of a saved bank, without their leading dimension; no other adapter is read.

    Raises StoreError for a folder that holds no bank, HarnessError for a key that the bank does not have.
    """
    return {name: values[0] for name, values in _Index.read(folder).of([key])[0].values.items()}


def unread_files(folder: Path, keys: Sequence[str]) -> set[str]:
    """Names of those files of a saved bank that `load_bank` does not open for these keys; none where its index cannot
    be read, or does not say it."""
    try:
        index = _Index.read(folder)
    except StoreError:
        return set()
    return set(index.names) - {path.name for key in keys for path in index.may_hold(key)}


def saved_below(folder: Path) -> list[Path]:
    """Folders of the adapters that are merged into the backbone of a saved bank, the next one first."""
    found = []
    while (folder / BELOW / INDEX).is_file():
        folder = folder / BELOW
        found.append(folder)
    return found


# ---- PEFT's format ----


def write_peft(bank: Bank, folder: Path, base_name: str, keys: Sequence[str] | None = None) -> list[Path]:
    """Write adapters as folders that PeftModel.from_pretrained loads, one each; None: all. Returns the folders.

    base_name  what PEFT shall load as the base model; it is written into each adapter_config.json
    Folder names come from row number and a harmless part of the key, so a key such as "../../x" stays inside.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in bank.served().items()}
    common = {"task_type": "CAUSAL_LM", "base_model_name_or_path": base_name, "inference_mode": True}
    config = {**common, "peft_type": kind_of(bank.spec).name.upper(), **bank.peft_config()}
    places = []
    for row in range(len(bank)) if keys is None else map(bank.row, keys):
        place = folder / _folder_name(row, bank.keys[row])
        place.mkdir(parents=True, exist_ok=True)
        part = {name: values[row].clone() for name, values in tensors.items()}
        save_file(bank.to_file(part), place / WEIGHTS, metadata={"format": "pt"})
        _write_json(place / CONFIG, config)
        places.append(place)
    return places


def _folder_name(row: int, key: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", key).strip("-")[:40]
    return f"{row:04d}-{slug}" if slug else f"{row:04d}"


# ---- inside ----


@dataclass(frozen=True)
class _Index:
    folder: Path
    kind: str
    spec: dict[str, Any]
    base_name: str
    fingerprint: str
    firsts: list[str]  # key of each shard's first adapter
    names: list[str]  # of the shards' files; a path of each would take longer than all else where there are thousands
    is_sorted: bool

    @classmethod
    def read(cls, folder: Path) -> _Index:
        """Raises StoreError."""
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
            names, base = [shard["file"] for shard in index["shards"]], index["base"]
            firsts = [str(shard["first"]) for shard in index["shards"]]
            known = cls(
                folder, index["kind"], index["spec"], base["name"], base["fingerprint"],
                firsts, names, index["sorted"] is True,
            )  # fmt: skip
        except (KeyError, TypeError) as fault:
            raise StoreError(f"{path} is not an index of adapters ({fault!r}); fit again") from fault
        for name in names:
            if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
                raise StoreError(f"{path} names the file {name!r}, which save_bank never writes; do not trust it")
        return known

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in self.names]

    def of(self, keys: Sequence[str]) -> list[_Shard]:
        """Each of these adapters alone, in this order; a shard is opened once. Raises HarnessError for a key that the
        bank does not have."""
        wanted: dict[Path, set[str]] = {}
        for key in keys:
            for path in self.may_hold(key):
                wanted.setdefault(path, set()).add(key)
        found: dict[str, _Shard] = {}
        names: list[str] = []
        for path, own in wanted.items():
            if own <= found.keys():
                continue
            with _opened(path) as file:
                rows = {key: row for row, key in enumerate(_keys(path, file))}
                for key in own & rows.keys():
                    slices = {name: file.get_slice(name)[rows[key] : rows[key] + 1] for name in file.keys()}  # noqa: SIM118
                    found[key] = _Shard(path, [key], slices)
                names += rows
        for key in keys:
            if key not in found:
                raise HarnessError(f"the bank in {self.folder} has no adapter {key!r}; {did_you_mean(key, names)}")
        return [found[key] for key in keys]

    def may_hold(self, key: str) -> list[Path]:
        """The shards in which a key can lie."""
        if not self.is_sorted:
            return self.files
        place = bisect.bisect_right(self.firsts, key) - 1
        return [self.folder / name for name in self.names[max(place, 0) : place + 1]]


@dataclass(frozen=True)
class _Shard:
    path: Path
    keys: list[str]
    values: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> _Shard:
        with _opened(path) as file:
            return cls(path, _keys(path, file), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118

    def tensors(self, shapes: Mapping[str, torch.Size]) -> Mapping[str, Tensor]:
        """Checked against the shapes of one adapter. Raises StoreError."""
        for name, shape in shapes.items():
            wanted, found = (len(self.keys), *shape), self.values.get(name)
            if found is None or tuple(found.shape) != wanted:
                got = "is missing" if found is None else f"has shape {tuple(found.shape)}"
                raise StoreError(f"{self.path}: {name} {got}, wanted shape {wanted}; fit again")
        return self.values


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as fault:
        raise StoreError(f"{path} cannot be read ({fault}); fit again") from fault


def _keys(path: Path, file: Any) -> list[str]:
    try:
        keys = json.loads((file.metadata() or {})["keys"])
    except (KeyError, ValueError) as fault:
        raise StoreError(f"{path} does not say whose adapters it holds; fit again") from fault
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise StoreError(f"{path} does not say whose adapters it holds; fit again")
    return keys


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=True, sort_keys=True) + "\n", encoding="utf-8")
