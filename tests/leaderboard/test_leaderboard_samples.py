"""Samples: what is published of replies, so that the page of a fresh clone shows some, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.errors import StoreError
from harness.leaderboard import board_of, publish_records, publish_samples, published
from harness.leaderboard.figures import curves, panels
from harness.leaderboard.people import measured
from harness.leaderboard.picking import picked
from harness.leaderboard.replies import examples
from harness.leaderboard.samples import LARGEST_BYTES, sample_of
from harness.runs.learning import learning_of, write_learning
from harness.runs.stored import all_runs

BASE = np.linspace(0.6, 0.9, 12)
LOSSES = {"adapters": {"a": {"start_validation_loss": None, "validation_loss": (2.0, 1.0)}}}


@pytest.fixture
def noisy():
    return np.random.default_rng(7).normal(0, 0.05, (2, len(BASE), 10))


@pytest.fixture
def runs(put, tmp_path, noisy):
    put("base", BASE[:, None] + noisy[0])
    run = put("good", BASE[:, None] + 0.05 + noisy[1])
    write_learning(run.path, learning_of(LOSSES))
    return all_runs(tmp_path / "runs")


@pytest.fixture
def publish(tmp_path):
    """publish(runs) -> the folder of the records, and what was noted."""

    def call(runs):
        notes: list[str] = []
        records = tmp_path / "records"
        publish_records(runs, records, notes.append)
        publish_samples(runs, records, notes.append)
        return records, notes

    return call


def test_a_fresh_clone_shows_the_same_examples_differences_and_curves(runs, publish):
    records, notes = publish(runs)
    assert notes == []
    (here,), (there,) = board_of(runs).groups, board_of(published(records)).groups
    assert examples(there) == examples(here)
    assert len(examples(there).chosen) == 20
    assert panels(there) == panels(here)
    assert panels(there)[0].ends
    assert curves(there) == curves(here)
    assert [curve.name for curve in curves(there)] == ["good"]


def test_texts_of_a_section_are_published_once_and_files_are_small(runs, publish):
    records, _ = publish(runs)
    found = {path.name: json.loads(path.read_text()) for path in (records / "samples").iterdir()}
    assert set(found) == {f"{run.id}.json" for run in runs}
    with_texts = [name for name, sample in found.items() if sample["replies"][0]["prompt"] is not None]
    assert with_texts == ["base-x-0.json"]
    assert all(path.stat().st_size <= LARGEST_BYTES for path in (records / "samples").iterdir())


def test_a_sample_that_would_be_large_is_left_out_and_named(put, publish, tmp_path):
    put("base", BASE, texts=("q" * 6_000, "r", "x"))
    put("good", BASE + 0.1, texts=("q", "r", "x"))
    records, notes = publish(all_runs(tmp_path / "runs"))
    assert notes == ["no sample of base-x-0 is published: it would take more than 100,000 bytes"]
    (path,) = (records / "samples").iterdir()
    assert path.name == "good-x-0.json"
    shown = json.loads(path.read_text())["replies"][0]["prompt"]
    assert shown == "user: q 0", "the first sample that is published has the texts"


def test_records_alone_stay_as_they_were(stored, tmp_path, publish):
    runs = [stored(tmp_path / "none", "base", BASE), stored(tmp_path / "none", "m", BASE + 0.1)]
    records, notes = publish(runs)
    assert notes == []
    assert not (records / "samples").exists()
    (group,) = board_of(published(records)).groups
    assert examples(group).chosen == ()
    assert panels(group)[0].ends is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"run": "other"}, "does not belong to the replies of good-x-0"),
        ({"of": "0" * 64}, "does not belong to the replies of good-x-0"),
        ({"more": 1}, "is not a valid sample"),
        ({"replies": 3}, "is not a valid sample"),
    ],
)
def test_a_sample_that_is_wrong_is_named_and_not_used(runs, publish, change, fault):
    records, _ = publish(runs)
    path = records / "samples" / "good-x-0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    run = next(run for run in published(records) if run.id == "good-x-0")
    with pytest.raises(StoreError, match=fault):
        sample_of(run)
    (group,) = board_of(published(records)).groups
    notes: list[str] = []
    assert [group.lines[k].name for k in examples(group, note=notes.append).without] == ["good"]
    assert len(notes) == 1
    assert panels(group)[0].ends is None


def test_personas_differ_by_less_than_their_replies_say(put, noisy, tmp_path):
    truth = np.linspace(-0.05, 0.10, len(BASE))
    put("base", BASE[:, None] + noisy[0])
    put("good", (BASE + truth)[:, None] + noisy[1])
    (group,) = board_of(all_runs(tmp_path / "runs")).groups
    base, good = (next(line.family for line in group.lines if line.name == name) for name in ("base", "good"))
    (found,) = measured([good], base, "similarity")
    assert found
    plain = truth + (noisy[1] - noisy[0]).mean(1)
    assert np.std(found.estimate) < np.std(plain), "shrunken towards the mean"
    assert np.mean(found.estimate) == pytest.approx(plain.mean(), abs=0.005)
    inside = [low <= value <= high for value, low, high in zip(truth, found.low, found.high, strict=True)]
    assert sum(inside) >= 10


def test_examples_are_of_a_few_personas_evenly_spread(runs):
    replies = runs[0].replies()
    assert replies
    rows = replies.rows(picked(replies, 20))
    people = [row.persona for row in rows]
    assert list(dict.fromkeys(people)) == ["p000", "p003", "p006", "p008", "p011"]
    assert {people.count(person) for person in people} == {4}
    assert [row.id for row in rows][:4] == ["p000/d0#0", "p000/d1#1", "p000/d3#0", "p000/d4#1"]
    assert [len(picked(replies, most)) for most in (0, 1, 7, 10_000)] == [0, 1, 7, 120]
