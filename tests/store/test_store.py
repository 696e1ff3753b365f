"""Runs on disk: all or nothing, found by prefix, broken ones listed and not fatal."""

from __future__ import annotations

import json

import pytest

from harness.errors import StoreError
from harness.store.disk import Store, canonical_hash, clean_json, dump_json, link_tree, write_atomically


def put(store: Store, run_id: str, **record) -> None:
    store.write_run(run_id, lambda folder: dump_json({"id": run_id, "status": "ok", **record}, folder / "run.json"))


def test_a_folder_that_fails_half_way_leaves_the_old_one_and_no_litter(tmp_path):
    store = Store(tmp_path)
    put(store, "a-1", score=1)

    def fail(folder):
        (folder / "run.json").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left"):
        store.write_run("a-1", fail)
    assert store.find("a-1").record["score"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a-1"]


def test_a_run_is_replaced_as_a_whole(tmp_path):
    store = Store(tmp_path)
    put(store, "a-1", score=1)
    put(store, "a-1", score=2)
    assert store.find("a-1").record["score"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a-1"]


def test_runs_are_found_by_a_unique_beginning(tmp_path):
    store = Store(tmp_path)
    put(store, "a-12")
    put(store, "a-13")
    assert store.find("a-12").id == "a-12"
    with pytest.raises(StoreError, match="2 runs begin"):
        store.find("a-1")
    with pytest.raises(StoreError, match="did you mean 'a-12'"):
        store.find("a_12")


def test_a_broken_record_is_listed_as_failed_with_the_reason(tmp_path):
    store = Store(tmp_path)
    put(store, "a-1")
    (tmp_path / "b-1").mkdir()
    (tmp_path / "b-1" / "run.json").write_text("{half")
    runs = {run.id: run for run in store.runs()}
    assert runs["a-1"].complete
    assert not runs["b-1"].complete
    assert "b-1" in runs["b-1"].record["error"]


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
        put(Store(tmp_path / "file"), "a-1")


def test_adapters_are_linked_not_copied(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "w").write_text("weights")
    link_tree(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "w").read_text() == "weights"
