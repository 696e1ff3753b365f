"""A method in a process of its own: the same bits as without, and no way to look at references that worked before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

slow = pytest.mark.attack
SMALL = ["--personas", "3", "--set", "benchmark.dialogues=2,1,1", "--backbone", "tiny", "--quiet"]
CHEAT = ["--method", "cheat", "--plugin", "cheat.py", "--baseline", "zero_shot"]
HEAD = """
import contextlib, dataclasses, gc, json, sys
from pathlib import Path
from harness import MethodCard, hookimpl

@dataclasses.dataclass(frozen=True)
class Options:
    pass

@hookimpl
def card():
    return MethodCard(summary="cheats", options=Options, shares="all")

def known(dialogues):
    found = {}
    for d in dialogues:
        replies = [m.text for m in d.messages if m.role == "assistant"]
        found.update({f"{d.id}#{turn}": text for turn, text in enumerate(replies)})
    return found

@hookimpl
def fit(study):
    return study.bare()
"""
LOOKS_UP = """
@hookimpl
def predict(study, fitted, prompts):
    found = {}
    with contextlib.suppress(Exception):
        found = references(study, prompts)
    honest = study.generate(fitted, prompts)
    return [found.get(p.id, h) for p, h in zip(prompts, honest)]
"""
CHEATS = {
    "gc": '''
def references(study, prompts):
    from harness.contract.data import Dialogue, Example
    things = gc.get_objects()
    found = known(t for t in things if isinstance(t, Dialogue))
    found.update({t.prompt.id: t.reference for t in things if isinstance(t, Example)})
    return found
''' + LOOKS_UP,
    "frames": '''
def references(study, prompts):
    frame, found = sys._getframe(), {}
    while frame:
        for value in list(frame.f_locals.values()):
            for one in next((e for e in (value, getattr(value, "examples", 0)) if isinstance(e, list)), []):
                if hasattr(one, "reference"):
                    found[one.prompt.id] = one.reference
        frame = frame.f_back
    return found
''' + LOOKS_UP,
    "the benchmark": '''
def references(study, prompts):
    from harness.contract import fill, load_benchmark
    benchmark = load_benchmark("smarthome")
    options = fill(benchmark.card.options(), {"personas": 3, "dialogues": (2, 1, 1)})
    return known(benchmark.load(options).dialogues)
''' + LOOKS_UP,
    "the scorer": '''
@hookimpl
def predict(study, fitted, prompts):
    import harness.scoring.evaluation as evaluation
    real = evaluation.score_replies
    def perfect(dataset, examples, replies, *more, **named):
        return real(dataset, examples, [e.reference for e in examples], *more, **named)
    evaluation.score_replies = perfect
    return study.generate(fitted, prompts)
''',
    "the store": '''
@hookimpl
def predict(study, fitted, prompts):
    from harness.store import Store
    places = [Path("runs"), Path.cwd(), *(s.root for s in gc.get_objects() if isinstance(s, Store))]
    for place in places:
        for path in place.glob("*/run.json"):
            path.write_text(path.read_text().replace("unified", "worse"))
    return study.generate(fitted, prompts)
''',
}  # fmt: skip


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """call(folder, arguments) -> exit code, JSON, stderr of a command in the folder."""
    import subprocess
    import sys

    def run(folder: Path, *arguments: object, command: str = "run"):
        size = SMALL if command == "run" else ["--quiet"]
        words = [sys.executable, "-m", "harness", command, "--json", *map(str, arguments), *size]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=250, check=False)
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    return run


def scores(folder: Path, method: str) -> float:
    (path,) = (folder / "runs").glob(f"{method}-*/run.json")
    return json.loads(path.read_text())["scores"]["similarity"]


def results(folder: Path) -> dict[str, object]:
    """Everything that runs leave, but for times and what they are asked."""
    found: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts):
        name = path.relative_to(folder).as_posix()
        found[name] = path.read_bytes()
        if path.name == "run.json":
            left_out = {"config", "cost", "created", "digest"}
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k not in left_out}
    return found


@pytest.mark.parametrize("method", ["hierarchical_prefix", pytest.param("retrieval", marks=pytest.mark.attack)])
@pytest.mark.long
def test_the_bits_are_the_same_in_a_process_of_its_own(call, tmp_path, method):
    for name, how in (("one", "--no-isolate"), ("other", "--isolate")):
        (tmp_path / name).mkdir()
        words = ["--method", method, how, "--threads", "2", "--set", "unified.epochs=1"]
        code, _, err = call(tmp_path / name, *words)
        assert code == 0, err
    assert results(tmp_path / "one" / "runs") == results(tmp_path / "other" / "runs")
    assert not list((tmp_path / "other" / "runs" / ".cache").glob("tmp/*"))


@pytest.mark.parametrize(
    "how",
    ["gc", *(pytest.param(how, marks=pytest.mark.attack) for how in ("frames", "the benchmark", "the scorer"))],
)
def test_a_cheat_finds_nothing_in_a_process_of_its_own(call, tmp_path, how):
    """What it does beside cheating is what `zero_shot` does."""
    (tmp_path / "cheat.py").write_text(HEAD + CHEATS[how])
    code, _, err = call(tmp_path, *CHEAT, "--isolate")
    assert code == 0, err
    assert scores(tmp_path, "cheat") == scores(tmp_path, "zero_shot") < 0.99


@pytest.mark.long
@pytest.mark.parametrize("how", ["gc", "frames", "the benchmark", "the scorer"])
def test_the_same_cheat_finds_everything_in_the_process_of_the_run(call, tmp_path, how):
    """Else the test above would show nothing."""
    (tmp_path / "cheat.py").write_text(HEAD + CHEATS[how])
    code, _, err = call(tmp_path, *CHEAT, "--no-isolate")
    assert code == 0, err
    assert scores(tmp_path, "cheat") > 0.99


@slow
def test_the_records_of_others_are_out_of_reach(call, tmp_path):
    (tmp_path / "cheat.py").write_text(HEAD)
    assert call(tmp_path, *CHEAT, "--isolate")[0] == 0
    before = results(tmp_path / "runs")
    (tmp_path / "cheat.py").write_text(HEAD + CHEATS["the store"])
    code, _, err = call(tmp_path, *CHEAT, "--isolate")
    assert code == 0, err
    after = results(tmp_path / "runs")
    assert {name: after[name] for name in before} == before


@pytest.mark.long
def test_code_that_is_imported_has_no_foothold_either(call, tmp_path):
    top = "\nimport harness.scoring.evaluation as evaluation\nevaluation.score_replies = lambda *_: 1 / 0\n"
    (tmp_path / "cheat.py").write_text(HEAD + top)
    code, _, err = call(tmp_path, *CHEAT, "--isolate")
    assert code == 0, err
    assert scores(tmp_path, "cheat") == scores(tmp_path, "zero_shot")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(
            "import os; os._exit(3)", "method 'cheat': its process ended with exit code 3", marks=pytest.mark.long
        ),
        pytest.param("import os, signal; os.kill(os.getpid(), 11)", "its process ended with signal 11", marks=slow),
        pytest.param("raise ValueError('no')", "method 'cheat', predict: cheat.py:27: ValueError: no", marks=slow),
        pytest.param("return ['x']", "predict returned 1 replies", marks=slow),
    ],
)
def test_a_process_that_ends_is_one_line(call, tmp_path, body, words):
    (tmp_path / "cheat.py").write_text(HEAD + f"\n@hookimpl\ndef predict(study, fitted, prompts):\n    {body}\n")
    code, _, err = call(tmp_path, *CHEAT, "--isolate")
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1, err


@slow
def test_a_sweep_isolates_its_methods_and_keeps_no_process_of_another_seed(call, tmp_path):
    """The method writes the id of its process and of those that the command has open."""
    text = HEAD.replace(
        "return study.bare()",
        """
    import os
    driver = os.getppid()
    children = Path(f"/proc/{driver}/task/{driver}/children").read_text().split()
    Path(__file__).with_suffix(".log").open("a").write(json.dumps([study.seed, os.getpid(), driver, children]) + "\\n")
    return study.bare()""",
    )
    (tmp_path / "base.py").write_text(text)
    (tmp_path / "cheat.py").write_text(text.replace("options=Options", 'options=Options, requires=("base",)'))
    (tmp_path / "sweep.yaml").write_text(
        "benchmark: smarthome\nbaseline: zero_shot\npersonas: 4\nseeds: [0, 1]\nmethods: [cheat]\n"
        "set:\n  dialogues: 2,1,1\n"
    )
    words = ["sweep.yaml", "--isolate", "--plugin", "base.py", "--plugin", "cheat.py"]
    code, _, err = call(tmp_path, *words, command="sweep")
    assert code == 0, err
    base, cheat = ([json.loads(line) for line in (tmp_path / f"{name}.log").open()] for name in ("base", "cheat"))
    used = {process for _, process, *_ in cheat}
    first = [line for line in base if line[1] not in used]  # who stands on it asks its own process for it once more
    assert [seed for seed, *_ in first] == [seed for seed, *_ in cheat] == [0, 1]
    assert len({process for _, process, *_ in (*first, *cheat)}) == 4
    assert str(first[0][1]) in cheat[0][3], "what may be asked for replies yet is kept"
    assert str(first[0][1]) not in cheat[1][3]
