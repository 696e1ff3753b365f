"""What is read of a stored run's adapters is checked, and nothing else: there may be a million."""

from __future__ import annotations

import json

import pytest

from harness.adapters.files import FORMAT
from harness.runs import loading
from harness.runs.loading import adapters_damage
from harness.runs.stored import write_run
from harness.store import seal
from harness.store.disk import Store

SHARDS = {"a": "shard-00000.safetensors", "h": "shard-00001.safetensors", "p": "shard-00002.safetensors"}


@pytest.fixture
def make(tmp_path, stored):
    """make(is_sorted=True) -> a stored run with adapters in three files, that begin with a, h and p."""

    def write(part, is_sorted: bool) -> None:
        folder = part / "adapters"
        (folder / "below").mkdir(parents=True)
        for name in (*SHARDS.values(), "below/index.json", "below/shard-00000.safetensors"):
            (folder / name).write_text(name)
        shards = [{"file": name, "first": first, "adapters": 2} for first, name in SHARDS.items()]
        about = {"format": FORMAT, "kind": "lora", "spec": {}, "base": {"name": "base", "fingerprint": "f"}}
        (folder / "index.json").write_text(json.dumps({**about, "sorted": is_sorted, "shards": shards}))
        seal(folder)

    def call(is_sorted: bool = True):
        record = stored(tmp_path, "mine", [0.5, 0.6]).record
        return write_run(Store(tmp_path), record, lambda part: write(part, is_sorted))

    return call


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("shard-00000.safetensors", {"a", "c"}),
        ("shard-00001.safetensors", {"h", "j"}),
        ("shard-00002.safetensors", {"p", "z"}),
        ("below/shard-00000.safetensors", {"a", "c", "h", "j", "p", "z"}),
        ("index.json", {"a", "c", "h", "j", "p", "z"}),
        ("files.json", {"a", "c", "h", "j", "p", "z"}),
    ],
)
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_damage_is_found_where_the_file_is_read(make, name, found, how):
    run = make()
    path = run.path / "adapters" / name
    path.unlink() if how == "gone" else path.write_text(path.read_text().replace("a", "b"))
    faults = {key: adapters_damage(run, [key]) for key in ("a", "c", "h", "j", "p", "z")}
    assert {key for key, fault in faults.items() if fault} == found
    assert all(str(path) in fault for fault in faults.values() if fault)
    assert adapters_damage(run, None)
    assert bool(run.damage(adapters=False)) == (name == "files.json")


def test_files_that_are_not_read_are_not_looked_at(make, monkeypatch):
    run, looked = make(), []
    monkeypatch.setattr(loading, "file_damage", lambda path, _: looked.append(path.name))
    assert adapters_damage(run, ["j", "h"]) == ""
    assert [name for name in looked if name in SHARDS.values()] == ["shard-00000.safetensors", SHARDS["h"]], (
        "below, own"
    )


def test_of_a_bank_in_another_order_everything_is_looked_at(make):
    run = make(is_sorted=False)
    (run.path / "adapters" / SHARDS["p"]).write_text("x")
    assert SHARDS["p"] in adapters_damage(run, ["a"])
