"""A run's record -> the command line that makes it again. What stands around it is `leaderboard.markdown`'s."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from harness.config import default_values


def command(record: Mapping[str, Any]) -> str:
    """The command line that makes a run again."""
    if record.get("origin") == "imported":
        words = ["harness", "import", record["file"]["name"], "--method", record["method"]]
        words += ["--benchmark", record["benchmark"]["name"], "--metric", record["metrics"][0]]
        words += ["--example-set", record["example_set"], "--unit", record["file"]["unit"]]
        words += ["--seed", record["seed"]] if record["seed"] else []
        return " ".join(shlex.quote(str(word)) for word in words)
    defaults = default_values()
    words = ["harness", "run", "--method", record["method"]]
    for name, value in sorted(record["config"].items()):
        narrowed = name == "personas" and (
            record["config"].get("persona") or record["config"].get("cluster") is not None
        )
        if (
            narrowed
            or name in ("method", "protocol", "engine")
            or value in (None, [], ())
            or value == defaults.get(name)
        ):
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    size = record["benchmark"]["options"].get("personas")
    if record["config"].get("personas") is None and isinstance(size, int):
        words += ["--personas", str(size)]  # said aloud: a benchmark's default may change
    for target, values in sorted(record.get("changed", {}).items()):
        for name, value in sorted(values.items()):
            text = (
                ",".join(map(str, value))
                if isinstance(value, list)
                else value
                if isinstance(value, str)
                else json.dumps(value)
            )
            words += ["--set", f"{target}.{name}={text}"]
    return " ".join(shlex.quote(str(word)) for word in words)
