"""The store of vectors on disk: two processes, killed processes, damaged files; never a wrong result."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
import warnings
from contextlib import closing

import numpy as np
import pytest

from harness.scoring.vectors import VectorStore


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


@pytest.fixture
def store(tmp_path):
    return VectorStore(tmp_path / "cache" / "v.sqlite", 2)


def test_round_trip_to_the_bit(store):
    vectors = {bytes([i]): unit(i + 1, 3) for i in range(200)}
    store.write(vectors)
    again = VectorStore(store.path, 2).read([*vectors, b"unknown"])
    assert set(again) == set(vectors)
    assert all(np.array_equal(again[key], vectors[key]) for key in vectors)


@pytest.mark.parametrize("damage", ["garbage", "truncated", "middle"])
def test_a_damaged_file_is_rebuilt(store, damage):
    store.write({i.to_bytes(4, "big") * 8: unit(1, i) for i in range(3000)})
    content = store.path.read_bytes()
    store.path.write_bytes(
        {
            "garbage": b"not a database, but long enough to be one" * 100,
            "truncated": content[: len(content) // 2],
            "middle": content[:100] + os.urandom(len(content) - 100),
        }[damage]
    )
    fresh = VectorStore(store.path, 2)
    with pytest.warns(UserWarning, match="rebuilt"):
        fresh.read([i.to_bytes(4, "big") * 8 for i in range(3000)])
    fresh.write({b"key": unit(1, 2)})
    assert np.array_equal(VectorStore(store.path, 2).read([b"key"])[b"key"], unit(1, 2))


def test_a_vector_that_is_not_as_it_was_written_is_not_returned(store):
    store.write({b"good": unit(1, 2), b"flipped": unit(2, 1), b"moved": unit(3, 1)})
    with closing(sqlite3.connect(store.path)) as connection, connection:
        (blob,) = connection.execute("SELECT vector FROM vectors WHERE key = ?", (b"flipped",)).fetchone()
        flipped = bytes([blob[0] ^ 1]) + blob[1:]  # the least bit: it is a unit vector still
        connection.execute("UPDATE vectors SET vector = ? WHERE key = ?", (flipped, b"flipped"))
        connection.execute("UPDATE vectors SET key = ? WHERE key = ?", (b"other", b"moved"))
        connection.execute("INSERT INTO vectors VALUES (?, ?)", (b"short", b"1234"))
    assert set(store.read([b"good", b"flipped", b"moved", b"other", b"short"])) == {b"good"}


def test_an_unusable_place_costs_the_cache_only(tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    store = VectorStore(tmp_path / "file" / "v.sqlite", 2)
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
