"""Runs of many people: their sums lie in Parquet, are read as before, and only where they are asked for."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from harness.errors import StoreError
from harness.runs import people
from harness.runs.people import read_sums, write_sums
from harness.runs.record import Unseen, Yardstick
from harness.runs.stored import all_runs, read_record, write_run
from harness.scoring import MetricSums, PersonaSums
from harness.store import Store

PEOPLE = 1_200
PLACES = {
    "per_persona": "people.parquet",
    "unseen.per_persona": "people-unseen.parquet",
    "yardsticks.1.per_persona": "people-yardsticks-1.parquet",
}


def many(stored, folder, method="m", seed=0, **changes):
    scores = 0.5 + 0.1 * np.random.default_rng(seed).normal(size=PEOPLE)
    return stored(folder, method, scores, clusters=[i % 3 for i in range(PEOPLE)], **changes).record


@pytest.fixture
def run(stored, tmp_path):
    record = many(stored, tmp_path)
    sums = record.sums
    counts = {"tp": tuple(map(float, range(PEOPLE))), "fp": (1.0,) * PEOPLE, "fn": (0.5,) * PEOPLE}
    pooled = MetricSums(
        unit="pt", higher_is_better=True, summary="pooled", counts=counts, values=tuple(np.linspace(0, 1, PEOPLE))
    )
    sums = sums.model_copy(update={"metrics": {**sums.metrics, "pooled": pooled}})
    known = {"knows": "all", "base_rate": True, "scores": {"similarity": 0.5}}
    yardsticks = (Yardstick(name="few", knows="all", scores={}), Yardstick(name="rate", per_persona=sums, **known))
    unseen = Unseen(n_personas=PEOPLE, n_replies=2, scores={}, per_persona=sums)
    return write_run(Store(tmp_path), record.amended(per_persona=sums, unseen=unseen, yardsticks=yardsticks))


def test_sums_of_many_people_are_files_with_digests_and_read_as_they_were_written(run):
    text = (run.path / "run.json").read_text()
    value = json.loads(text)
    assert value["per_persona"] == {"file": "people.parquet"}
    assert value["unseen"]["per_persona"] == {"file": "people-unseen.parquet"}
    assert [one.get("per_persona") for one in value["yardsticks"]] == [None, {"file": "people-yardsticks-1.parquet"}]
    assert (len(text) < 10_000, "p0001" in text) == (True, False)
    assert set(run.record.files) == set(PLACES.values())
    again = read_record(run.path / "run.json")
    assert again == run.record
    assert again.text(PLACES) == text
    assert all(type(n) is int for n in again.sums.replies)


def test_a_record_of_many_people_that_is_published_holds_them_all(run, tmp_path):
    path = tmp_path / f"{run.id}.json"
    path.write_text(run.record.text())
    assert read_record(path) == run.record


def test_few_people_stay_in_run_json(put):
    run = put("few", [0.5] * 12)
    assert not list(run.path.glob("people*"))
    assert len(json.loads((run.path / "run.json").read_text())["per_persona"]["personas"]) == 12


def test_lists_do_not_read_the_sums_and_a_damaged_file_is_named(run, tmp_path, harness):
    path = run.path / "people.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    (listed,) = all_runs(tmp_path)
    assert (listed.id, listed.complete, listed.head.n_personas) == (run.id, True, PEOPLE)
    with pytest.raises(StoreError, match=r"people\.parquet is damaged"):
        _ = listed.record
    assert f"{path} is damaged" in "".join(harness("show", run.id, "--runs-dir", tmp_path)[1:])
    code, out, _ = harness("runs", "check", "--runs-dir", tmp_path)
    assert (code, len(out.splitlines()), str(path) in out) == (2, 1, True)


@pytest.mark.parametrize(
    "name", ["../people.parquet", "/etc/passwd", "replies.parquet", "people-x.parquet", 7, None, []]
)
def test_no_other_file_is_read_in_place_of_the_sums(run, name):
    path = run.path / "run.json"
    value = {**json.loads(path.read_text()), "per_persona": {"file": name}}
    value.pop("digest")
    path.write_text(json.dumps(value))
    with pytest.raises(StoreError, match="per_persona"):
        read_record(path)


def test_a_file_with_another_content_of_the_same_digest_is_no_file_of_sums(tmp_path):
    path = tmp_path / "people.parquet"
    path.write_text("text")
    with pytest.raises(StoreError, match=r"cannot read .*people\.parquet"):
        read_sums(path)


@pytest.mark.parametrize("clusters", [(1, None, 2), ("a", None, "b"), (1, "1", None), (None, None, None), None])
def test_clusters_keep_their_kind(tmp_path, clusters):
    entry = MetricSums(unit="pt", higher_is_better=True, sum=(0.1, 0.2, 0.3), n=(1, 2, 3))
    sums = PersonaSums(personas=("ä", "b c", "p#1"), clusters=clusters, replies=(1, 2, 3), metrics={"a.b": entry})
    write_sums(tmp_path / "people.parquet", sums)
    assert read_sums(tmp_path / "people.parquet") == sums


def test_runs_are_compared_alike_wherever_their_sums_lie(stored, tmp_path, harness, monkeypatch):
    found = []
    for inline in (people.INLINE, PEOPLE):
        monkeypatch.setattr(people, "INLINE", inline)
        for seed, method in enumerate(("base", "a", "b")):
            write_run(Store(tmp_path / "runs"), many(stored, tmp_path, method, seed))
        code, out, err = harness("compare", "base", "a", "b", "--clusters", "--json", "--runs-dir", tmp_path / "runs")
        assert code == 0, err
        found.append(json.loads(out))
        shutil.rmtree(tmp_path / "runs")
    assert found[0] == found[1]
