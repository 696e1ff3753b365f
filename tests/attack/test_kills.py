"""Commands that are killed at any moment: the same command goes on to the same bits, and nothing is left over."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runs import faults
from harness.store import Store

KILLED = Path(__file__).with_name("killed.py")
KILLS = 30
SMALL = "--personas 4 --set dialogues=4,2,2 --set epochs=1 --quiet"
SWEEP = """
personas: 4
set: {dialogues: [4, 2, 2], unified: {train: {epochs: 1}}}
methods: [unified, {method: persona_prefix, set: {epochs: 1}}]
"""
COMMANDS = {
    "run": f"run --method persona_prefix {SMALL}",
    "sweep": "sweep plan.yaml --quiet",
    "import": "import scores.csv --method theirs --benchmark toy --metric similarity --example-set all",
    "leaderboard": "leaderboard --runs-dir runs --output board/README.md --publish",
    "export": "leaderboard --runs-dir runs --output board/table.csv",
}


def call(folder: Path, command: str, event: int = 0) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(KILLED), str(event), str(folder), *command.split()]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=250, check=False)


def results(folder: Path) -> dict[str, object]:
    """All that a command made, without times: file -> bytes, or the record's scores."""
    found: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts):
        name = path.relative_to(folder).as_posix()
        if path.name == "run.json":
            written = json.loads(path.read_text())
            found[name] = [written[field] for field in ("status", "scores", "per_persona", "files")]
        else:
            found[name] = path.read_bytes()
    return found


def prepared(folder: Path, what: str) -> Path:
    """A folder with all that the command reads."""
    folder.mkdir()
    (folder / "plan.yaml").write_text(SWEEP)
    (folder / "scores.csv").write_text("persona,n,score\n" + "".join(f"p{i},5,{i / 10}\n" for i in range(8)))
    if what in ("leaderboard", "export"):
        for method in ("one", "two"):
            done = call(folder, COMMANDS["import"].replace("theirs", method))
            assert done.returncode == 0, done.stderr
    return folder


def killed_and_resumed(tmp_path: Path, what: str, kills: int) -> None:
    command = COMMANDS[what]
    start = prepared(tmp_path / "start", what)
    whole = shutil.copytree(start, tmp_path / "whole")
    done = call(whole, command)
    assert done.returncode == 0, done.stderr
    events = int(done.stderr.splitlines()[-1])
    wanted = results(whole)
    assert events > 3
    chosen = random.Random(0)
    # All is stored before the last but one, and only what was needed meanwhile is left.
    at = [events - 1, *(chosen.randint(1, events) for _ in range(kills - 1))]
    for kill, event in enumerate(at):
        folder = shutil.copytree(start, tmp_path / f"kill-{kill}")
        assert call(folder, command, event).returncode == -9
        again = call(folder, command)
        assert again.returncode == 0, f"killed at {event} of {events}: {again.stderr}"
        assert results(folder) == wanted, f"killed at {event} of {events}"
        assert not list(faults(Store(folder / "runs"))), f"killed at {event} of {events}"
        assert not [p for p in folder.rglob("*") if p.suffix in (".part", ".old")]
        shutil.rmtree(folder)


@pytest.mark.parametrize("what", ["import", "export"])
def test_a_killed_command_goes_on_to_the_same_bits(tmp_path, what):
    killed_and_resumed(tmp_path, what, 2)


@pytest.mark.attack
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", COMMANDS)
def test_thirty_kills_of_each_command(tmp_path, what):
    killed_and_resumed(tmp_path, what, KILLS)


def test_of_two_imports_of_one_identity_at_once_one_is_stored(tmp_path):
    start = prepared(tmp_path / "start", "import")
    (start / "other.csv").write_text((start / "scores.csv").read_text().replace("0.5", "0.6"))
    words = [sys.executable, str(KILLED), "0", str(start)]
    both = [
        subprocess.Popen([*words, *command.split()], cwd=start, stderr=subprocess.PIPE, text=True)
        for command in (COMMANDS["import"], COMMANDS["import"].replace("scores.csv", "other.csv"))
    ]
    said = [process.communicate(timeout=200)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    assert sum("has other scores of 'theirs'" in words for words in said) == 1
    assert len(list((start / "runs").glob("[!.]*"))) == 1
