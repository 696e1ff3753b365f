"""Folders and files on disk: all or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.errors import StoreError
from harness.store.disk import Store, canonical_hash, clean_json, copy_sealed, dump_json, write_atomically
from harness.store.seal import damage, is_signed, signed, signed_well


def test_a_folder_that_fails_half_way_leaves_the_old_one_and_no_litter(tmp_path):
    store = Store(tmp_path)
    store.write_folder("a-1", lambda folder: dump_json({"score": 1}, folder / "x.json"))

    def fail(folder):
        (folder / "x.json").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left"):
        store.write_folder("a-1", fail)
    assert json.loads((tmp_path / "a-1" / "x.json").read_text()) == {"score": 1}
    assert visible(tmp_path) == ["a-1"]
    assert not (tmp_path / ".cache" / "tmp").exists()


def test_a_command_that_waits_for_another_says_so_once_and_where(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.store.disk.SECONDS_BEFORE_WORD", 0.02)
    said, first = [], Store(tmp_path)
    waits, done = threading.Event(), threading.Event()

    def note(line: str) -> None:
        said.append(line)
        waits.set()

    def second() -> None:
        with Store(tmp_path, note).lock("adapters-1"):
            done.set()

    with first.lock("adapters-1"):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        assert not done.is_set()
    thread.join(10)
    assert done.is_set()
    path = tmp_path / ".cache" / "locks" / "adapters-1.lock"
    assert said == [f"waiting for another command, which holds {path}"]
    with Store(tmp_path, said.append).lock("adapters-1"):
        pass
    assert len(said) == 1, "who does not wait says nothing"


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    store = Store(tmp_path)
    for name in ("x.json", "y.json"):
        store.write_folder("a-1", lambda folder, name=name: dump_json({}, folder / name))
    assert [p.name for p in tmp_path.rglob("*.json")] == ["y.json"]
    assert visible(tmp_path) == ["a-1"]


def test_cached_makes_once(tmp_path):
    store, made = Store(tmp_path), []

    def make(folder):
        made.append(folder)
        (folder / "x").write_text("1")

    assert store.find("things", "k") is None
    first = store.cached("things", "k", make)
    assert store.cached("things", "k", make) == first
    assert len(made) == 1
    assert (first / "x").read_text() == "1"
    assert store.find("things", "k") == first
    spoil(first / "x", "empty")
    assert store.find("things", "k") is None


def test_nan_becomes_null_and_hashes_ignore_the_order_of_keys(tmp_path):
    dump_json({"a": float("nan"), "b": [float("inf"), 1.5]}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [None, 1.5]}
    assert clean_json({1: (2,)}) == {"1": [2]}
    assert canonical_hash({"a": 1, "b": 2}) == canonical_hash({"b": 2, "a": 1}) != canonical_hash({"a": 1, "b": 3})


def test_an_unwritable_place_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write_atomically(tmp_path / "file" / "x.md", "text")
    with pytest.raises(StoreError, match="cannot write"):
        Store(tmp_path / "file").write_folder("a-1", lambda folder: None)


def test_a_copy_shares_no_inode_and_is_sealed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "w").write_text("weights")
    digest = copy_sealed(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "w").read_text() == "weights"
    assert (tmp_path / "a" / "w").stat().st_ino != (tmp_path / "b" / "w").stat().st_ino
    assert damage(tmp_path / "b", digest) == ""
    (tmp_path / "b" / "w").write_text("weighty")
    assert damage(tmp_path / "b", digest) == f"{tmp_path / 'b' / 'w'} is damaged: its digest is not the recorded one"


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "remove"])
@pytest.mark.parametrize("name", ["x.json", "deep/y.bin", "files.json"])
def test_damage_of_a_cached_folder_is_said_once_and_mended(tmp_path, harm, name):
    said, made = [], []
    store = Store(tmp_path, said.append)

    def make(folder):
        made.append(folder)
        dump_json({"score": 1}, folder / "x.json")
        (folder / "deep").mkdir()
        (folder / "deep" / "y.bin").write_bytes(bytes(range(200)))

    folder = store.cached("things", "k", make)
    before = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    spoil(folder / name, harm)
    for _ in range(2):
        assert store.cached("things", "k", make) == folder
    assert {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert len(made) == 2
    (line,) = said
    assert str(folder) in line
    assert line.endswith("; it is made again")
    assert "\n" not in line


def spoil(path, harm):
    raw = path.read_bytes()
    match harm:
        case "flip":
            path.write_bytes(raw[:9] + bytes([raw[9] ^ 1]) + raw[10:])
        case "cut":
            path.write_bytes(raw[:-3])
        case "empty":
            path.write_bytes(b"")
        case "remove":
            path.unlink()


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    folder = Store(tmp_path, print).cached("things", "k", lambda folder: dump_json({}, folder / "x.json"))
    (folder / "x.json").unlink()
    os.mkfifo(folder / "x.json")
    assert damage(folder) == f"{folder / 'x.json'} is missing"


def test_every_bit_of_a_signed_text_counts():
    text = signed('{\n"a": 1,\n"b": "two"\n}\n')
    assert signed_well(text)
    assert json.loads(text).keys() == {"a", "b", "digest"}
    for place in range(len(text)):
        other = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
        unharmed = signed_well(other) and is_signed(other)
        # What no longer looks signed has a field of another name, which no record knows, or is no JSON.
        assert not unharmed
        if not is_signed(other):
            with contextlib.suppress(ValueError):
                assert json.loads(other).keys() != {"a", "b"}
    assert signed_well('{\n"a": 1\n}\n')  # of an earlier harness


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_holds_is_not(tmp_path):
    store = Store(tmp_path)
    code = (
        "import os, sys; from pathlib import Path; from harness.store.disk import Store\n"
        "def fill(folder):\n"
        "    (folder / 'run.json').write_text('half')\n"
        "    print('there', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    os.kill(os.getpid(), 9)\n"
        "Store(Path(sys.argv[1])).write_folder('a-1', fill)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdin is not None
    assert other.stdout.readline() == "there\n"
    place = tmp_path / ".cache" / "tmp"
    store.write_folder("b-1", lambda folder: dump_json({}, folder / "x.json"))
    assert len(list(place.rglob("run.json"))) == 1  # it is alive, and its work is left alone
    other.stdin.write("\n")
    other.stdin.close()
    assert other.wait() == -9
    assert visible(tmp_path) == ["b-1"]
    store.write_folder("c-1", lambda folder: dump_json({}, folder / "x.json"))
    assert not place.exists()


def test_the_rest_of_a_killed_file_is_written_over(tmp_path):
    path = tmp_path / "README.md"
    (tmp_path / ".README.md.part").write_text("what a killed process left, longer than the text")
    write_atomically(path, "text")
    assert path.read_text() == "text"
    assert visible(tmp_path) == [p.name for p in tmp_path.iterdir()] == ["README.md"]


def test_writers_of_one_file_wait_for_each_other(tmp_path):
    path = tmp_path / "x.txt"
    texts = [str(i) * 20_000 for i in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_files_are_on_the_disk_before_the_folder_has_its_name(tmp_path, monkeypatch):
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def told(descriptor):
        path = Path("/proc/self/fd", str(descriptor)).readlink()
        order.append(f"sync {path.name}")
        fsync(descriptor)

    def renamed(self, target):
        order.append(f"name {Path(target).name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", told)
    monkeypatch.setattr(Path, "replace", renamed)

    def fill(folder):
        (folder / "deep").mkdir()
        (folder / "deep" / "w").write_text("weights")

    Store(tmp_path).write_folder("a-1", fill)
    assert order.index("name a-1") > max(order.index(f"sync {name}") for name in ("w", "deep", "new"))
    assert order[-1] == f"sync {tmp_path.name}"
