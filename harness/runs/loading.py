"""The models of a stored run in memory: its backbone, and its adapters as they stand on each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.adapters import Bank, LoRABank, load_bank, merged, saved_below, unread_files
from harness.config import device_of
from harness.errors import HarnessError, StoreError
from harness.model import Backbone, load_backbone
from harness.runs.stored import StoredRun
from harness.store import SEAL, damage, file_damage, read_json

ADAPTERS = "adapters"  # a folder of the run, and of what is exported
Note = Callable[[str], None]  # takes a line for the user


@dataclass(frozen=True)
class Stack:
    """Adapters of a run as they stand on each other.

    loras  (the backbone, its LoRA) that are merged, the first one first
    top    the backbone with all of these;  bank: the run's own adapters on it, those that were asked for
    """

    loras: Sequence[tuple[Backbone, Bank]]
    top: Backbone
    bank: Bank

    @classmethod
    def of(cls, folder: Path, base: Backbone, keys: Sequence[str]) -> Stack:
        """Read the adapters in a folder; keys: these of the run's own ones, in this order."""
        loras, top = merged_below(folder, base)
        return cls(loras, top, load_bank(folder, top, keys))

    @property
    def merges(self) -> bool:
        """Whether the run's own adapters are changes of weights."""
        return isinstance(self.bank, LoRABank)


def merged_below(folder: Path, base: Backbone) -> tuple[list[tuple[Backbone, Bank]], Backbone]:
    """What the adapters in a folder stand on: (the backbone, its LoRA) that are merged, and the model with them."""
    loras: list[tuple[Backbone, Bank]] = []
    for place in reversed(saved_below(folder)):
        lora = load_bank(place, base)
        loras.append((base, lora))
        base = replace(merged(base, lora, 0), below=base, folder=place)
    return loras, base


def check_adapters(run: StoredRun, keys: Sequence[str] | None) -> None:
    """Raises StoreError for damage of what is read for these adapters (None: for all)."""
    if fault := adapters_damage(run, keys):
        raise StoreError(f"{fault}; {run.mend}")


def adapters_damage(run: StoredRun, keys: Sequence[str] | None) -> str:
    """What is wrong with those files of a run's adapters that are read for these keys (None: for all), in one line with
    the path; empty if nothing is. The digests of all files of a bank of a million adapters take minutes."""
    folder, digest = run.path / ADAPTERS, run.record.files.get(f"{ADAPTERS}/{SEAL}")
    if digest is None:
        return ""
    unread = set() if keys is None else unread_files(folder, keys)
    if not unread:
        return damage(folder, digest)
    if fault := file_damage(folder / SEAL, digest):
        return fault
    files: Mapping[str, str] = read_json(folder / SEAL)["files"]
    found = (file_damage(folder / name, own) for name, own in files.items() if name not in unread)
    return next(filter(None, found), "")


def settings_of(run: StoredRun) -> Mapping[str, Any]:
    """The settings that the run was told, by name."""
    return dict(run.record.config)


def load_for_export(run: StoredRun, backbone: str | None, note: Note) -> Backbone:
    """The run's backbone, for others to read: on a GPU only where it is quantised.

    backbone  where it lies now, as `load_backbone` takes it; None: as the run was told
    Raises HarnessError for another backbone than the run's.
    """
    config = settings_of(run)
    return _loaded(run, backbone, note, device="cuda" if config.get("load_in") else "cpu")


def load_as_run(run: StoredRun, backbone: str | None, device: str | None, note: Note) -> Backbone:
    """The run's backbone, so that it computes as it did in the run: same device, engine and attention.

    device  where it is computed now; None: as the run was told
    Else as `load_for_export`.
    """
    config = settings_of(run)
    device = device_of(device or str(config.get("device") or "cpu"))
    engine, attention = (str(config.get(name) or "auto") for name in ("engine", "attn_implementation"))
    return _loaded(run, backbone, note, device=device, engine=engine, attention=attention)


def _loaded(run: StoredRun, backbone: str | None, note: Note, **how: str) -> Backbone:
    config = settings_of(run)
    name, template = backbone or str(config["backbone"]), config.get("chat_template")
    try:
        found = load_backbone(
            name,
            dtype=str(config.get("dtype") or "float32"),
            load_in=config.get("load_in"),
            chat_template=None if template is None else Path(template),
            note=note,
            **how,
        )
    except HarnessError as error:
        if backbone is not None:
            raise
        raise HarnessError(f"{run.id}: {error}; --backbone names where its backbone lies now") from error
    if found.fingerprint != run.record.hashes.get("backbone"):
        raise HarnessError(
            f"'{name}' is not the backbone that {run.id} was made with (its fingerprint differs); --backbone names the "
            "right one"
        )
    return found
