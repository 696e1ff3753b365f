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
import re
import shlex
import shutil
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.attack.mutations import HOME, RECORDS, Mutation, mutations, real

BASE = np.linspace(0.5, 0.8, 12)
NOISE = np.random.default_rng(3).normal(0, 0.02, len(BASE))
BAD = "bad-000000000001"
PAIRS = {"persona_prefix-70c3b9262b6b": "unified-547b24967bb8", "persona_prefix-6c57df398cfa": "unified-6336122c3c2c"}
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
    r"# Leaderboard|## \d+\. .*|### (Plots|Cost|Yardsticks|Also measured \(no tests\)|Flags|Protocol|How to reproduce)|"
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
        known = r"README\.md|index\.html|plots/[a-z0-9_-]+-[0-9a-f]{8}-\w+\.svg|records/[\w.-]+\.json"
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
    (tmp_path / "none").mkdir()
    assert harness("leaderboard", "--runs-dir", tmp_path / "none", "--output", tmp_path / "none" / "README.md")[0] == 0
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
    record, base = (toy(), "base-x-0") if name == "toy" else (real(name), PAIRS[name])
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
        except (AssertionError, Exception) as error:
            faults.append(f"{mutation.what}: {command}{' --json' if as_json else ''} ({place}): {str(error)[:300]}")
    assert not faults, f"{len(faults)} of {calls} calls:\n" + "\n".join(faults[:10])
    return calls


@pytest.mark.parametrize("name", ["toy", *PAIRS])
def test_a_sample_of_mutated_records_harms_nothing(lab, name):
    assert run_all(lab, planned(name, step=53, start=7, times=1)) >= 10


@pytest.mark.attack
@pytest.mark.parametrize("start", range(8))
@pytest.mark.parametrize("name", ["toy", *PAIRS])
def test_mutated_records_harm_nothing(lab, name, start):
    calls = run_all(lab, planned(name, step=8, start=start, times=1))
    print(f"{calls} calls")
    assert calls >= 68, "1 620 in all"
