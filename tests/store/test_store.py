"""Folders and files on disk: all or nothing."""

from __future__ import annotations

import json

import pytest

from harness.errors import StoreError
from harness.store.disk import Store, canonical_hash, clean_json, dump_json, link_tree, write_atomically


def test_a_folder_that_fails_half_way_leaves_the_old_one_and_no_litter(tmp_path):
    store = Store(tmp_path)
    store.write_folder("a-1", lambda folder: dump_json({"score": 1}, folder / "x.json"))

    def fail(folder):
        (folder / "x.json").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left"):
        store.write_folder("a-1", fail)
    assert json.loads((tmp_path / "a-1" / "x.json").read_text()) == {"score": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a-1"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    store = Store(tmp_path)
    for name in ("x.json", "y.json"):
        store.write_folder("a-1", lambda folder, name=name: dump_json({}, folder / name))
    assert [p.name for p in tmp_path.rglob("*.json")] == ["y.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["a-1"]


def test_cached_makes_once(tmp_path):
    store, made = Store(tmp_path), []

    def make(folder):
        made.append(folder)
        (folder / "x").write_text("1")

    first = store.cached("things", "k", make)
    assert store.cached("things", "k", make) == first
    assert len(made) == 1
    assert (first / "x").read_text() == "1"


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


def test_adapters_are_linked_not_copied(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "w").write_text("weights")
    link_tree(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "w").read_text() == "weights"
