"""EdgeWisePersona's three files: read as published, written to read back the same or not at all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness import DataError, Dialogue, Message, Persona
from harness.benchmarks import edgewise
from harness.benchmarks.devices import DEVICES
from harness.benchmarks.devices.settings import parse
from harness.benchmarks.edgewise import EdgewiseOptions, read_edgewise, write_edgewise


def session(number: int, **changes):
    return {
        "session_id": 0,  # the published default: not unique
        "meta": {"time_of_day": "evening", "outdoor_temp": "very cold", "weather": None},
        "messages": [
            {"role": "user", "text": f"Lights, please ({number})."},
            {"role": "assistant", "text": f"Setting the lights to {number} brightness."},
        ],
        "applied_routines": None,
        "session_summarization": None,
        **changes,
    }


@pytest.fixture
def folder(tmp_path):
    """Two personas with ten sessions each, as the data set stores them."""
    folder = tmp_path / "data"
    folder.mkdir()
    routine = {
        "triggers": {"time_of_day": "evening"},
        "actions": {"lights": {"brightness": 5, "color": None}},
    }
    lines = {
        "characters.jsonl": [{"character": f"Somebody {i}, zażółć."} for i in range(2)],
        "routines.jsonl": [{"routines": [routine]}, {"routines": []}],
        "sessions.jsonl": [{"sessions": [session(i) for i in range(10)]} for _ in range(2)],
    }
    for name, objects in lines.items():
        text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in objects)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def edit(folder, name, change):
    """Apply `change` to the parsed second line of a file."""
    path = folder / name
    lines = path.read_text(encoding="utf-8").splitlines()
    item = json.loads(lines[1])
    change(item)
    lines[1] = json.dumps(item)
    path.write_text("\n".join(lines), encoding="utf-8")


def test_reads_the_three_files(folder):
    personas, dialogues, routines = read_edgewise(folder)
    assert personas == (
        Persona("persona_000", "Somebody 0, zażółć."),
        Persona("persona_001", "Somebody 1, zażółć."),
    )
    assert [d.split for d in dialogues[10:]] == ["train"] * 6 + ["validation"] * 2 + ["test"] * 2
    assert dialogues[13] == Dialogue(
        "persona_001/03",
        "persona_001",
        "train",
        (
            Message("user", "Lights, please (3)."),
            Message("assistant", "Setting the lights to 3 brightness."),
        ),
        (("time_of_day", "evening"), ("outdoor_temp", "very cold")),
    )
    assert routines["persona_000"][0]["actions"]["lights"]["brightness"] == 5
    assert routines["persona_001"] == ()


def test_fifty_sessions_are_split_30_10_10(folder):
    edit(folder, "sessions.jsonl", lambda item: item.update(sessions=[session(i) for i in range(50)]))
    _, dialogues, _ = read_edgewise(folder)
    assert [d.split for d in dialogues[10:]] == ["train"] * 30 + ["validation"] * 10 + ["test"] * 10


@pytest.mark.parametrize("form", ["plain", "study"])
def test_clusters_are_optional(folder, form):
    clusters = {"persona_001": 4}
    (folder / "clusters.json").write_text(
        json.dumps(clusters if form == "plain" else {"n_clusters": 5, "cluster_map": clusters})
    )
    assert [persona.cluster for persona in read_edgewise(folder)[0]] == [None, 4]


@pytest.mark.parametrize("clusters", ["[1]", '{"persona_009": 1}', '{"persona_001": "one"}', "{"])
def test_faulty_clusters_are_refused(folder, clusters):
    (folder / "clusters.json").write_text(clusters)
    with pytest.raises(DataError, match=r"clusters\.json"):
        read_edgewise(folder)


def test_written_files_read_back_the_same(folder, tmp_path):
    personas, dialogues, routines = read_edgewise(folder)
    personas = tuple(replace(persona, cluster=i) for i, persona in enumerate(personas))
    copy = tmp_path / "new" / "copy"
    write_edgewise(copy, personas, dialogues, routines, applied={"persona_001/03": [2]})
    assert read_edgewise(copy) == (personas, dialogues, routines)
    lines = (copy / "sessions.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[1])["sessions"][3]["applied_routines"] == [2]
    assert sorted(path.name for path in copy.parent.iterdir()) == ["copy"]
    once, twice = tmp_path / "once", tmp_path / "twice"
    for target in (once, twice):
        write_edgewise(target, personas, dialogues, routines)
    for name in edgewise.FILES:
        assert (once / name).read_bytes() == (twice / name).read_bytes()


def test_an_occupied_folder_is_left_alone(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError, match="not empty"):
        write_edgewise(folder, *read_edgewise(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_would_read_back_differently_is_not_written(folder, tmp_path):
    personas, dialogues, routines = read_edgewise(folder)
    swapped = (replace(dialogues[0], split="test"), *dialogues[1:])
    stranger = (*dialogues, replace(dialogues[0], id="x/00", persona="x"))
    renamed = (Persona("anna"), *personas[1:])
    for wrong in ((personas, swapped), (personas, stranger), (renamed, dialogues)):
        with pytest.raises(DataError):
            write_edgewise(tmp_path / "out", *wrong, routines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("characters.jsonl", lambda x: x.pop("character"), "no 'character'"),
        ("characters.jsonl", lambda x: x.update(character=""), "'character' is empty"),
        ("routines.jsonl", lambda x: x.update(routines={"a": 1}), "'routines' should be a list"),
        ("sessions.jsonl", lambda x: x.update(sessions=[]), "at least one session"),
        ("sessions.jsonl", lambda x: x["sessions"][4].pop("messages"), "session 4 (from 0): no 'messages'"),
        ("sessions.jsonl", lambda x: x["sessions"][4]["messages"][0].update(role="ai"), "has the role 'ai'"),
        ("sessions.jsonl", lambda x: x["sessions"][4].update(meta=[1]), "'meta' is a list"),
        (
            "sessions.jsonl",
            lambda x: x["sessions"].append("text"),
            "session 10 (from 0): should be an object",
        ),
    ],
)
def test_a_faulty_line_is_named(folder, name, change, fault):
    edit(folder, name, change)
    with pytest.raises(DataError) as caught:
        read_edgewise(folder)
    assert f"{folder / name}, line 2: " in str(caught.value)
    assert fault in str(caught.value)


def test_files_of_unlike_length_are_refused(folder):
    with (folder / "routines.jsonl").open("a") as file:
        file.write('{"routines": []}\n')
    with pytest.raises(DataError, match=r"2 in characters\.jsonl, 3 in routines\.jsonl, 2 in sessions\.jsonl"):
        read_edgewise(folder)


def test_missing_folder_and_missing_file_are_named(folder):
    with pytest.raises(DataError, match="no such folder"):
        read_edgewise(folder / "nowhere")
    (folder / "routines.jsonl").unlink()
    with pytest.raises(DataError, match=r"routines\.jsonl: no such file"):
        read_edgewise(folder)


def test_load(folder):
    data = edgewise.load(EdgewiseOptions(data=str(folder), limit_personas=1))
    assert [persona.id for persona in data.personas] == ["persona_000"]
    assert {dialogue.persona for dialogue in data.dialogues} == {"persona_000"}
    assert data.metrics[0] == "similarity"
    assert data.reference is not None
    assert data.reference.score == 82.14
    assert parse(data.dialogues[0].messages[1].text, data.schema).devices == {"lights"}


def test_the_hub_is_asked_only_for_the_default_name(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: str(folder))
    assert len(edgewise.load(EdgewiseOptions()).personas) == 2
    with pytest.raises(DataError, match="no such folder"):
        edgewise.load(EdgewiseOptions(data="somebody/else"))


def test_without_the_hub_the_error_says_what_to_give(monkeypatch):
    def unreachable(name, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(DataError, match=r"no route to host.*--set data=DIR"):
        edgewise.load(EdgewiseOptions())


def test_the_schema_is_the_published_one():
    wanted = {
        "tv": {"volume", "brightness", "input_source"},
        "ac": {"temperature", "mode", "fan_speed"},
        "lights": {"brightness", "color", "mode"},
        "speaker": {"volume", "equalizer"},
        "security": {"armed", "alarm_volume"},
    }
    assert {device.name: {p.name for p in device.parameters} for device in DEVICES} == wanted
    ranges = {(d.name, p.name): (p.low, p.high) for d in DEVICES for p in d.parameters if p.numeric}
    assert ranges["ac", "temperature"] == (16, 30)
    assert ranges["ac", "fan_speed"] == (0, 3)
