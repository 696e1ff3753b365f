"""What the flags beside a row mean: one sentence for each that can occur. Where they are raised is the harness's."""

from __future__ import annotations

import re

from harness.statistics import FLAGS

from .rows import Line

# As `harness.runs.record.flags_of` and the import write them; a number in front belongs to the one run.
OF_RUNS: dict[str, tuple[str, str]] = {
    r"\d+% empty replies": ("empty replies", "more than 5 % of the replies hold no text; they are scored as they are"),
    r"\d+ of \d+ adapters: diverged": (
        "adapters: diverged",
        "the loss of these adapters was no longer finite; they stopped there, and the others were not touched",
    ),
    r"\d+ of \d+ adapters: no data": ("adapters: no data", "no training dialogue for these adapters: as initialised"),
    r"rewaved": ("rewaved", "memory ran out and batches were halved: equal up to rounding, not to the bit"),
    r"adds text to the prompt": ("adds text to the prompt", "the model saw more text here than under other methods"),
    r"imported": ("imported", "scores made elsewhere: nothing is known of prompts, decoding or cost"),
}


def flags_of(line: Line) -> list[str]:
    """The flags of a row: of all its runs, then of the comparison; each once."""
    found = [str(flag) for run in line.family.runs for flag in run.record["flags"]]
    return list(dict.fromkeys([*found, *(line.comparison.flags if line.comparison else ())]))


def explained(flag: str) -> tuple[str, str]:
    """(name without the run's own numbers, what it means)."""
    if flag in FLAGS:
        return flag, FLAGS[flag]
    for pattern, entry in OF_RUNS.items():
        if re.fullmatch(pattern, flag):
            return entry
    return flag, "not one of the harness's own flags: ask whoever made the run"


def glossary(lines: list[Line] | tuple[Line, ...]) -> dict[str, str]:
    """Name -> meaning of every flag that occurs, by name."""
    return dict(sorted(explained(flag) for line in lines for flag in flags_of(line)))
