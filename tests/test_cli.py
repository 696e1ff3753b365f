"""The command line as people use it: results, typos, JSON alone on stdout, interruption, a plugin in a loose file."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import __version__
from harness.commands.common import GROUPS
from harness.commands.run import run_command
from harness.config.run_config import SETTINGS, default_values
from harness.errors import did_you_mean
from harness.runs.replies import read_replies

METHOD = "persona_prefix"
SMALL = ["--set", "dialogues=2,1,1", "--set", "train.epochs=2", "--personas", "6", "--quiet"]
LOOSE = '''
"""Replies with the last user message."""
from dataclasses import dataclass
from harness import MethodCard, hookimpl

@dataclass(frozen=True)
class Options:
    shout: bool = False

@hookimpl
def card():
    return MethodCard("parrots the user", Options, shares="persona")

@hookimpl
def fit(study):
    return study.bare()

@hookimpl
def predict(study, prompts):
    words = [p.messages[-1].text for p in prompts]
    return [w.upper() for w in words] if study.options.shout else words
'''


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A runs folder that the slow tests of this file share."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.slow
def test_run_prints_json_alone_with_the_promised_keys_and_the_second_time_comes_from_the_store(harness, runs):
    code, out, err = harness("run", "--method", METHOD, "--runs-dir", str(runs), "--json", *SMALL)
    assert code == 0, err
    found = json.loads(out)
    assert {"method", "score", "delta_pts", "se", "ci95", "p_raw", "p_adj", "verdict"} <= set(found)
    assert found["method"] == METHOD
    assert found["baseline"] == default_values()["baseline"]
    assert found["delta_pts"] == pytest.approx(found["score"] - found["baseline_score"])
    stamps = {p: p.stat().st_mtime_ns for p in runs.glob("*/run.json")}
    code, again, _ = harness("run", "--method", METHOD, "--runs-dir", str(runs), "--json", *SMALL)
    assert code == 0
    assert json.loads(again) == found
    assert {p: p.stat().st_mtime_ns for p in runs.glob("*/run.json")} == stamps, "nothing was made again"


@pytest.mark.slow
def test_the_table_has_the_verdict_the_caveat_and_the_ceilings(harness, runs):
    code, out, err = harness("run", "--method", METHOD, "--runs-dir", str(runs), *SMALL)
    assert code == 0, err
    for words in (f"{METHOD}: ", "82.14", "not evidence of beating the published system", "oracle: blind"):
        assert words in out


@pytest.mark.slow
def test_another_seed_is_another_fit(harness, runs):
    arguments = ["run", "--method", METHOD, "--runs-dir", str(runs), "--json", *SMALL]
    first = json.loads(harness(*arguments)[1])
    other = json.loads(harness(*arguments, "--seed", "1")[1])
    assert other["run"] != first["run"]
    assert other["score"] != first["score"]


@pytest.mark.slow
def test_list_show_and_leaderboard_of_stored_runs(harness, runs, tmp_path):
    code, out, _ = harness("list", "runs", "--runs-dir", str(runs), "--json")
    assert code == 0
    listed = json.loads(out)
    assert METHOD in {row["method"] for row in listed}
    run_id = next(row["run"] for row in listed if row["method"] == METHOD)
    assert run_id in harness("show", run_id, "--runs-dir", str(runs))[1]
    assert json.loads(harness("show", run_id, "--runs-dir", str(runs), "--json")[1])["id"] == run_id
    texts = []
    for name in ("a/board.md", "b/board.md"):
        code, _, err = harness("leaderboard", "--runs-dir", str(runs), "--output", str(tmp_path / name))
        assert code == 0, err
        texts.append((tmp_path / name).read_bytes())
    assert texts[0] == texts[1]
    assert METHOD in texts[0].decode()


@pytest.mark.slow
def test_an_exported_adapter_replies_as_it_did_in_the_run(harness, runs, tmp_path, monkeypatch):
    """The README's own code, with a prompt of the run in place of the example's."""
    code, out, err = harness("run", "--method", METHOD, "--runs-dir", str(runs), "--json", *SMALL)
    assert code == 0, err
    folder = runs / json.loads(out)["run"]
    replies = read_replies(folder)
    assert replies is not None
    asked = replies.rows([replies.column("id").index(min(replies.column("id")))])[0]  # its dialogue's first turn
    arguments = ["--to", "peft", "--persona", asked.persona, "--output", str(tmp_path / "out")]
    code, out, err = harness("export", folder.name, "--runs-dir", str(runs), *arguments)
    assert (code, err) == (0, "")
    system, _, user = str(asked.prompt).partition("\nuser: ")
    block = (tmp_path / "out/README.md").read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    system, said = system.removeprefix("system: "), json.dumps(system.removeprefix("system: ").splitlines()[0])
    assert said in block
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, Any] = {}
    exec(block.replace(said, json.dumps(system)).replace('"Good evening."', json.dumps(user)), names)
    assert names["reply"] == asked.reply


@pytest.mark.slow
def test_a_long_list_of_names_is_cut_and_a_typo_in_one_of_many_is_found_at_once():
    names = [f"person_{number:06d}" for number in range(50_000)]
    assert did_you_mean("persn_049999", names).startswith("did you mean 'person_")
    assert did_you_mean("x", names[:51]) == f"known: {', '.join(names[:50])} and 1 more"
    assert did_you_mean("x", names[:50]) == f"known: {', '.join(names[:50])}"


def test_a_method_in_a_loose_file(harness, runs, tmp_path):
    plugin = tmp_path / "parrot.py"
    plugin.write_text(LOOSE)
    arguments = ["run", "--plugin", str(plugin), "--method", "parrot", "--runs-dir", str(runs), "--json"]
    world = ["--set", "dialogues=2,1,1", "--personas", "6", "--quiet"]
    code, out, err = harness(*arguments, *world)
    assert code == 0, err
    quiet = json.loads(out)
    assert quiet["verdict"].startswith("worse than")
    loud = json.loads(harness(*arguments, *world, "--set", "shout=true")[1])
    assert loud["run"] != quiet["run"]
    listed = json.loads(harness("list", "methods", "--plugin", str(plugin), "--json")[1])
    assert "parrot" in {row["name"] for row in listed}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--method", "persona_prefx"], "did you mean 'persona_prefix'?"),
        (["run", "--method", METHOD, "--benchmark", "smarthom"], "did you mean 'smarthome'?"),
        (["run", "--method", METHOD, "--set", "epoch=3"], "did you mean"),
        (["run", "--method", METHOD, "--set", "epochs=many"], "epochs"),
        (["run", "--method", METHOD, "--persona", "persona_999"], "persona_999"),
        (["run", "--method", METHOD, "--cluster", "9"], "no cluster 9"),
        (["run", "--method", METHOD, "--backbone", "tinny"], "tiny"),
        (["run", "--metod", METHOD], "--method"),
        (["rum"], "did you mean 'run'?"),
        (["run"], "method is missing"),
        (["run", "--method", METHOD, "--plugin", "no_such.py"], "no_such.py"),
        (["run", "--config", "no_such.yaml"], "no_such.yaml"),
        (["run", "--method", METHOD, "--benchmark", "jsonl", "--set", "data=no_such.jsonl"], "no_such.jsonl"),
        (["show", "nothing"], "there is no runs folder runs"),
        (["list", "methds"], "did you mean 'methods'?"),
        (["leaderboard", "--runs-dir", "no_such_folder"], "no_such_folder"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_mistake_gets_a_helpful_line_and_exit_code_2(harness, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = harness(*arguments)
    assert code == 2
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_listed_runs_have_numbers_in_json_and_can_be_chosen(harness, put, tmp_path):
    put("base", [0.5, 0.6])
    put("good", [0.7, 0.8])
    put("good", [0.6, 0.8], seed=1)
    put("good", [0.6, 0.8], seed=2, status="failed", error="stopped")

    def listed(*choice: object) -> list[tuple[str, int]]:
        code, out, err = harness("list", "runs", "--runs-dir", tmp_path / "runs", "--json", *choice)
        assert code == 0, err
        return [(row["method"], row["seed"]) for row in json.loads(out)]

    rows = json.loads(harness("list", "runs", "--runs-dir", tmp_path / "runs", "--json")[1])
    assert [row.get("score") for row in rows] == [pytest.approx(55), pytest.approx(75), pytest.approx(70), None]
    assert (rows[0]["metric"], rows[0]["unit"]) == ("similarity", "pt")
    assert listed("--method", "good") == [("good", 0), ("good", 1), ("good", 2)]
    assert listed("--method", "good", "--seed", 1) == [("good", 1)]
    assert listed("--status", "failed") == [("good", 2)]
    assert listed("--benchmark", "toy", "--backbone", "none", "--status", "ok") == [
        ("base", 0),
        ("good", 0),
        ("good", 1),
    ]
    assert listed("--status", "incomplete") == []
    where = ("--runs-dir", tmp_path / "runs")
    code, _, err = harness("list", "runs", *where, "--method", "goood")
    assert (code, "did you mean 'good'?" in err) == (2, True)
    code, _, err = harness("list", "methods", "--seed", "1")
    assert (code, "harness list runs" in err) == (2, True)
    shown = harness("list", "runs", *where)[1]
    assert "similarity 70.00" in shown
    assert "failed" in shown
    assert " ok " not in shown


def test_a_leaderboard_of_nothing_is_not_written(harness, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in ([], ["--runs-dir", "."], ["--format", "csv"], ["--publish"]):
        code, out, err = harness("leaderboard", *arguments)
        assert (code, out) == (2, "")
        assert "nothing to rank" in err
        assert "harness run" in err
    assert list(tmp_path.iterdir()) == []


def test_a_plugin_that_cannot_be_loaded_is_said_once_and_blames_no_other_file(harness, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text('"""Broken."""\nx = 1 / 0\n')
    for command in (["run", "--method", "broken"], ["sweep", "quick"], ["tune", "tune_quick"]):
        code, _, err = harness(*command, "--plugin", plugin)
        assert code == 2
        assert err.count("ZeroDivisionError") == 1
        assert f"{plugin}:2: ZeroDivisionError: division by zero" in err
        assert "configs/" not in err


def test_an_error_in_the_defaults_of_options_has_file_and_line(harness, tmp_path):
    plugin = tmp_path / "parrot.py"
    plugin.write_text(
        LOOSE.replace("    shout: bool = False", "    size: int = 0\n    def __post_init__(self): 1 / self.size")
    )
    code, _, err = harness("run", "--method", "parrot", "--plugin", plugin)
    assert code == 2
    assert "Options() with its own defaults fails (parrot.py:9): ZeroDivisionError: division by zero" in err


def test_data_that_cannot_be_written_blames_the_folder(harness, tmp_path):
    (tmp_path / "file").write_text("no folder")
    code, _, err = harness("data", "write", tmp_path / "file" / "world", "--personas", "3")
    assert code == 2
    assert err == f"harness: cannot write {tmp_path / 'file' / 'world'}: Not a directory; choose another folder\n"


def test_the_version_the_debug_flag_and_every_command_under_a_heading_are_in_the_help(harness):
    assert harness("--version") == (0, f"harness {__version__}\n", "")
    code, out, _ = harness("--help")
    assert code == 0
    assert "--debug" in out
    _, *groups = re.split(r"\n(?=\S[^\n]*:\n)", out)
    titles = [group.partition(":")[0] for group in groups]
    assert titles == ["Options", *GROUPS], "no command is left for a heading of its own"
    for title, group in zip(titles[1:], groups[1:], strict=True):
        assert re.findall(r"^  (\S+)", group, re.MULTILINE) == list(GROUPS[title])


def test_a_shell_gets_completions(harness, monkeypatch):
    monkeypatch.setenv("_HARNESS_COMPLETE", "complete_bash")
    for words, place, wanted in (("harness comp", 1, ["compare"]), ("harness run --meth", 2, ["--method"])):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(place))
        code, out, err = harness()
        assert (code, out.split(), err) == (0, wanted, "")


@pytest.fixture
def completes(harness, monkeypatch):
    """completes("harness run --method per") -> what a shell offers for the last word."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("_HARNESS_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        code, out, err = harness()
        assert (code, err) == (0, "")
        return out.split()

    return ask


def test_a_shell_gets_names_of_plugins(completes):
    assert METHOD in completes("harness run --method persona_")
    assert completes("harness run --method no_such") == []
    assert completes("harness run --plugin mine/my_own.py --method my_") == ["my_own"], "its code is not run"
    assert completes("harness run --benchmark smart") == ["smarthome"]
    assert completes("harness tune x --backbone ti") == ["tiny"]
    assert completes("harness describe exact") == ["exact_match"]
    assert completes("harness run --log tensor") == ["tensorboard"]


def test_a_shell_gets_ids_of_stored_runs(completes, tmp_path, monkeypatch):
    for name in ("good-1a2b", "good-3c4d", "other-5e6f", ".hidden-1", "no_run"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        if name != "no_run":
            (tmp_path / "runs" / name / "run.json").write_text("oops")
    assert completes(f"harness show --runs-dir {tmp_path / 'runs'} good") == ["good-1a2b", "good-3c4d"]
    assert completes(f"harness chat --runs-dir {tmp_path / 'runs'} oth") == ["other-5e6f"]
    beside = completes(f"harness chat x --runs-dir {tmp_path / 'runs'} --beside good")
    assert beside == ["good", "good-1a2b", "good-3c4d"]
    assert completes("harness show good") == [], "there is no runs folder here"
    monkeypatch.chdir(tmp_path)
    assert completes("harness runs rm other-5e6f goo") == ["good-1a2b", "good-3c4d"]
    assert completes("harness compare oth") == ["other", "other-5e6f"]


@pytest.mark.slow
def test_completing_needs_no_torch_and_runs_no_plugin(tmp_path):
    code = (
        "import sys\nfrom harness.commands import completion\n"
        "class ctx: params = {'runs_dir': sys.argv[1]}\n"
        "for name in ('methods', 'benchmarks', 'backbones', 'described', 'run_ids', 'stored', 'trackers'):\n"
        "    getattr(completion, name)(ctx, [], '')\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'transformers')\n"
        "       or name.startswith(('harness.methods.', 'harness.benchmarks.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_describe_shows_options_with_types_and_defaults(harness, tmp_path):
    (found,) = json.loads(harness("describe", METHOD, "--json")[1])
    assert (found["kind"], found["shares"], found["requires"]) == ("method", "persona", ["unified"])
    rate = next(option for option in found["options"] if option["option"] == "train.learning_rate")
    assert (rate["type"], rate["default"]) == ("float", 0.1)
    assert rate["search"]["low"] < rate["default"] <= rate["search"]["high"]
    text = harness("describe", METHOD)[1]
    for words in (
        "data that may influence a reply: the persona's own",
        "base: unified",
        "random | vocab_sample | text",
    ):
        assert words in text
    kinds = [one["kind"] for one in json.loads(harness("describe", "similarity", "--json")[1])]
    assert kinds == ["metric"]
    assert "higher is better" in harness("describe", "similarity")[1]
    text = harness("describe", "smarthome")[1]
    assert "house | street" in text
    assert "list of" not in text.split("dialogues")[2].splitlines()[0]
    plugin = tmp_path / "parrot.py"
    plugin.write_text(LOOSE)
    code, text, err = harness("describe", "parrot", "--plugin", plugin)
    assert code == 0, err
    assert re.search(r"^shout +bool +false$", text, re.MULTILINE)
    code, _, err = harness("describe", "persona_prefx")
    assert (code, "did you mean 'persona_prefix'?" in err) == (2, True)


def test_every_command_has_help_with_an_example(harness):
    for command in ("run", "leaderboard", "list", "show", "compare", "diff", "import", "power", "describe"):
        code, out, _ = harness(command, "--help")
        assert code == 0
        assert f"harness {command}" in out.split("Example:")[1]
        text = out.partition("Arguments:")[0].partition("Options:")[0].split("Example:")[0]
        assert not [line for line in text.splitlines() if "   " in line.strip()], "the source's indentation shows"


def test_data_can_be_written_and_not_over_something(harness, tmp_path):
    code, out, err = harness("data", "write", str(tmp_path / "world"), "--personas", "3")
    assert code == 0, err
    assert "3 personas" in out
    assert (tmp_path / "world" / "sessions.jsonl").is_file()
    code, _, err = harness("data", "write", str(tmp_path / "world"), "--personas", "3")
    assert code == 2
    assert "not empty" in err


def test_the_backbone_card_is_shown(harness):
    code, out, _ = harness("backbone", "show", "tiny")
    assert code == 0
    assert "profile" in out
    assert harness("backbone", "show", "tinny")[0] == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run --method m", True), ("sweep file", True), ("tune file --hours 8", True), ("chat id --persona p", False),
        ("export id --to peft --output x", False), ("bench train --keep x", True), ("bench train --keep=x", True),
        ("bench train", False), ("runs check", False), ("--version", False), ("nonsense", False), ("bench", False),
    ],
)  # fmt: skip
def test_only_a_command_that_keeps_what_is_done_says_that_it_goes_on(line, expected, harness, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.cli.app", interrupted)
    hint = "; the same command goes on where it stopped" if expected else ""
    assert harness(*line.split()) == (130, "", f"interrupted{hint}\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    "how",
    [
        pytest.param([signal.SIGINT], id="Ctrl-C"),
        pytest.param([signal.SIGINT] * 3, id="Ctrl-C three times", marks=pytest.mark.long),
        pytest.param([getattr(signal, "SIGKILL", None)], id="kill", marks=pytest.mark.long),
    ],
)
def test_a_run_stopped_half_way_goes_on_and_ends_with_the_same_scores(harness, tmp_path, how):
    """The stopped process leaves no complete run; the same command then gives what an undisturbed one gives."""
    arguments = ["run", "--method", METHOD, "--personas", "3", "--set", "dialogues=3,1,1", "--set", "epochs=3"]
    arguments += ["--threads", "2"]

    stopped = subprocess.Popen(
        [sys.executable, "-c", "from harness.cli import main; main()", *arguments, "--runs-dir", tmp_path / "stopped"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        # A test run in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and stopped.poll() is None:
        if list((tmp_path / "stopped").glob(f"{METHOD}-*/run.json")):
            break
        time.sleep(0.05)
    assert stopped.poll() is None, "the run ended before it could be stopped"
    for one in how:
        stopped.send_signal(one)
        time.sleep(0.03)
    stopped.wait(60)
    assert stopped.returncode == (130 if how[0] == signal.SIGINT else -signal.SIGKILL)
    states = {p.parent.name: json.loads(p.read_text())["status"] for p in (tmp_path / "stopped").glob("*/run.json")}
    assert "incomplete" in states.values()
    outputs = []
    for name in ("stopped", "undisturbed"):  # in this process: the same command makes the same run in each
        code, out, err = harness(*arguments, "--runs-dir", tmp_path / name, "--json", "--quiet")
        assert code == 0, err
        outputs.append(json.loads(out))
        outputs[-1].pop("cost")
    assert outputs[0] == outputs[1]
    assert outputs[0]["run"] in states, "it is the stopped run that went on"


def test_every_setting_of_a_run_is_a_flag_as_its_description_says():
    assert set(SETTINGS) <= set(inspect.signature(run_command).parameters)
