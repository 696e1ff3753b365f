"""State of an unfinished fit in one safetensors file: replaced atomically, tied to exactly one fit.

No pickle. `harness.training.bank_training` decides what the state means.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.errors import StoreError
from harness.store import new_file

SECONDS_BETWEEN = 20.0
LARGEST_SHARE = 0.05  # of the time may go into writing


class Checkpoint:
    """One file. `identity` names the fit (backbone, adapters, data, options, seed); any other is refused.

    note   takes a line for the user, where the file is damaged and the fit begins anew
    """

    def __init__(
        self,
        path: Path,
        identity: str,
        seconds_between: float = SECONDS_BETWEEN,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.path = path
        self.note = note or (lambda line: None)
        self.identity = identity
        self.wait_seconds = seconds_between
        self.last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.last >= self.wait_seconds

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write tensors and JSON-able facts; the old file stays until the new one is complete."""
        start = time.monotonic()
        stored = {name: tensor.contiguous() for name, tensor in tensors.items()}
        metadata = {"identity": self.identity, "facts": json.dumps(facts)}
        metadata["digest"] = _digest(stored, metadata["facts"], self.identity)
        with new_file(self.path) as part:
            save_file(stored, part, metadata=metadata)
        self.last = time.monotonic()
        if self.wait_seconds:
            self.wait_seconds = max(self.wait_seconds, (self.last - start) / LARGEST_SHARE)

    def read(self, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(tensors, facts); None if there is no file, or a damaged one. Raises StoreError if it is another fit's."""
        if not self.path.exists():
            return None
        if (state := _state(self.path, str(device))) is None:
            self.note(f"{self.path} is damaged; the fit begins anew")
            self.path.unlink(missing_ok=True)
            return None
        tensors, facts, identity = state
        if identity != self.identity:
            raise StoreError(
                f"checkpoint {self.path} belongs to a fit with other data, options, seed, adapters or "
                "backbone; remove it, or repeat that fit's command"
            )
        return tensors, facts


def checkpoint_damage(path: Path) -> str:
    """What is wrong with the file of a checkpoint, in one line; empty if nothing is."""
    return "" if _state(path, "cpu") else f"{path} is damaged"


def _state(path: Path, device: str) -> tuple[dict[str, Tensor], dict[str, Any], str] | None:
    """(tensors, facts, identity) of a file; None for a damaged one."""
    try:
        with safe_open(path, framework="pt", device=device) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        state = tensors, json.loads(metadata["facts"]), metadata["identity"]
        return state if metadata["digest"] == _digest(tensors, metadata["facts"], metadata["identity"]) else None
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _digest(tensors: Mapping[str, Tensor], facts: str, identity: str) -> str:
    """SHA-256 (hex) of a state's names, values, facts and identity."""
    digest = hashlib.sha256(f"{identity}\n{facts}\n".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
