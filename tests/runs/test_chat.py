"""A talk with stored runs: the first answer is the run's own, each side has its own history, faults are one line."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.contract.data import Message
from harness.errors import HarnessError, StoreError
from harness.runs import chat as chat_module
from harness.runs.chat import Talk, find_beside, open_sides, read_scene
from harness.runs.stored import StoredRun, find_run

METHOD, BASELINE, BARE = "persona_prefix", "unified", "zero_shot"
WORLD = ["--set", "dialogues=2,1,1", "--personas", "3", "--quiet"]
FIRST = ["--set", "train.epochs=1"]


def make(folder: Path, *arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--runs-dir", str(folder), *WORLD, *arguments])
    assert not ended.value.code


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of soft prompts, of the LoRA below them, and of the bare backbone without texts."""
    folder = tmp_path_factory.mktemp("chat") / "runs"
    make(folder, "--method", METHOD, *FIRST)
    make(folder, "--method", BARE, "--baseline", BARE, "--no-texts")
    return folder


def opened(runs: Path, *names: str) -> tuple[StoredRun, ...]:
    return tuple(find_run(runs, name) for name in names)


def first_turn(run: StoredRun, persona: str) -> tuple[str, str]:
    """(What the user says, what the run replied) in the persona's first test dialogue."""
    replies = run.replies()
    assert replies is not None
    (row,) = replies.rows([replies.column("persona").index(persona)])
    return str(row.prompt).partition("\nuser: ")[2], str(row.reply)


@pytest.fixture
def talk(harness, runs, monkeypatch):
    """talk(lines, *arguments, by_hand=False) -> (exit code, stdout, stderr) with these lines on stdin."""

    class Hand(io.StringIO):
        def isatty(self) -> bool:
            return True

    def call(lines: str, *arguments: str, by_hand: bool = False) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", (Hand if by_hand else io.StringIO)(lines))
        return harness("chat", *arguments, *(() if "--runs-dir" in arguments else ("--runs-dir", runs)))

    return call


# ---- answers ----


@pytest.mark.slow
def test_the_first_answers_are_those_of_the_runs_and_later_ones_see_the_sides_own_replies(talk, runs):
    stored = opened(runs, METHOD, BASELINE)
    persona = stored[0].record.sums.personas[1]
    said, reply = first_turn(stored[0], persona)
    assert first_turn(stored[1], persona)[0] == said
    lines = f"{said}\n\nAnd the lamp?\n"
    code, out, err = talk(lines, METHOD, "--persona", persona, "--beside", BASELINE, "--json")
    assert (code, err) == (0, "")
    turns = [json.loads(line) for line in out.splitlines()]
    assert [(turn["persona"], turn["turn"], turn["user"]) for turn in turns] == [
        (persona, 0, said),
        (persona, 1, "And the lamp?"),
    ]
    assert [one["run"] for one in turns[0]["replies"]] == [run.id for run in stored]
    assert [one["reply"] for one in turns[0]["replies"]] == [reply, first_turn(stored[1], persona)[1]]
    for side, first, second in zip(
        open_sides(stored, persona, print), turns[0]["replies"], turns[1]["replies"], strict=True
    ):
        speaker = side.speaker(persona)
        history = (Message("user", said), Message("assistant", first["reply"]), Message("user", "And the lamp?"))
        assert speaker.answer((*speaker.scene.system, *history)).reply == second["reply"]


@pytest.mark.slow
@pytest.mark.parametrize("method", [METHOD, BASELINE])
def test_every_stored_prompt_gets_its_stored_reply(runs, method):
    (run,) = opened(runs, method)
    replies, personas = run.replies(), run.record.sums.personas
    assert replies is not None
    (side,) = open_sides([run], personas[0], print)
    for persona in personas:
        speaker = side.speaker(persona)
        assert speaker.difference() == ""
        rows = [row for row in replies.rows(range(len(replies))) if row.persona == persona]
        assert [speaker.answer(row.messages()).reply for row in rows] == [row.reply for row in rows]


@pytest.mark.slow
def test_personas_are_answered_by_their_own_adapters(runs):
    (run,) = opened(runs, METHOD)
    personas = run.record.sums.personas
    (side,) = open_sides([run], personas[0], print)
    messages = side.speaker(personas[0]).scene.messages
    assert len({side.speaker(persona).answer(messages).reply for persona in personas}) > 1


@pytest.mark.slow
def test_a_pipe_gets_the_replies_alone_and_commands_work_in_it(talk, runs):
    (run,) = opened(runs, METHOD)
    one, two, _ = run.record.sums.personas
    said, reply = first_turn(run, one)
    other, its_reply = first_turn(run, two)
    lines = f"{said}\n/new\n{said}\n/persona {two}\n{other}\n/quit\nnot reached\n"
    assert talk(lines, METHOD, "--persona", one) == (0, f"{reply}\n{reply}\n{its_reply}\n", "")
    code, out, _ = talk("//new\n", METHOD, "--persona", one, "--json")
    assert (code, json.loads(out)["user"]) == (0, "/new")
    code, out, err = talk(f"{said}\n", METHOD, "--persona", one, "--beside", BASELINE)
    assert (code, err) == (0, "")
    assert out.startswith(f"{METHOD}: {reply}\n{BASELINE}: ")


@pytest.mark.slow
def test_the_bare_backbone_answers_for_a_run_without_adapters_and_its_system_message_comes_from_the_benchmark(runs):
    (run,) = opened(runs, BARE)
    persona = run.record.sums.personas[0]
    (side,) = open_sides([run], persona, print)
    speaker = side.speaker(persona)
    assert speaker.fitted.bank is None
    assert speaker.scene.system == side.speaker(persona, speaker.scene.dialogue).scene.system
    assert speaker.scene.messages == read_scene(find_run(runs, METHOD), persona, None).messages
    assert speaker.difference() == ""


@pytest.mark.slow
def test_a_model_that_does_not_repeat_the_runs_reply_is_told(talk, runs, monkeypatch):
    (run,) = opened(runs, BARE)
    scene = read_scene(run, run.record.sums.personas[0], None)
    monkeypatch.setattr(chat_module, "read_scene", lambda *_: chat_module.Scene("d", scene.messages, "another reply"))
    code, out, err = talk("Good evening\n", run.id, "--persona", run.record.sums.personas[0])
    assert code == 0
    assert out
    assert f"does not repeat the reply of {run.id} in 'd'" in err


@pytest.mark.slow
def test_old_turns_are_left_out_and_a_turn_that_is_too_long_changes_nothing(runs):
    (run,) = opened(runs, METHOD)
    (side,) = open_sides([run], run.record.sums.personas[0], print)
    talk = Talk([side.speaker(run.record.sums.personas[0])])
    long = "lamp " * 150
    assert [talk.say(long)[0].cut for _ in range(3)][-1]
    with pytest.raises(HarnessError, match="the last turn alone take"):
        talk.say("lamp " * 3000)
    assert talk.turns == 3
    assert talk.say("Good evening")


# ---- by hand ----


@pytest.mark.slow
def test_by_hand_a_fault_is_told_and_the_talk_goes_on_until_the_lines_end(talk, runs):
    (run,) = opened(runs, METHOD)
    persona = run.record.sums.personas[0]
    said, reply = first_turn(run, persona)
    code, out, err = talk(f"/nwe\n/persona nobody\n{said}\n", METHOD, "--persona", persona, by_hand=True)
    assert code == 0, err
    assert out == f"{persona}> " * 3 + f"{reply}\n{persona}> "
    assert "harness: /nwe is no command here; did you mean '/new'?" in err
    assert f"harness: {run.id} has no persona 'nobody'" in err
    assert "You control a smart home." in err


@pytest.mark.slow
@pytest.mark.parametrize("where", ["reading", "answering"])
def test_ctrl_c_ends_it_as_every_command(talk, runs, monkeypatch, where):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    if where == "answering":
        monkeypatch.setattr(Talk, "say", interrupted)
    else:
        monkeypatch.setattr("harness.commands.chat._lines", interrupted)
    code, out, err = talk("Good evening\n", METHOD, "--persona", find_run(runs, METHOD).record.sums.personas[0])
    assert (code, out, err) == (130, "", "interrupted\n")


# ---- faults ----


@pytest.mark.slow
def test_faults_are_one_line(talk, runs, tmp_path):
    (run,) = opened(runs, METHOD)
    persona = run.record.sums.personas[0]
    for arguments, words in (
        (("--persona", persona[:-1]), f"has no persona '{persona[:-1]}'; did you mean '{persona[:-1]}"),
        (("--persona", persona, "--dialogue", "x"), f"has no test dialogue 'x' of '{persona}'; known: {persona}/"),
        (("--persona", persona, "--beside", "unifed"), f"no run and no method in {runs}; did you mean '{BASELINE}'?"),
        (("--persona", persona, "--backbone", "./missing"), "./missing"),
    ):
        code, out, err = talk("Good evening\n", METHOD, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert words in err
    code, out, err = talk("Good evening\n/persona nobody\n", METHOD, "--persona", persona)
    assert (code, out.count("\n"), err.count("\n")) == (2, 1, 1), "a script does not go on"
    code, _, err = talk("Good \udcff\n", METHOD, "--persona", persona)
    assert (code, err) == (2, "harness: line 1 of stdin is not UTF-8 text\n")


@pytest.mark.slow
def test_damaged_adapters_are_told_before_anything_is_loaded(talk, runs, tmp_path):
    (run,) = opened(runs, METHOD)
    shutil.copytree(run.path, tmp_path / "runs" / run.id)
    (shard,) = (tmp_path / "runs" / run.id / "adapters").glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    persona = run.record.sums.personas[0]
    code, out, err = talk("Good evening\n", METHOD, "--persona", persona, "--runs-dir", str(tmp_path / "runs"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is damaged" in err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "failed", "error": "stopped"}, "is failed and has no model to talk with"),
        (
            {"adds_text": True, "requires": ("below",)},
            "that needs its own code, not only the stored run; talk with a run of",
        ),
        ({"requires": ("one", "two")}, "trains none of its own; talk with a run of 'one' or 'two'"),
        ({"base": "m" * 64}, "has no adapters"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, dict) else None,
)
def test_a_run_without_a_model_of_its_own_says_what_can_be_done(talk, put, tmp_path, changes, words):
    put("mine", [0.5, 0.6], **changes)
    code, out, err = talk("hello\n", "mine", "--persona", "p0", "--runs-dir", str(tmp_path / "runs"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


# ---- which run stands beside ----


def test_a_method_beside_means_the_run_that_is_most_like_the_other(put, tmp_path):
    one, other = put("mine", [0.5, 0.6], seed=1), put("base", [0.5, 0.6], seed=1)
    put("base", [0.5, 0.6])
    put("base", [0.5, 0.6], seed=1, control="global")
    put("base", [0.5, 0.6], seed=2, status="failed", error="stopped")
    assert find_beside(tmp_path / "runs", one, "base").id == other.id
    assert find_beside(tmp_path / "runs", one, "base-x-0").id == "base-x-0"
    put("base", [0.5, 0.6], seed=1, id="base-y")
    with pytest.raises(StoreError, match="2 runs fit mine-x-1; name one: base-x-1, base-y"):
        find_beside(tmp_path / "runs", one, "base")
    with pytest.raises(StoreError, match="did you mean 'base'"):
        find_beside(tmp_path / "runs", one, "bas3")


def test_of_two_fits_of_a_method_the_one_below_the_adapters_is_meant(put, tmp_path):
    runs = [put("mine", [0.5, 0.6]), *(put("base", [0.5, 0.6], id=f"base-{name}") for name in "ab")]
    for run, place in zip(runs, ("adapters/below", "adapters", "adapters"), strict=True):
        (run.path / place).mkdir(parents=True)
        (run.path / place / "index.json").write_text("{}")
        (run.path / place / "shard-00000.safetensors").write_text("a" if run.id == "base-a" else "b")
    assert find_beside(tmp_path / "runs", runs[0], "base").id == "base-b"


def test_of_one_run_of_a_method_no_adapters_are_read_to_find_it(put, tmp_path, monkeypatch):
    """A bank of a million people is hundreds of gigabytes."""
    one, other = put("mine", [0.5, 0.6]), put("base", [0.5, 0.6])
    monkeypatch.setattr(chat_module, "_digests", lambda _: pytest.fail("files of adapters were read"))
    assert find_beside(tmp_path / "runs", one, "base").id == other.id


def test_a_run_with_another_backbone_of_the_same_name_is_not_answered_by_the_first_ones(put, monkeypatch):
    """The folder that a name means may hold another model than when the second run was made."""
    runs = [put(name, [0.5, 0.6], hashes={"backbone": 64 * name[-1]}) for name in ("first", "second", "third")]
    asked: list[str] = []
    monkeypatch.setattr(chat_module, "load_as_run", lambda run, *_: asked.append(run.id) or run.id)
    monkeypatch.setattr(chat_module, "merged_below", lambda _, backbone: ([], backbone))
    monkeypatch.setattr(chat_module, "_check", lambda _: None)
    monkeypatch.setattr(chat_module, "_key_of", lambda *_: None)
    assert [side.top for side in open_sides(runs, "p000", print)] == ["first-x-0", "second-x-0", "second-x-0"]
    assert asked == ["first-x-0", "second-x-0"]
