"""A line of each stored run: the index saves time, and nothing else."""

from __future__ import annotations

import json
import os

import pytest

from harness.runs import lines, lines_of

COUNT = 4


@pytest.fixture
def stored_few(put, monkeypatch, tmp_path):
    """A folder of a few runs, whose lines are worth an index."""
    monkeypatch.setattr(lines, "WORTH_AN_INDEX", 2)
    for seed in range(COUNT):
        put("own", [0.5 + seed / 100, 0.6], seed=seed, id=f"own-x-{seed}")
    return tmp_path / "runs"


def read(folder):
    """The lines, and the ids of the runs that were read for them."""
    looked = []

    def line(run):
        looked.append(run.id)
        return {"run": run.id, "seed": run.head.seed, "status": run.head.status, "score": run.head.scores}

    return lines_of(folder, line), looked


def test_what_is_as_it_was_is_not_read_again(stored_few):
    first, looked = read(stored_few)
    assert len(looked) == COUNT
    assert (stored_few / lines.INDEX).is_file()
    assert read(stored_few) == (first, [])


def test_a_run_that_changes_comes_or_goes_is_seen(stored_few, put):
    first, _ = read(stored_few)
    path = stored_few / "own-x-1" / "run.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 9'))
    (stored_few / "own-x-2" / "run.json").unlink()
    put("own", [0.1, 0.2], seed=7, id="own-x-7")
    found, looked = read(stored_few)
    assert looked == ["own-x-1", "own-x-7"]
    assert [line["run"] for line in found] == ["own-x-0", "own-x-1", "own-x-3", "own-x-7"]
    assert found[1]["status"] == "failed", "its digest is that of another text"
    assert found[0] == first[0]
    assert "own-x-1" in read(stored_few)[1], "a run that is not complete is looked at each time"


@pytest.mark.parametrize("harm", ["lost", "flipped", "cut", "unsigned", "of other sources", "unreadable"])
def test_to_lose_the_index_loses_nothing(stored_few, harm, monkeypatch):
    first, _ = read(stored_few)
    path = stored_few / lines.INDEX
    text = path.read_text()
    match harm:
        case "lost":
            path.unlink()
        case "flipped":
            path.write_text(text.replace("0.55", "0.95"))
            assert path.read_text() != text
        case "cut":
            path.write_text(text[:-30])
        case "unsigned":
            path.write_text(json.dumps({"lines": {}}))
        case "of other sources":
            monkeypatch.setattr(lines, "_made_by", lambda line: "others")
        case "unreadable":
            path.unlink()
            path.mkdir()
    assert read(stored_few) == (first, [f"own-x-{seed}" for seed in range(COUNT)])


def test_a_folder_that_cannot_be_written_is_listed(stored_few, monkeypatch):
    def full(path, text):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(lines, "write_atomically", full)
    assert len(read(stored_few)[0]) == COUNT
    assert not (stored_few / lines.INDEX).exists()


def test_few_runs_make_no_index(put, tmp_path):
    put("own", [0.5, 0.6], id="own-x-0")
    assert len(read(tmp_path / "runs")[0]) == 1
    assert not (tmp_path / "runs" / lines.INDEX).exists()
