"""run.json through one model: read and written alike, faults named, schema 1 upgraded, runs found by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.errors import StoreError
from harness.runs.record import (
    AdaptersWithoutData,
    AddsText,
    DivergedAdapters,
    EmptyReplies,
    Imported,
    Rewaved,
    RunHead,
    parse_head,
)
from harness.runs.stored import all_runs, find_run, read_record, read_run

ROOT = Path(__file__).parents[2]
BASE = [0.5, 0.6, 0.7]
FLAGS = [EmptyReplies(share=0.08), DivergedAdapters(count=1, of=9), Rewaved()]


def changed(run, **fields) -> Path:
    """The run's run.json with other values; None takes a field out."""
    path = run.path / "run.json"
    value = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: x for name, x in value.items() if x is not None}))
    return path


def test_what_is_written_is_read_again(put):
    unseen = {"n_personas": 1, "n_replies": 2, "scores": {"similarity": float("nan")}}
    run = put("m", BASE, flags=FLAGS, notes={"odd": float("nan")}, unseen=unseen)
    again = read_record(run.path / "run.json")
    assert again == run.record.amended(notes={"odd": None})
    assert again.unseen is not None
    assert again.unseen.scores == {"similarity": None}
    assert [str(flag) for flag in again.flags] == ["8% empty replies", "1 of 9 adapters: diverged", "rewaved"]
    assert again.text() == (run.path / "run.json").read_text()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method": None}, "method: Field required"),
        ({"n_personas": "many"}, "n_personas: Input should be a valid integer"),
        ({"cost": {"adapters": 1}}, "cost.trainable_parameters: Field required"),
        ({"flags": [{"kind": "happy"}]}, "flags.0: Input tag 'happy'"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"per_persona": None}, "a complete run needs metrics and per_persona"),
        ({"per_persona": {"personas": ["a"], "replies": [1, 2], "metrics": {}}}, "replies: not one value for each"),
        ({"schema_version": 3}, "was written by a newer harness: update this one"),
        ({"schema_version": None}, "is no record of a run"),
    ],
)
def test_a_malformed_record_names_the_file_and_the_field(put, tmp_path, harness, fields, words):
    path = changed(put("m", BASE), **fields)
    put("other", BASE)
    with pytest.raises(StoreError, match=f"{re.escape(str(path))}.*{re.escape(words)}"):
        read_record(path)
    listed = {run.id: run for run in all_runs(tmp_path / "runs")}
    assert (listed["m-x-0"].record.status, listed["other-x-0"].record.status) == ("failed", "ok")
    assert words in str(listed["m-x-0"].record.error)
    code, out, _ = harness("list", "runs", "--runs-dir", tmp_path / "runs")
    assert (code, "m-x-0" in out) == (0, True)


OLD = {  # a run as schema 1 wrote it
    "schema_version": 1, "id": "old-1", "status": "ok", "method": "old", "summary": "", "requires": ["base"],
    "plugin": {"distribution": None, "version": None, "file": "old.py", "sha256": "0"}, "shares": "all", "trials": 1,
    "method_options": {}, "changed": {}, "seed": 3,
    "config": {"method": "old", "benchmark": "toy", "threads": 2, "engine": "local"},
    "subset": False, "benchmark": {"name": "toy", "options": {}, "facts": {}, "sha256": "0"}, "protocol": {},
    "metrics": ["similarity"], "reference": None, "hashes": {"examples": "e"}, "numerics": {}, "versions": {},
    "hardware": {}, "git": {}, "created": "2026", "n_personas": 1, "n_replies": 2, "scores": {"similarity": 0.5},
    "unseen": {"n_personas": 1, "n_replies": 1, "scores": {"similarity": 0.4}}, "notes": {}, "cut_prompts": 0,
    "adds_text": False, "ceilings": [], "base": "f",
    "cost": {
        "trainable_parameters": 1, "parameters_per_adapter": 1, "adapters": 1, "stored_bytes": 4, "fit_seconds": 1.5,
        "predict_seconds": 1.0, "score_seconds": 1.0, "steps": 1, "epochs": 1, "tokens": 9, "peak_memory_bytes": 1,
    },
    "flags": [
        "12% empty replies", "1 of 3 adapters: diverged", "2 of 3 adapters: no data", "rewaved",
        "adds text to the prompt", "imported",
    ],
}  # fmt: skip
SUMS = {"unit": "pt", "higher_is_better": True, "sum": [1.0], "n": [2]}
PERSONAS = {"personas": ["p"], "replies": [2], "metrics": {"similarity": SUMS}}


def test_a_run_of_schema_1_is_upgraded(tmp_path):
    folder = tmp_path / "old-1"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(OLD))
    (folder / "personas.json").write_text(json.dumps({**PERSONAS, "unseen": PERSONAS}))
    run = read_run(folder)
    assert run is not None
    record = run.record
    assert record.schema_version == 2
    assert record.flags == (
        EmptyReplies(share=0.12), DivergedAdapters(count=1, of=3), AdaptersWithoutData(count=2, of=3), Rewaved(),
        AddsText(), Imported(),
    )  # fmt: skip
    assert [str(flag) for flag in record.flags] == OLD["flags"]
    assert record.sums.metrics["similarity"].n == (2,)
    assert record.unseen is not None
    assert record.unseen.per_persona is not None
    assert record.unseen.per_persona.metrics["similarity"].n == (2,)
    assert record.cost is not None
    assert (record.cost.fit_seconds, record.cost.fits, record.cost.stands_on) == (1.5, None, None)
    assert record.plugin_files == ("old.py",)
    assert record.config.model_extra == {"threads": 2}, "the only engine of then had another name"


def test_an_import_of_schema_1_is_upgraded(tmp_path):
    file = {"name": "s.csv", "sha256": "0", "unit": "pt"}
    changes = {"origin": "imported", "example_set": "all", "file": file, "cost": {}, "flags": ["imported"]}
    path = tmp_path / "import.json"
    path.write_text(json.dumps({**OLD, **changes, "per_persona": PERSONAS}))
    record = read_record(path)
    assert record.imported is not None
    assert (record.imported.example_set, record.imported.unit, record.cost) == ("all", "pt", None)


def test_a_flag_that_no_harness_wrote_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**OLD, "flags": ["looks fine"]}))
    with pytest.raises(StoreError, match=r"x\.json: flags: 'looks fine' is no flag of schema 1"):
        read_record(path)


def test_the_committed_records_are_of_this_schema():
    records = sorted((ROOT / "leaderboard" / "records").glob("*.json"))
    assert records
    for path in records:
        assert path.read_text() == read_record(path).text(), f"{path.name}: run `harness leaderboard --publish`"


def test_runs_are_found_by_a_unique_beginning(put, tmp_path):
    put("a", BASE, id="a-12")
    put("a", BASE, id="a-13")
    runs = tmp_path / "runs"
    assert find_run(runs, "a-12").id == "a-12"
    with pytest.raises(StoreError, match="2 runs begin"):
        find_run(runs, "a-1")
    with pytest.raises(StoreError, match="did you mean 'a-12'"):
        find_run(runs, "a_12")


def test_no_source_reads_a_record_by_its_keys():
    """Records are read through RunRecord; `stored` alone knows the fields of schema 1."""
    access = re.compile(r"\brecord(\[|\.get\()")
    for folder in ("harness", "leaderboard", "methods", "benchmarks", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                assert not access.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def test_a_head_is_found_wherever_its_fields_stand(put):
    """Earlier harnesses wrote some of them behind the sums per persona."""
    run = put("own", [0.5, 0.6])
    text = (run.path / "run.json").read_text("utf-8")
    whole = parse_head(text, run.path)
    assert whole == RunHead.model_validate({name: getattr(run.record, name) for name in RunHead.model_fields})
    unit, notes = (
        next(line for line in text.split("\n") if line.startswith(f'"{name}": ')) for name in ("unit", "notes")
    )
    moved = text.replace(f"{unit}\n", "").replace(f"{notes}\n", "")
    assert moved.count("\n") == text.count("\n") - 2
    assert parse_head(moved.replace('\n"digest": ', f'\n{unit}\n{notes}\n"digest": '), run.path) == whole
