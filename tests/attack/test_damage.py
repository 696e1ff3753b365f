"""Every stored file of a run, harmed in every way: it is said in one line, and the same command mends it to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.scoring import WIDTH, VectorStore
from harness.store import Store

SMALL = ["--personas", "4", "--set", "dialogues=2,1,1", "--set", "epochs=1", "--set", "unified.epochs=1", "--quiet"]
COMMAND = ["run", "--method", "persona_prefix", *SMALL]
HARMS = ("flip", "cut", "remove", "zeros", "grow")
FAST = 4  # of more than a hundred cases, in the default run


def harm(path: Path, how: str) -> None:
    raw = path.read_bytes()
    place = len(raw) // 2
    match how:
        case "flip":
            path.write_bytes(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])
        case "cut":
            path.write_bytes(raw[: -max(1, len(raw) // 3)])
        case "remove":
            path.unlink()
        case "zeros":  # of a file of the same size: what the loss of power leaves on some file systems
            path.write_bytes(bytes(len(raw)))
        case "grow":
            path.write_bytes(raw + raw[:8])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "runs"
    with pytest.raises(SystemExit) as ended:
        main([*COMMAND, "--runs-dir", str(folder)])
    assert not ended.value.code
    return folder


def stored_files(folder: Path) -> list[str]:
    """All files of a store but for its locks."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith(".cache/locks"))


def scores(folder: Path) -> dict[str, object]:
    fields = ("status", "scores", "per_persona", "files")
    records = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("[!.]*/run.json")}
    return {name: [written[field] for field in fields] for name, written in sorted(records.items())}


def check_case(runs, tmp_path, harness, name, how):
    folder = Path(shutil.copytree(runs, tmp_path / "runs"))
    harm(folder / name, how)
    print(f"case: {name}, {how}")
    code, out, _ = harness("runs", "check", "--runs-dir", folder)
    # No damage: the vectors that are there are whole, and what a killed process began is cut off without a word.
    fewer = name.endswith(".vectors") and how in ("cut", "remove", "grow")
    if fewer:
        assert code in (0, 2)
    elif how == "remove" and name.endswith("run.json"):
        assert code == 0, "a folder without a record is no run"
    else:
        assert code == 2
        assert len(out.splitlines()) == 1
        assert str(folder / Path(name).parts[0]) in out
        assert "Traceback" not in out
    if name.startswith(".cache"):  # so that what is cached is needed
        for path in folder.glob("[!.]*"):
            shutil.rmtree(path)
    code, _, err = harness(*COMMAND, "--runs-dir", folder)
    assert code == 0, err
    assert scores(folder) == scores(runs)
    said = [line for line in err.splitlines() if "made again" in line]
    assert len(said) == 1 or (not said and (fewer or how == "remove")), err
    harness("runs", "check", "--repair", "--runs-dir", folder)
    code, out, _ = harness("runs", "check", "--runs-dir", folder)
    assert code == 0, out
    assert stored_files(folder) == stored_files(runs)
    shutil.rmtree(folder)


def test_vectors_that_are_whole_stay_where_others_are_damaged(runs, tmp_path, harness):
    folder = Path(shutil.copytree(runs, tmp_path / "runs"))
    (path,) = folder.glob(".cache/embeddings/*.vectors")
    raw, row = path.read_bytes(), VectorStore(path, WIDTH).row_bytes
    assert len(raw) > 2 * row
    path.write_bytes(raw[:row] + bytes([raw[row] ^ 1]) + raw[row + 1 :] + raw[:8])  # a digit of the second, a part more
    code, out, _ = harness("runs", "check", "--runs-dir", folder)
    assert code == 2
    assert f"{path} is damaged: 2 of its vectors" in out
    assert harness("runs", "check", "--repair", "--runs-dir", folder)[0] == 0
    assert path.read_bytes() == raw[:row] + raw[2 * row :]
    assert harness("runs", "check", "--runs-dir", folder)[0] == 0


def test_some_damage_is_said_and_mended(runs, tmp_path, harness):
    names = stored_files(runs)
    assert len(names) > 25
    for place in range(FAST):
        check_case(runs, tmp_path, harness, names[place * len(names) // FAST], HARMS[place % len(HARMS)])


@pytest.mark.attack
@pytest.mark.timeout(3600)
def test_every_case_of_damage_are_said_and_mended(runs, tmp_path, harness):
    names = stored_files(runs)
    assert len(names) * len(HARMS) >= 105
    for name in names:
        for how in HARMS:
            check_case(runs, tmp_path, harness, name, how)


def test_a_damaged_run_takes_nothing_else_down_and_readers_say_what_is_wrong(runs, tmp_path, harness):
    folder = Path(shutil.copytree(runs, tmp_path / "runs"))
    (prefix,) = folder.glob("persona_prefix-*")
    (base,) = folder.glob("unified-*")
    harm(prefix / "replies.parquet", "flip")
    code, out, err = harness("show", "persona_prefix", "--runs-dir", folder)
    assert code == 2
    assert f"{prefix / 'replies.parquet'} is damaged" in err
    assert len(err.splitlines()) == 1
    assert harness("show", "unified", "--runs-dir", folder)[0] == 0
    harm(prefix / "run.json", "flip")
    code, out, err = harness("list", "runs", "--runs-dir", folder)
    assert code == 0
    assert "is damaged" in out
    assert base.name in out
    code, _, err = harness("show", "persona_prefix", "--runs-dir", folder)
    assert (code, len(err.splitlines())) == (2, 1) or "is damaged" in _


def test_one_bad_record_among_others_is_a_line_in_the_list(put, tmp_path, harness):
    put("base", [0.5] * 12)
    put("good", [0.6] * 12)
    for name, text in {
        "zzbad": '{"id": "zzbad", "status": "ok"}',
        "empty": "",
        "list": "[]",
        "other": '{"id": "x/../../y", "schema_version": 2}',
        "deep": "[" * 100_000,
    }.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text(text)
    code, out, _ = harness("list", "runs", "--runs-dir", tmp_path / "runs", "--json")
    assert code == 0
    rows = {row["run"]: row for row in json.loads(out)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "base-x-0": "ok", "good-x-0": "ok",
        **dict.fromkeys(("zzbad", "empty", "list", "other", "deep"), "failed"),
    }  # fmt: skip
    assert all(str(tmp_path / "runs" / name) in rows[name]["error"] for name in ("zzbad", "empty", "list", "deep"))
    assert harness("compare", "base", "good", "--runs-dir", tmp_path / "runs")[0] == 0
    code, out, _ = harness("leaderboard", "--runs-dir", tmp_path / "runs", "--output", tmp_path / "b" / "README.md")
    assert code == 0
    assert "2 complete runs, 5 not" in out
    assert harness("runs", "rm", "zzbad", "deep", "--runs-dir", tmp_path / "runs")[0] == 0
    assert len(list((tmp_path / "runs").glob("[!.]*"))) == 5
    assert harness("runs", "rm", "good-x-0", "nobody", "--runs-dir", tmp_path / "runs")[0] == 2
    assert (tmp_path / "runs" / "good-x-0").is_dir(), "none is removed where one is unknown"


def test_half_written_folders_of_earlier_harnesses_are_no_runs(put, tmp_path, harness):
    run = put("base", [0.5] * 12)
    shutil.copytree(run.path, run.path.with_name(f".{run.id}.1a2b3c4d.part"))
    shutil.copytree(run.path, run.path.with_name(f".{run.id}.1a2b3c4d.old"))
    assert len(json.loads(harness("list", "runs", "--runs-dir", tmp_path / "runs", "--json")[1])) == 1
    assert harness("show", run.id, "--runs-dir", tmp_path / "runs")[0] == 0
    assert harness("runs", "check", "--runs-dir", tmp_path / "runs")[0] == 2
    assert harness("runs", "check", "--repair", "--runs-dir", tmp_path / "runs")[0] == 0
    assert [p.name for p in (tmp_path / "runs").iterdir() if p.name != ".cache"] == [run.id]


def test_what_was_not_used_for_long_is_cleared(runs, tmp_path, harness):
    folder = Path(shutil.copytree(runs, tmp_path / "runs"))
    before = scores(folder)
    code, out, _ = harness("runs", "gc", "--runs-dir", folder)
    assert (code, out.split()[0]) == (0, "0")
    assert harness("runs", "gc", "--days", "0", "--dry-run", "--runs-dir", folder)[0] == 0
    assert stored_files(folder) == stored_files(runs)
    assert harness("runs", "gc", "--days", "0", "--runs-dir", folder)[0] == 0
    assert not list(Store(folder).cache.glob("adapters/*"))
    assert harness(*COMMAND, "--runs-dir", folder)[0] == 0
    assert scores(folder) == before


def test_an_edit_of_a_run_reaches_no_other_file(runs):
    inodes = [path.stat().st_ino for path in runs.rglob("*") if path.is_file()]
    assert len(inodes) == len(set(inodes))
