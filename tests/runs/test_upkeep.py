"""A store is mended: what is whole stays, and what cannot be mended goes."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from harness.runs.upkeep import faults
from harness.scoring import WIDTH, VectorStore, vectors
from harness.store import Store


@pytest.fixture
def damaged(tmp_path):
    """(store, its file of three vectors, of which the second is damaged, as it was written, bytes of a row)."""
    store = Store(tmp_path)
    cached = VectorStore(store.cache / "embeddings" / "m.vectors", WIDTH)
    cached.write({bytes([i]): np.full(WIDTH, i, np.float32) for i in range(3)})
    raw = cached.path.read_bytes()
    place = cached.row_bytes + 20
    cached.path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    return store, cached.path, raw, cached.row_bytes


def mend(store: Store) -> None:
    (fault,) = faults(store)
    assert "1 of its vectors" in fault.what
    assert fault.repair is not None
    fault.repair()
    assert not list(faults(store))


def test_whole_vectors_stay(damaged):
    store, path, raw, row = damaged
    mend(store)
    assert path.read_bytes() == raw[:row] + raw[2 * row :]


def test_a_file_that_cannot_be_written_again_goes(damaged, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "no space left on device")

    store, path, *_ = damaged
    monkeypatch.setattr(vectors, "new_file", full)
    mend(store)
    assert not path.exists()
