"""Hashes of sources: they follow imports, so that moved files and changed constants are seen, and nothing is listed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.store import imported_sources, source_hash

ROOT = Path(__file__).parents[2]

FILES = {
    "__init__.py": "",
    "start.py": "from parcel.room import width\nfrom . import plain\ndef f():\n    import parcel.late\n",
    "plain.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from parcel import typing_only\nLENGTH = 1\n",
    "late.py": "import json\n",
    "typing_only.py": "",
    "stranger.py": "",
    "room/__init__.py": "",
    "room/__init__.pyi": "from .inner import width as width\nfrom .other import height as height\n",
    "room/inner.py": "width = 3\n",
    "room/other.py": "height = 4\n",
}


@pytest.fixture
def parcel(tmp_path):
    """A package in a folder of its own; parcel(name, text) changes a file, parcel() hashes `start` in a new process."""
    for name, text in FILES.items():
        path = tmp_path / "parcel" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def ask(name: str = "", text: str = "") -> str:
        if name:
            (tmp_path / "parcel" / name).write_text(text)
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); from harness.store import imported_sources, source_hash; "
            "print(source_hash('parcel.start'), *sorted(imported_sources(['parcel.start'])))"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return ask


def test_what_is_imported_counts_and_nothing_else(parcel):
    assert parcel().split()[1:] == [
        "parcel", "parcel.late", "parcel.plain", "parcel.room", "parcel.room.inner", "parcel.start",
    ]  # fmt: skip


def test_no_plain_module_is_executed(parcel):
    before = parcel("late.py", "from parcel.plain import LENGTH\n").split()[1:]
    assert parcel("plain.py", "raise RuntimeError('executed')\n").split()[1:] == before


STATEMENTS = [
    "if f():\n    pass\nelif g():\n    pass\nelse:\n    {}\n",
    "try:\n    pass\nexcept ImportError:\n    {}\n",
    "try:\n    pass\nexcept* ImportError:\n    pass\nelse:\n    {}\n",
    "try:\n    pass\nfinally:\n    {}\n",
    "for _ in f():\n    while g():\n        with h():\n            {}\n",
    "for _ in f():\n    pass\nelse:\n    {}\n",
    "match f():\n    case 1:\n        {}\n",
    "class A:\n    async def f(self):\n        async with g():\n            {}\n",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    {}\n",
]


def test_an_import_inside_any_statement_counts(parcel, tmp_path):
    wanted = {f"parcel.inside_{number}" for number in range(len(STATEMENTS))}
    for name in wanted:
        (tmp_path / f"{name.replace('.', '/')}.py").touch()
    text = "".join(one.format(f"import parcel.inside_{number}") for number, one in enumerate(STATEMENTS))
    assert wanted <= set(parcel("late.py", text).split())


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("plain.py", FILES["plain.py"].replace("1", "2"), True),
        ("late.py", "import csv\n", True),
        ("room/inner.py", "width = 4\n", True),
        ("room/other.py", "height = 5\n", False),
        ("typing_only.py", "A = 1\n", False),
        ("stranger.py", "A = 1\n", False),
    ],
)
def test_a_changed_constant_is_seen_where_it_is_imported(parcel, name, text, seen):
    assert (parcel() != parcel(name, text)) == seen


def test_a_moved_file_is_seen(parcel, tmp_path):
    before = parcel()
    shutil.move(tmp_path / "parcel" / "room" / "inner.py", tmp_path / "parcel" / "room" / "moved.py")
    after = parcel("room/__init__.pyi", FILES["room/__init__.pyi"].replace(".inner", ".moved"))
    assert "parcel.room.moved" in after
    assert "parcel.room.inner" not in after
    assert before.split()[0] != after.split()[0]


KEYS = """
import pathlib, sys
from harness.store import sources

def show():
    for function in vars(sources).values():
        getattr(function, "cache_clear", lambda: None)()
    print(sources.source_hash("harness.training.service"))

optimiser, elsewhere = map(pathlib.Path, sys.argv[1:])
show()
text = optimiser.read_text(encoding="utf-8")
assert "BETA1" in text
optimiser.write_text(text.replace("BETA1", "BETA_ONE"), encoding="utf-8")
show()
optimiser.write_text(text, encoding="utf-8")
elsewhere.write_text(elsewhere.read_text(encoding="utf-8") + "\\n# more\\n", encoding="utf-8")
show()
"""


def test_the_key_of_a_fit_changes_with_a_constant_of_the_optimiser(tmp_path):
    """On a copy of the house itself: AdamW's beta, deep below the service that makes the key."""
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__", "embedded"))
    optimiser, elsewhere = tmp_path / "harness/training/optimiser.py", tmp_path / "harness/show/printing.py"
    done = subprocess.run(
        [sys.executable, "-c", KEYS, optimiser, elsewhere], cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, changed, same = done.stdout.split()
    assert before != changed
    assert before == same, "how results are printed is no part of a fit"


def test_an_unknown_module_is_named():
    with pytest.raises(HarnessError, match=r"no module harness\.nowhere"):
        source_hash("harness.nowhere")


def test_scoring_and_decoding_are_part_of_a_run_and_not_of_a_fit():
    fit = set(imported_sources(["harness.training.service"]))
    run = set(imported_sources(["harness.study", "harness.scoring.evaluation"]))
    assert fit < run
    assert "harness.scoring.evaluation" in run - fit
