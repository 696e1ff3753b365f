"""State of an unfinished fit in one safetensors file: replaced atomically, tied to exactly one fit.

No pickle. `harness.training.bank_training` decides what the state means.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.errors import StoreError

SECONDS_BETWEEN = 20.0
LARGEST_SHARE = 0.05  # of the time may go into writing


class Checkpoint:
    """One file. `identity` names the fit (backbone, adapters, data, options, seed); any other is refused."""

    def __init__(self, path: Path, identity: str, seconds_between: float = SECONDS_BETWEEN) -> None:
        self.path = path
        self.identity = identity
        self.wait_seconds = seconds_between
        self.last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.last >= self.wait_seconds

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write tensors and JSON-able facts; the old file stays until the new one is complete."""
        start = time.monotonic()
        temporary = self.path.with_name(self.path.name + ".part")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"identity": self.identity, "facts": json.dumps(facts)}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=metadata)
        temporary.replace(self.path)
        self.last = time.monotonic()
        if self.wait_seconds:
            self.wait_seconds = max(self.wait_seconds, (self.last - start) / LARGEST_SHARE)

    def read(self, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(tensors, facts); None if there is no file. Raises StoreError if it is damaged or another fit's."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            identity, facts = metadata["identity"], json.loads(metadata["facts"])
        except (OSError, SafetensorError, KeyError, ValueError) as fault:
            raise StoreError(f"checkpoint {self.path} cannot be read ({fault}); remove it to start anew") from fault
        if identity != self.identity:
            raise StoreError(
                f"checkpoint {self.path} belongs to a fit with other data, options, seed, adapters or "
                "backbone; remove it, or repeat that fit's command"
            )
        return tensors, facts
