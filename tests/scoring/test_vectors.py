"""The store of vectors on disk: two processes, killed processes, damaged files; never a wrong result."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from harness.scoring.vectors import VectorStore, vectors_damage


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


@pytest.fixture
def store(tmp_path):
    return VectorStore(tmp_path / "cache" / "v.vectors", 2)


def test_round_trip_to_the_bit(store):
    vectors = {bytes([i]): unit(i + 1, 3) for i in range(200)}
    store.write(vectors)
    again = VectorStore(store.path, 2).read([*vectors, b"unknown"])
    assert set(again) == set(vectors)
    assert all(np.array_equal(again[key], vectors[key]) for key in vectors)


@pytest.mark.parametrize("damage", ["garbage", "middle"])
def test_damaged_vectors_are_said_and_made_again(store, damage):
    keys = [i.to_bytes(4, "big") * 8 for i in range(300)]
    store.write({key: unit(1, i) for i, key in enumerate(keys)})
    assert vectors_damage(store.path, 2) == ""
    content = store.path.read_bytes()
    store.path.write_bytes(
        {
            "garbage": b"not what it was, but as long as that" * 400,
            "middle": content[:100] + os.urandom(200) + content[300:],
        }[damage]
    )
    assert str(store.path) in vectors_damage(store.path, 2)
    fresh = VectorStore(store.path, 2)
    with pytest.warns(UserWarning, match="damaged"):
        found = fresh.read(keys)
    assert len(found) == (293 if damage == "middle" else 0)
    assert all(np.array_equal(found[key], unit(1, keys.index(key))) for key in found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        assert found.keys() == VectorStore(store.path, 2).read(keys).keys()
    fresh.write({key: unit(1, i) for i, key in enumerate(keys)})
    again = VectorStore(store.path, 2).read(keys)
    assert all(np.array_equal(again[key], unit(1, i)) for i, key in enumerate(keys))


def test_every_bit_of_a_row_counts(store):
    store.write({b"flipped": unit(2, 1), b"good": unit(1, 2)})
    content = store.path.read_bytes()
    for place in range(store.row_bytes):
        store.path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert vectors_damage(store.path, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert set(VectorStore(store.path, 2).read([b"flipped", b"good"])) == {b"good"}


def test_half_a_row_of_a_killed_process_is_written_over(store):
    store.write({b"a": unit(2, 1), b"b": unit(1, 2)})
    store.path.write_bytes(store.path.read_bytes()[:-3])
    assert set(store.read([b"a", b"b"])) == {b"a"}
    store.write({b"c": unit(1, 3)})
    assert set(store.read([b"a", b"b", b"c"])) == {b"a", b"c"}
    assert vectors_damage(store.path, 2) == ""


def test_a_mended_file_keeps_what_was_whole(store):
    store.write({bytes([i]): unit(i + 1, 3) for i in range(9)})
    content = store.path.read_bytes()
    store.path.write_bytes(content[:5] + bytes([content[5] ^ 1]) + content[6:-3])  # a row in front, a part at the end
    VectorStore(store.path, 2).mend()
    assert store.path.read_bytes() == content[store.row_bytes : -store.row_bytes]


def test_an_unusable_place_costs_the_cache_only(tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    store = VectorStore(tmp_path / "file" / "v.vectors", 2)
    with pytest.warns(UserWarning, match="not used"):
        store.write({b"a": unit(1, 2)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        store.write({b"a": unit(1, 2)})
        assert store.read([b"a"]) == {}


WRITER = """
import sys
import numpy as np
from pathlib import Path
from harness.scoring.vectors import VectorStore
store = VectorStore(Path(sys.argv[1]), 2)
for i in range(int(sys.argv[3])):
    store.write({f"{sys.argv[2]}-{i}-{j}".encode(): np.array([1, 0], dtype=np.float32) for j in range(20)})
    print(i, flush=True)
"""


def writer(store, name, rounds):
    command = [sys.executable, "-W", "error", "-c", WRITER, str(store.path), name, str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_at_once_and_nothing_is_lost(store):
    both = [writer(store, name, 15) for name in "ab"]
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode == 0
    keys = [f"{name}-{i}-{j}".encode() for name in "ab" for i in range(15) for j in range(20)]
    assert set(store.read(keys)) == set(keys)


def test_a_killed_process_leaves_a_sound_store(store):
    process = writer(store, "k", 10**6)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    time.sleep(0.05)
    process.kill()
    process.communicate()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.write({b"after": unit(1, 2)})
        found = store.read([b"after", *(f"k-{i}-{j}".encode() for i in range(3) for j in range(20))])
    assert len(found) == 61
