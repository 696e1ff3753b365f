"""A run's record -> the command line that makes it again. What stands around it is `leaderboard.markdown`'s."""

from __future__ import annotations

import json
from typing import Any

from harness.config import SETTINGS, default_values
from harness.runs import RunRecord
from harness.text import shell_word


def command(record: RunRecord) -> str:
    """The command line that makes a run again, in the folder where its loose files and data lie.

    It is one line, safe to paste into bash, zsh or ksh whatever the record holds.
    """
    plugins = [word for path in record.plugin_files for word in ("--plugin", path)]
    if file := record.imported:
        words = ["harness", "import", _operand(file.name), "--method", record.method]
        words += ["--benchmark", record.benchmark.name]
        words += ["--metric", record.metric, "--example-set", file.example_set, "--unit", file.unit]
        words += ["--higher-is-better" if record.metric_sums(record.metric).higher_is_better else "--lower-is-better"]
        words += ["--seed", str(record.seed)] if record.seed else []
    elif record.tuning:
        words = ["harness", "tune", _operand(record.tuning.study), *plugins]
    else:
        words = ["harness", "run", *plugins, "--method", record.method, *_settings(record)]
        for target, values in sorted(record.changed.items()):
            for name, value in sorted(values.items()):
                words += ["--set", f"{target}.{name}={_text(value)}"]
    return " ".join(map(shell_word, words))


def _settings(record: RunRecord) -> list[str]:
    """Flags for the settings that are not the shipped defaults."""
    config, defaults = record.config, default_values()
    words = []
    narrowed = bool(config.persona) or config.cluster is not None
    for name, value in sorted(config.model_dump(mode="json").items()):
        elsewhere = name == "method" or name not in SETTINGS or (name == "personas" and narrowed)
        if isinstance(value, bool):
            words += [] if value == defaults.get(name) else [f"--{'' if value else 'no-'}{name.replace('_', '-')}"]
        elif not elsewhere and value not in (None, []) and value != defaults.get(name):
            words += [f"--{name.replace('_', '-')}", _text(value)]
    size = record.benchmark.options.get("personas")
    if config.personas is None and isinstance(size, int):
        words += ["--personas", str(size)]  # always given: a benchmark's default may change
    return words


def _operand(name: str) -> str:
    """A file's name that is no flag."""
    return f"./{name}" if name.startswith("-") else name


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
