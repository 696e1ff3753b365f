"""Which modules a persona id passes from the command to the leaderboard row; not a test.

    python tests/scripts/trace_persona.py [METHOD]     text_prefix, whose adapters are not named after personas

A module counts if one of its functions has the id in a local variable, alone or directly in a container, or reads
ids from prompts and examples. The benchmark, which makes the ids, and the writing of JSON stand apart.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from harness.cli import main
from harness.contract import Example, Prompt, load_benchmark

ROOT = Path(__file__).parents[2]


def holds(value: Any, wanted: str) -> bool:
    """Whether a local variable is the id, or a container that has it as an element or key."""
    if isinstance(value, str):
        return value == wanted
    if isinstance(value, dict | set | frozenset):
        return wanted in value
    return isinstance(value, list | tuple) and any(isinstance(item, str) and item == wanted for item in value)


def reads(code: CodeType, value: Any) -> bool:
    """Whether a function takes the id from a prompt or example that it has."""
    return isinstance(value, Prompt | Example) and "persona" in code.co_names


def passed(wanted: str, *arguments: str) -> list[str]:
    """The files of this repository that the id passes while a command runs, in order of first need."""
    found: dict[str, None] = {}

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "return" or not code.co_filename.startswith(str(ROOT)) or "/.venv/" in code.co_filename:
            return
        name = str(Path(code.co_filename).relative_to(ROOT))
        if name not in found and "tests" not in name:
            values = list(frame.f_locals.values())
            if any(holds(value, wanted) or reads(code, value) for value in values):
                found[name] = None

    sys.setprofile(watch)
    try:
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            main(list(arguments))
    finally:
        sys.setprofile(None)
    return list(found)


if __name__ == "__main__":
    method = sys.argv[1] if len(sys.argv) > 1 else "text_prefix"
    benchmark = load_benchmark("smarthome")
    someone = benchmark.load(benchmark.card.options()).personas[0].id
    with tempfile.TemporaryDirectory() as folder:
        small = ["--personas", "4", "--set", "dialogues=2,2,2", "--quiet"]
        on_the_way = passed(someone, "run", "--method", method, *small, "--runs-dir", folder)
        table = ["leaderboard", "--runs-dir", folder, "--format", "json"]
        on_the_way += [name for name in passed(someone, *table) if name not in on_the_way]
    passes = [name for name in on_the_way if not name.startswith("benchmarks") and name != "harness/store/disk.py"]
    print("\n".join(passes))
    print(len(passes), "modules")
