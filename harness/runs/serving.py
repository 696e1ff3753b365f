"""Which of a run's adapters replies to whom: served.json beside run.json, persona -> key of the run's own adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.errors import StoreError
from harness.store import dump_json, read_json

FILE = "served.json"


def write_served(folder: Path, served: Mapping[str, str]) -> None:
    """Write who is served by which adapter; a persona that another method's adapters serve is left out."""
    dump_json(dict(served), folder / FILE)


def read_served(folder: Path) -> dict[str, str]:
    """Persona -> key of the adapter. Raises StoreError for a run that does not say."""
    if not (folder / FILE).is_file():
        raise StoreError(f"{folder} has no table of personas and adapters ({FILE} is missing); run it again")
    served = read_json(folder / FILE)
    if not isinstance(served, dict) or not all(isinstance(key, str) for key in served.values()):
        raise StoreError(f"{folder / FILE} is not a valid table of personas and adapters; run it again")
    return served
