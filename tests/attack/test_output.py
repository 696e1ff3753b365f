"""Hostile and broken records among good ones: every command serves the good ones, and no output obeys a text.

The records are `mutations`; each output is read back by a parser of its own format. What is written here is looked at
with the eyes of a shell, a browser, a spreadsheet, TeX and a terminal.
"""

from __future__ import annotations

import csv
import html.parser
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.leaderboard import board_of, write_board
from harness.runs.stored import read_record
from harness.text import (
    as_lines,
    code,
    csv_cell,
    fenced,
    json_text,
    markdown,
    one_line,
    shell_word,
    terminal,
    without_places,
    xml,
)
from tests.attack.mutations import HOME, HOSTILE, RECORDS, Mutation, mutations, old, real

BASE = np.linspace(0.5, 0.8, 12)
NOISE = np.random.default_rng(3).normal(0, 0.02, len(BASE))
BAD = "bad-000000000001"
PAIRS = {"persona_prefix-70c3b9262b6b": "unified-547b24967bb8", "persona_prefix-79059047fbd9": "unified-eb3f1af63ec1"}
COMMANDS = ("list", "show", "compare", "diff", "md", "csv", "json", "latex", "publish", "power")
SHOWING = ("list", "show", "compare", "diff", "power")
Call = tuple[int, str, str]


# ---- how each output is looked at ----


def hidden(text: str) -> list[str]:
    """Characters that a terminal obeys or that nobody sees; joiners between characters of other scripts are none."""
    joined = re.compile("(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")
    return [
        f"U+{ord(c):04X}"
        for c in joined.sub("", text)
        if (unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n") or c in "\ufffe\uffff\u3164\u2800"
    ]


class Elements(html.parser.HTMLParser):
    """The elements of a page with their attributes, and the text in its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script":
            self.scripts[-1] += data


def look_at_page(page: str) -> None:
    seen, empty = Elements(page), Elements(EMPTY_PAGE)
    assert [tag for tag, _ in seen.found] == [tag for tag, _ in empty.found], "data made an element"
    assert not [name for _, attributes in seen.found for name in attributes if name.startswith("on")]
    data = json.loads(seen.scripts[0])
    assert seen.scripts[1:] == empty.scripts[1:], "data reached the script"
    assert not [text for text in texts_of(data) if hidden(text.replace("\t", ""))]


EMPTY_PAGE = ""  # of a leaderboard without runs; set by the lab


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from itertools.chain(value, *map(texts_of, value.values()))
    elif isinstance(value, list):
        yield from itertools.chain(*map(texts_of, value))


def look_at_svg(svg: str) -> None:
    for element in ElementTree.fromstring(svg).iter():
        assert element.tag.rpartition("}")[2] not in ("script", "foreignObject", "a", "image"), element.tag
        for name, value in element.attrib.items():
            assert not name.startswith("on"), name
            assert not name.endswith("href") or value.startswith("#"), value
    assert not hidden(svg)


def look_at_csv(text: str) -> None:
    assert not hidden(text)
    rows = list(csv.reader(io.StringIO(text)))
    assert len({len(row) for row in rows}) == 1
    assert len(rows) == len(text.splitlines())
    for cell in itertools.chain(*rows):
        assert not cell.startswith(("=", "+", "@", "\t", "\r")), cell
        assert not cell.startswith("-") or float(cell) < 0, cell


def look_at_latex(text: str) -> None:
    assert not hidden(text)
    for line in text.splitlines():
        if line.startswith("%"):
            continue
        words = set(re.findall(r"\\([a-zA-Z]+)", line))
        assert words <= {
            "begin",
            "end",
            "toprule",
            "midrule",
            "bottomrule",
            "textbackslash",
            "ensuremath",
            "textasciitilde",
        }
        assert not re.search(r"(?<!\\)[#$%_]", re.sub(r"\$[<>]\$|\\\\$", "", line)), line
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == 10, line


HEADINGS = (
    r"# Leaderboard|## Contents|## \d+\. .*|"
    r"### (Plots|Cost|Yardsticks|Also measured \(no tests\)|Flags|Protocol|How to reproduce)|"
    r"## Not comparable|## Not in the tables"
)


def look_at_markdown(text: str) -> None:
    assert not hidden(text)
    prose, fences = [], []
    for part in re.split(r"(?ms)^(```+)\n(.*?)\n\1$", text)[::3]:
        prose += part.splitlines()
    for _, inside in re.findall(r"(?ms)^(```+)\n(.*?)\n\1$", text):
        fences += inside.splitlines()
    for line in prose:
        assert not re.search(r"<[a-zA-Z/!?]", line), line
        assert not line.startswith("#") or re.fullmatch(HEADINGS, line), line
        assert all(re.fullmatch(r"[\w .-]+", span) for span in re.findall(r"(?<!\\)`(.*?)(?<!\\)`", line)), line
        for target in re.findall(r"\]\(([^)]*)", line):
            assert re.fullmatch(r"(index\.html|plots/[\w.-]+)", target), line
        assert "://" not in line, line
    tables = [line for line in prose if line.startswith("|")]
    for above, below in itertools.pairwise(tables):
        if below.startswith("|:"):
            assert len(re.findall(r"(?<!\\)\|", above)) == below.count("|"), above
    for line in fences:
        words = shlex.split(re.sub(r"\$'((?:[^'])*)'", "x", line), comments=True)
        assert words[:2] in (["harness", "run"], ["harness", "import"], ["harness", "tune"]), line
        assert not set(re.findall(r"[;|&<>`]|\$\(", shell_outside_quotes(line))), line


def shell_outside_quotes(line: str) -> str:
    """What a shell does not take as it stands; `# id` at the end is a comment."""
    assert re.search(r"   # [\w.-]+$", line), line
    return re.sub(r"'[^']*'|\"'\"", "", line.rpartition("   # ")[0])


# ---- good runs, a bad one among them, and every command ----


class Lab:
    """A folder with runs and published records, good ones and one that is changed for every call."""

    def __init__(self, folder: Path, harness: Callable[..., Call]) -> None:
        self.folder, self.harness = folder, harness
        self.runs, self.records = folder / "runs", folder / "leaderboard" / "records"
        self.records.mkdir(parents=True)
        for name in PAIRS.values():
            shutil.copy(RECORDS / f"{name}.json", self.records)
        self.good = {command: self.serve(command) for command in ("compare", "diff", "power", "show")}
        assert all(call[0] == 0 for call in self.good.values()), self.good

    def serve(self, command: str) -> Call:
        """What a command that asks for the good runs alone gives."""
        return self.harness(*self.words(command, "good-x-0", "base-x-0"))

    def words(self, command: str, run: str, base: str) -> list[str]:
        """A command line that names two runs."""
        return {
            "list": ["list", "runs"],
            "show": ["show", run],
            "compare": ["compare", base, run],
            "diff": ["diff", base, run],
            "power": ["power", "--method", run, "--baseline", base, "--personas", "50"],
            "md": ["leaderboard"],
            "publish": ["leaderboard", "--publish"],
            **{form: ["leaderboard", "--format", form] for form in ("csv", "json", "latex")},
        }[command]

    def put(self, mutation: Mutation, place: str) -> None:
        """The bad record, as a stored run or as a published record, and nowhere else."""
        shutil.rmtree(self.runs / BAD, ignore_errors=True)
        file = self.records / f"{BAD}.json"
        file.unlink(missing_ok=True)
        if place == "runs":
            file = self.runs / BAD / "run.json"
            shutil.copytree(self.runs / "good-x-0", file.parent)
        file.write_text(mutation.text(), encoding="utf-8")

    def attack(self, mutation: Mutation, command: str, place: str, base: str, as_json: bool) -> None:
        """One call with the bad record, and what must hold of it."""
        self.put(mutation, place)
        words = [*self.words(command, BAD, base), *(["--json"] if as_json else [])]
        code, out, err = self.harness(*words)
        assert code in (0, 2), err
        assert "Traceback" not in err
        assert not hidden(err), err
        if code == 2:
            assert out == ""
            first, *more = err.splitlines()
            assert first.startswith("harness: ")
            assert all(line.startswith(("  ", "name the runs", "not comparable")) for line in more), err
        elif as_json or command == "json":
            value = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
            assert not hidden(out)
            self.check_served(command, value)
        else:
            assert not hidden(out), out
            look = {"csv": look_at_csv, "latex": look_at_latex}.get(command)
            if look:
                look(out)
            if command == "list":
                assert {"base-x-0", "good-x-0"} <= {line.split()[0] for line in out.splitlines()}
        if command not in SHOWING:
            assert code == 0, err
        if command in ("md", "publish"):
            self.look_at_board()
        if command in self.good:
            assert self.serve(command) == self.good[command], "the good runs are served as if nothing were there"

    def check_served(self, command: str, value: Any) -> None:
        if command == "list":
            assert {"base-x-0", "good-x-0"} <= {row["run"] for row in value}
        if command not in SHOWING:
            served = {run for row in value for run in row["runs"]}
            assert {"base-x-0", "good-x-0", *PAIRS.values()} <= served
            assert all(row["comparable"] for row in value if row["runs"] == ["good-x-0"])

    def look_at_board(self) -> None:
        board = self.records.parent
        assert sorted(path.name for path in self.folder.iterdir()) == ["leaderboard", "runs"]
        names = {path.relative_to(board).as_posix() for path in board.rglob("*") if path.is_file()}
        known = r"README\.md|index\.html|plots/[a-z0-9_-]+-[0-9a-f]{8}-\w+\.svg|records/(?:samples/)?[\w.-]+\.json"
        assert all(re.fullmatch(known, name) for name in names), names
        look_at_markdown((board / "README.md").read_text("utf-8"))
        look_at_page((board / "index.html").read_text("utf-8"))
        for path in board.glob("plots/*.svg"):
            look_at_svg(path.read_text("utf-8"))
        for path in board.rglob("*"):
            if path.is_file() and path.stem != BAD:
                text = path.read_text("utf-8")
                assert HOME not in text, path
                assert str(self.folder) not in text, path


@pytest.fixture
def lab(tmp_path, put, harness, monkeypatch):
    global EMPTY_PAGE
    monkeypatch.chdir(tmp_path)
    put("base", BASE)
    put("good", BASE + 0.03 + NOISE)
    write_board(board_of([]), tmp_path / "none" / "README.md")
    EMPTY_PAGE = (tmp_path / "none" / "index.html").read_text("utf-8")
    shutil.rmtree(tmp_path / "none")
    return Lab(tmp_path, harness)


def toy() -> dict[str, Any]:
    """A copy of the good run of another method: in the world of the good ones, with replies."""
    record = json.loads(Path("runs/good-x-0/run.json").read_text("utf-8"))
    record.pop("digest", None)
    record.pop("files", None)
    return {**record, "method": "bad", "plugin_files": ["bad.py"], "notes": {"said": "x"}}


def planned(name: str, step: int, start: int, times: int) -> Iterator[tuple[Mutation, str, str, str, bool]]:
    """Every `step`-th mutation of a record with `times` commands each, in turn."""
    if name == "toy":
        record, base = toy(), "base-x-0"
    elif name == "schema 1":
        record, base = old(next(iter(PAIRS))), "base-x-0"
    else:
        record, base = real(name), PAIRS[name]
    turn = 0
    for mutation in itertools.islice(mutations({**record, "id": BAD}), start, None, step):
        for _ in range(times):
            command = COMMANDS[turn % len(COMMANDS)]
            if command in ("md", "publish") and turn % 40 >= 10:  # they draw plots: seconds in place of milliseconds
                command = ("csv", "compare")[turn % 2]
            place = "records" if command not in SHOWING and turn % 3 == 0 else "runs"
            yield mutation, command, place, base, turn % 4 == 1 and command not in ("csv", "latex")
            turn += 1


def run_all(lab: Lab, plan: Iterator[tuple[Mutation, str, str, str, bool]]) -> int:
    """Make all calls; a test that fails says of each fault which mutation and command it was."""
    faults, calls = [], 0
    for mutation, command, place, base, as_json in plan:
        calls += 1
        try:
            lab.attack(mutation, command, place, base, as_json)
        except (Exception, pytest.fail.Exception) as error:
            faults.append(f"{mutation.what}: {command}{' --json' if as_json else ''} ({place}): {str(error)[:300]}")
    assert not faults, f"{len(faults)} of {calls} calls:\n" + "\n".join(faults[:10])
    return calls


@pytest.mark.parametrize("name", ["toy", "schema 1", *PAIRS])
def test_a_sample_of_mutated_records_harms_nothing(lab, name):
    assert run_all(lab, planned(name, step=53, start=7, times=1)) > 5


@pytest.mark.attack
@pytest.mark.parametrize("start", range(8))
@pytest.mark.parametrize("name", ["toy", "schema 1", *PAIRS])
def test_mutated_records_harm_nothing(lab, name, start):
    calls = run_all(lab, planned(name, step=8, start=start, times=1))
    assert calls >= 60


# ---- one function for each place ----


@pytest.mark.parametrize("text", HOSTILE)
def test_every_place_has_its_escaping(text):
    assert not hidden(terminal(text).replace("\t", ""))
    assert not hidden(one_line(text))
    assert "\n" not in one_line(text)
    assert len(as_lines([text, "second"]).splitlines()) == 2
    assert ElementTree.fromstring(f'<a b="{xml(text)}">{xml(text)}</a>').text == one_line(text)
    look_at_markdown(f"{markdown(text)}\n\n| a | b |\n|:--|:--|\n| {markdown(text)} | x |")
    assert len(re.findall("`", code(text))) == 2
    assert re.fullmatch(r"(`+)\n.*\n\1", fenced([text, "second"]), re.DOTALL)
    look_at_csv(f'"{csv_cell(text).replace(chr(34), chr(34) * 2)}",second\n')
    shown = json_text({text: [text, float("nan")]})
    assert not hidden(shown)
    assert json.loads(shown) == {text: [text, None]}, "the value is the same"


def test_what_nobody_sees_is_shown_and_what_shapes_other_scripts_is_kept():
    signs = "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\U00013430-\U0001343f"  # these are seen
    for c in filter(lambda c: unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp"), map(chr, range(0x110000))):
        assert (terminal(f"a{c}b") != f"a{c}b") == (c not in "\n\t" and not re.match(f"[{signs}]", c)), hex(ord(c))
    for word in ("می‌خواهم", "👨‍👩‍👧", "❤️‍🔥", "क्‍ष"):
        assert terminal(word) == word
    assert terminal("a\u200cb \u200d x\ufe0f") == r"a\u200cb \u200d x\ufe0f"


@pytest.mark.skipif(not shutil.which("bash"), reason="asks bash")
def test_a_command_to_reproduce_is_one_line_that_bash_reads_word_by_word(tmp_path, stored):
    from harness.leaderboard.remake import command

    texts = [text.replace("\0", "").encode("utf-8", "replace").decode() for text in HOSTILE]
    for text in texts:
        word = shell_word(text)
        assert not hidden(word)
        assert "\n" not in word
        told = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, cwd=tmp_path, check=True)
        assert told.stdout.decode() == text
        imported = {"name": text, "sha256": "0", "unit": text, "example_set": text}
        options = {"method": {text: text}, text: {"a": [text, {text: 1}]}}
        for more in ({"imported": imported}, {"changed": options, "plugin_files": [text]}):
            run = stored(tmp_path, text, BASE, id="m-1", **more)
            line = command(run.record)
            assert not hidden(line)
            script = f'harness() {{ printf "%s\\n" "$1" "$#"; }}\n{line}   # {run.id}\n'
            told = subprocess.run(["bash", "-c", script], capture_output=True, cwd=tmp_path, check=True, text=True)
            assert told.stdout.splitlines()[0] in ("run", "import")
            assert (told.stderr, len(told.stdout.splitlines())) == ("", 2), "one command and nothing else"
    assert not list(tmp_path.iterdir()), "nothing was touched"


def test_settings_that_no_run_has_are_not_in_the_command(tmp_path, stored):
    from harness.leaderboard.remake import command

    run = stored(tmp_path, "m", BASE)
    config = {**run.record.config.model_dump(), "plugin": "evil.py", "debug": "x", "--set": "y"}
    again = run.record.amended(config=config)
    assert command(again) == command(run.record)


# ---- records ----


@pytest.mark.parametrize(
    "run_id",
    ["../../x", "/tmp/x", "a/b", "..", ".hidden", "-x", "", " ", "a b", "a\0b", "x" * 300, "x\n", "ü", "a\\b"],
)
def test_an_id_that_is_none_is_refused_in_one_line_and_nothing_is_written_elsewhere(lab, run_id):
    record = {**toy(), "id": run_id}
    before = {path for path in lab.folder.rglob("*") if "leaderboard" not in path.parts}
    lab.put(Mutation("", record), "records")
    assert lab.harness("leaderboard", "--publish")[0] == 0
    reason = [line for line in (lab.records.parent / "README.md").read_text("utf-8").splitlines() if BAD in line]
    assert len(reason) == 1
    assert re.search(r"is not an id: up to 200|the record of another run", reason[0])
    assert {path for path in lab.folder.rglob("*") if "leaderboard" not in path.parts} == before
    published = {path.stem for path in lab.records.glob("*.json")}
    assert published == {"base-x-0", "good-x-0", *PAIRS.values(), BAD}


def test_ids_that_differ_in_case_alone_are_published_once(lab, put):
    put("shout", BASE, id="GOOD-x-0")
    code, _, err = lab.harness("leaderboard", "--publish")
    assert code == 0
    assert err == "note: good-x-0 is not published: its id differs from GOOD-x-0 only in case\n"
    assert {path.stem for path in lab.records.glob("*.json")} == {"base-x-0", "GOOD-x-0", *PAIRS.values()}


def test_a_record_too_large_to_publish_leaves_the_others(lab, put):
    put("large", BASE, notes={"text": "x" * 100_000})
    code, _, err = lab.harness("leaderboard", "--publish")
    assert (code, len(err.splitlines())) == (0, 1)
    assert "large-x-0 is not published" in err
    assert {path.stem for path in lab.records.glob("*.json")} == {"base-x-0", "good-x-0", *PAIRS.values()}


def test_no_place_on_this_machine_is_in_a_record_or_a_page(lab, put):
    here = str(lab.folder)
    put(
        "where",
        BASE + 0.01 + NOISE,
        error=f"ValueError: cannot read '{HOME}/my data/x.jsonl' nor {here}/data/y.jsonl: gone",
        config={
            "method": "where", "benchmark": "toy", "baseline": "base", "backbone": f"{HOME}/model",
            "scorer": "~/s/minilm", "chat_template": "../up/template.jinja",
        },
        method_options={"file": f"{HOME}/options.json", "files": ["C:\\Users\\alice\\a.txt", "kept/inside.txt"]},
        benchmark={
            "name": "toy", "options": {"data": f"{here}/data/y.jsonl"}, "facts": {"from": f"{HOME}/d"}, "sha256": "0"
        },
        plugin_files=[f"{HOME}/mine.py", f"{here}/plugins/mine.py"],
        changed={"benchmark": {"data": f"{here}/data/y.jsonl"}, "method": {"file": f"{HOME}/options.json"}},
        notes={f"{HOME}/n": "alice@host:/srv/alice/x", "web": "https://example.org/a/b and/or 1/2"},
    )  # fmt: skip
    stored_text = (lab.runs / "where-x-0" / "run.json").read_text("utf-8")
    assert lab.harness("leaderboard", "--publish")[0] == 0
    outputs = [stored_text, *(path.read_text("utf-8") for path in lab.records.parent.rglob("*") if path.is_file())]
    outputs += [lab.harness("leaderboard", "--format", form)[1] for form in ("csv", "json", "latex")]
    for text in outputs:
        assert "alice" not in text
        assert here not in text
        assert "/home/" not in text
    record = read_record(lab.runs / "where-x-0" / "run.json")
    assert record.error == "ValueError: cannot read 'x.jsonl' nor data/y.jsonl: gone"
    assert record.plugin_files == ("mine.py", "plugins/mine.py")
    assert record.method_options == {"file": "options.json", "files": ["a.txt", "kept/inside.txt"]}
    assert record.notes["web"] == "https://example.org/a/b and/or 1/2"
    assert record.config.backbone == "model"


def test_places_are_taken_out_of_records_that_were_stored_before(lab):
    lab.put(Mutation("", {**toy(), "id": BAD, "method_options": {"file": f"{HOME}/x.json"}}), "runs")
    assert HOME in (lab.runs / BAD / "run.json").read_text()
    assert lab.harness("leaderboard", "--publish")[0] == 0
    assert HOME not in (lab.records / f"{BAD}.json").read_text()
    assert HOME not in (lab.records.parent / "README.md").read_text()


@pytest.mark.slow
def test_a_run_with_absolute_paths_stores_none_of_them(sweep_lab):
    sweep_lab.method("base", 0.5)
    sweep_lab.method("fails", 0.5, trouble=f"raise OSError(2, 'gone', '{HOME}/my data.jsonl')")
    code, _, err = sweep_lab.call("methods: [base, fails]\nbaseline: base\nseeds: [0]\n", "--quiet")
    assert code == 2, err
    records = [path.read_text() for path in sweep_lab.runs.glob("*/run.json")]
    assert len(records) == 2
    assert any("my data.jsonl" in text for text in records), "the failed run says why"
    for text in records:
        assert '"data": "data.jsonl"' in text
        assert str(sweep_lab.folder) not in text
        assert HOME not in text


@pytest.mark.parametrize(
    "text",
    ["/help", "and/or", "1/2 a/b", "https://example.org/a/b/c", "sentence-transformers/all-MiniLM-L6-v2", "a ~ b",
     "data/x.jsonl", "either / or", "\\frac{a}{b}", "Reply with yes/no/maybe."],
)  # fmt: skip
def test_what_is_no_place_stays(text):
    assert without_places(text) == text


def test_committed_records_are_sound_and_name_no_place():
    for path in sorted(RECORDS.glob("*.json")):
        record = read_record(path)
        assert record.without_places() is record, path.name


def test_a_run_stored_with_hostile_text_reads_back_the_same(put):
    for text in HOSTILE:
        text = without_places(text).encode("utf-8", "replace").decode()
        run = put("m", BASE, notes={"said": text})
        raw = (run.path / "run.json").read_text("utf-8")
        assert not hidden(raw)
        assert read_record(run.path / "run.json").notes == {"said": text}


# ---- stdout and stderr ----

PRINTS = '''
"""Prints wherever it is called."""
import os, subprocess, sys
from dataclasses import dataclass
from harness import MethodCard, hookimpl

def shout(where):
    print("python", where)
    os.write(1, b"raw\\n")
    subprocess.run(["echo", "child"])
    sys.__stdout__.write("first stdout\\n")

shout("import")

@dataclass(frozen=True)
class Options:
    x: int = 1

@hookimpl
def card():
    shout("card")
    return MethodCard("prints", Options, shares="persona")

@hookimpl
def fit(study):
    shout("fit")
    import atexit
    atexit.register(shout, "exit")
    return study.bare()

@hookimpl
def predict(study, prompts):
    shout("predict")
    return ["x" for _ in prompts]
'''
WORLD = "--set", "dialogues=2,1,1", "--personas", "3", "--quiet"


@pytest.fixture
def printer(tmp_path) -> Path:
    path = tmp_path / "prints.py"
    path.write_text(PRINTS)
    return path


def started(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from harness.cli import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, **more)


def test_json_is_alone_on_stdout_whatever_a_plugin_prints(printer, tmp_path):
    words = ["list", "methods", "--plugin", printer]
    plain, as_json = started(*words), started(*words, "--json")
    assert (plain.returncode, as_json.returncode) == (0, 0)
    assert "child" in plain.stdout
    rows = json.loads(as_json.stdout)
    assert "prints" in {row["name"] for row in rows}
    for said in ("python import", "raw", "child", "first stdout"):
        assert said in as_json.stderr


@pytest.mark.slow
@pytest.mark.long
def test_json_is_alone_on_stdout_of_a_run_to_its_end(printer, tmp_path):
    words = [
        "run",
        "--plugin",
        printer,
        "--method",
        "prints",
        "--baseline",
        "zero_shot",
        "--runs-dir",
        tmp_path / "runs",
    ]
    found = started(*words, *WORLD, "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["method"] == "prints"
    for said in ("python fit", "python predict", "python exit", "raw", "child"):
        assert said in found.stderr


def test_json_is_alone_in_this_process_too_and_stdout_is_given_back(printer, capfd):
    from harness.cli import main

    before = sys.stdout
    with pytest.raises(SystemExit) as ended:
        main(["list", "methods", "--plugin", str(printer), "--json"])
    assert not ended.value.code
    assert json.loads(capfd.readouterr().out)
    os.write(1, b"still here\n")
    print("here too")
    assert capfd.readouterr().out == "still here\nhere too\n"
    assert sys.stdout is before


def test_a_mistake_with_json_says_nothing_on_stdout_and_help_does(harness):
    code, out, err = harness("show", "nobody", "--json")
    assert (code, out) == (2, "")
    assert err
    assert "--samples" in harness("show", "--help", "--json")[1]


def test_a_reader_of_json_that_goes_away_is_no_fault(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", "from harness.cli import main; main()", "list", "metrics", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    assert process.stderr.read() == ""
    assert process.wait(60) == 0


def test_errors_notes_and_progress_are_clean(harness, tmp_path, put):
    from harness.progress import Progress

    evil = "a\x1b]0;t\x07\u202eb\nharness: all is well"
    source = ["--method", "m", "--benchmark", "b", "--metric", "similarity", "--example-set", "s"]
    asked = [["show", evil], ["run", "--method", evil], ["run", "--config", evil], ["leaderboard", "--format", evil]]
    for words in (*asked, ["import", tmp_path / evil, *source]):
        code, out, err = harness(*words)
        assert (code, out) == (2, "")
        assert not hidden(err), words
        assert not [line for line in err.splitlines()[1:] if line.startswith("harness: ")], "no line is forged"
    for mode in ("lines", "bars"):
        stream = io.StringIO()
        clock = itertools.count(0, 100)
        progress = Progress(mode, stream, lambda clock=clock: float(next(clock)))
        progress.note(evil)
        with progress.task(evil, 10, "steps") as advance:
            advance.to(5, 10, evil)
        written = stream.getvalue()
        assert "\x1b]0" not in written
        assert "\u202e" not in written
        assert "\\u202eb" in written


def test_a_plugin_cannot_steer_the_terminal(harness, tmp_path):
    path = tmp_path / "colours.py"
    path.write_text(
        PRINTS.replace('print("python", where)', 'print("\\x1b[31m\\u202e")').replace("subprocess.run", "id")
    )
    code, out, _ = harness("list", "methods", "--plugin", path)
    assert code == 0
    assert not hidden(out)
