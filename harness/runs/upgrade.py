"""A run.json of schema 1 -> schema 2. Only here are flags read from English words, once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.runs.record import SCHEMA_VERSION

_FLAGS = {
    r"(?P<share>\d+)% empty replies": "empty_replies",
    r"(?P<count>\d+) of (?P<of>\d+) adapters: diverged": "diverged_adapters",
    r"(?P<count>\d+) of (?P<of>\d+) adapters: no data": "adapters_without_data",
    r"rewaved": "rewaved",
    r"adds text to the prompt": "adds_text",
    r"imported": "imported",
}


def upgraded(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The fields of schema 2. What schema 1 did not keep (fits, the cost of what a run stands on) stays None.

    value   with the sums of personas.json under "per_persona"
    Raises  StoreError for a flag that no harness wrote.
    """
    old = dict(value)
    source = old.get("plugin") or {}
    if isinstance(old.get("config"), dict):  # its only engine was called "local"
        old["config"] = {name: value for name, value in old["config"].items() if name != "engine"}
    found: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "flags": [_flag(words, path) for words in old.pop("flags", [])],
        "cost": old.pop("cost", None) or None,
        "plugin_files": [source["file"]] if source.get("file") and source.get("distribution") is None else [],
    }
    if old.pop("origin", None) == "imported":
        found["imported"] = {**old.pop("file"), "example_set": old.pop("example_set")}
    sums = dict(old.pop("per_persona", None) or {})
    unseen = sums.pop("unseen", None)
    if sums:
        found["per_persona"] = sums
    if old.get("unseen"):
        found["unseen"] = {**old["unseen"], "per_persona": unseen}
    return {**old, **found}


def _flag(words: str, path: Path) -> dict[str, Any]:
    for pattern, kind in _FLAGS.items():
        if match := re.fullmatch(pattern, words):
            numbers = {name: int(digits) for name, digits in match.groupdict().items()}
            return {"kind": kind, **({"share": numbers["share"] / 100} if "share" in numbers else numbers)}
    raise StoreError(f"{path}: flags: '{words}' is no flag of schema 1")
