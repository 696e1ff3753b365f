"""Property-based: whatever stands in a file or after a flag, a command is done or says in a few lines what is wrong.

Valid files with one thing broken, and random text and bytes. A sample runs by default, thousands with `-m attack`.
Every command gets as far as the backbone, which is not there: what is tried here is all that is read before.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from harness.cli import main
from harness.config.run_config import SETTINGS

SAMPLE, MANY = 6, 450  # cases of a property: by default, and with -m attack
NOWHERE = "./no_backbone_here"
Text = st.text(st.characters(exclude_categories=[]), max_size=30)


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """A folder of its own, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def call(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command in this process; the streams take what a terminal's take."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]  # pyright: ignore[reportAttributeAccessIssue]
    return int(code or 0), texts[0], texts[1]  # pyright: ignore[reportPossiblyUnboundVariable]


def sound(*arguments: str) -> tuple[int, str]:
    """The property. Returns exit code and stdout of a command that has it."""
    code, out, err = call(*arguments)
    assert code in (0, 2), err
    assert "Traceback" not in err
    assert not re.search(r"\.py:\d+: \w+: ", err), f"an exception of a shipped plugin, not a word on the file: {err}"
    assert len(err.splitlines()) <= 60
    if code:
        lines = [line for line in err.split("\n") if not line.startswith("note: ")]
        assert lines[0].startswith("harness: "), err
        assert len(lines[0]) > len("harness: x")
        assert not out, "a command that fails prints no half result"
    return code, out


def cases(strategy: st.SearchStrategy[Any], check: Callable[[Any], object], count: int) -> None:
    """Try `check` on so many cases: always the same few by default, others each time when there are many."""

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=count <= SAMPLE,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(strategy)
    def holds(case: Any) -> None:
        check(case)

    holds()


counts = pytest.mark.parametrize(
    "count", [SAMPLE, pytest.param(MANY, marks=[pytest.mark.attack, pytest.mark.timeout(0)])]
)

# ---- what is wrong ----

NUMBERS = st.one_of(
    st.integers(-3, 3), st.integers(), st.sampled_from([10**30, -(10**400), 2**63, 1e308, -0.0, 5e-324]), st.floats()
)
SPELLED = st.sampled_from(
    ["", "~", "null", "true", "no", "1e999", "-1", "0x10", ".5", "1_000", "١٢", "NaN", ".inf", "[", "]", "{", "}", "{a",
     "a: b", "*a", "&a b", "!!python/object:os.system x", "\0", "\x1b[31m", "\u202e", "\ud800", "a" * 300, "../..", "/",
     "~nobody", "1..5", "1..", "a,a", ",", "5..1", "&", "%", "@", "'", '"', "\\", "\t", "\r", "\n", "---", "..."]
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, Text, SPELLED),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(Text, SPELLED), inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def damaged(draw: Any, whole: st.SearchStrategy[str]) -> bytes:
    """A valid text with one thing broken, as bytes."""
    text = draw(whole).encode()
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 30)))
    how = draw(st.sampled_from(["as it is", "cut", "put", "twice", "ends", "bytes", "deep"]))
    match how:
        case "cut":
            return text[:start] + text[end:]
        case "put":
            return text[:start] + draw(st.one_of(Text, SPELLED)).encode("utf-8", "replace") + text[end:]
        case "twice":
            return text[:end] + text[start:]
        case "ends":
            return text[:start]
        case "bytes":
            return text[:start] + draw(st.binary(max_size=5)) + text[end:]
        case "deep":
            return text[:start] + draw(st.sampled_from([b"[", b'{"a":', b"- "])) * 3000 + text[end:]
    return text


def one_wrong(whole: dict[str, Any], keys: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with one more value, or another one, at any of its levels."""

    @st.composite
    def build(draw: Any) -> dict[str, Any]:
        found = json.loads(json.dumps(whole))
        place: Any = found
        while isinstance(place, dict | list) and place:
            names = list(place) if isinstance(place, dict) else list(range(len(place)))
            name = draw(st.sampled_from(names))
            if not isinstance(place[name], dict | list) or draw(st.booleans()):
                break
            place = place[name]
        if isinstance(place, dict) and draw(st.booleans()):
            place[draw(keys)] = draw(VALUES)
        elif place and draw(st.booleans()):
            place[name] = draw(VALUES)
        elif place:
            del place[name]
        return found

    return build()


def as_text(value: Any) -> str:
    """JSON, which is YAML too; a surrogate stays escaped."""
    return json.dumps(value, indent=1)


def files(whole: list[dict[str, Any]], keys: list[str]) -> st.SearchStrategy[bytes]:
    """Files like these with one thing broken, and files of anything."""
    known = st.one_of(st.sampled_from(keys), Text, SPELLED)
    broken = st.one_of(*(one_wrong(one, known) for one in whole)).map(as_text)
    return st.one_of(
        broken.map(str.encode), damaged(broken), Text.map(lambda t: t.encode("utf-8", "replace")), st.binary()
    )


# ---- configurations ----

DATA = [
    {"persona_id": f"p{p}", "prompt": f"say {p * 9 + i}", "reply": str(1 + (p + i) % 5), "item": f"i{i}"}
    for p in range(3)
    for i in range(6)
]
CONFIG = {
    "method": "persona_prefix", "benchmark": "jsonl", "baseline": "unified", "seed": 1, "personas": 2, "threads": 2,
    "runs_dir": "runs", "texts": True, "margin": 1.5, "dtype": "float32",
    "set": {"data": "data.jsonl", "metrics": ["exact_match"], "choices": "1..5", "splits": ".6/.2/.2",
            "prompt": {"tokens": 4}, "train": {"epochs": 2, "learning_rate": 0.01}, "max_new_tokens": 8},
}  # fmt: skip
OPTIONS = [
    "epochs", "train.epochs", "tokens", "prompt.init", "kind", "text", "learning_rate", "clip", "warmup", "patience",
    "schedule", "microbatch_tokens", "data", "fields.prompt", "choices", "split", "splits", "split_seed", "at_least",
    "metrics", "profile", "system", "turns", "max_new_tokens", "max_prompt_tokens", "limit_personas", "decision",
    "holdout_personas", "unified.rank", "unified.train.epochs", "method.tokens", "protocol.turns", "benchmark.turns",
]  # fmt: skip


def write_data() -> None:
    Path("data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in DATA))


@counts
def test_configurations(count):
    write_data()

    def check(content: bytes) -> None:
        Path("c.yaml").write_bytes(content)
        sound("run", "--config", "c.yaml", "--backbone", NOWHERE, "--quiet")

    cases(files([CONFIG], [*SETTINGS, *OPTIONS, "set", "examples"]), check, count)


@counts
def test_values_of_set(count):
    write_data()
    Path("c.yaml").write_text(as_text(CONFIG))
    keys = st.one_of(st.sampled_from(OPTIONS), Text, SPELLED)
    values = st.one_of(VALUES.map(str), VALUES.map(json.dumps), Text, SPELLED)
    words = st.one_of(st.builds("{}={}".format, keys, values), Text, SPELLED).filter(lambda word: "\0" not in word)

    def check(given: list[str]) -> None:
        sets = [word for one in given for word in ("--set", one)]
        sound("run", "--config", "c.yaml", "--backbone", NOWHERE, "--quiet", *sets)

    cases(st.lists(words, min_size=1, max_size=3), check, count)


@counts
def test_flags(count):
    write_data()
    Path("c.yaml").write_text(as_text(CONFIG))
    names = [f"--{name.replace('_', '-')}" for name in SETTINGS if name not in ("texts", "runs_dir", "backbone")]
    values = st.one_of(VALUES.map(str), Text, SPELLED).filter(lambda word: "\0" not in word)

    def check(given: list[tuple[str, str]]) -> None:
        flags = [word for pair in given for word in pair]
        sound("run", "--config", "c.yaml", "--backbone", NOWHERE, "--quiet", *flags)

    pairs = st.tuples(st.sampled_from([*names, "--config", "--plugin", "--set"]), values)
    cases(st.lists(pairs, min_size=1, max_size=2), check, count)


# ---- sweeps, plans, tunings ----

SHARED = {key: value for key, value in CONFIG.items() if key not in ("method", "seed", "set")} | {
    "backbone": NOWHERE, "set": {"data": "data.jsonl", "metrics": ["exact_match"]}
}  # fmt: skip
SWEEP = {**SHARED, "seeds": [0, 1], "methods": [
    "zero_shot", {"method": "persona_prefix", "label": "small", "set": {"tokens": 2}, "control": "swapped"}
]}  # fmt: skip
PLAN = {
    **SHARED,
    "phases": [
        {"name": "one", "persona": ["p0"], "method": "persona_prefix", "set": {"tokens": 2},
         "gates": [{"beats": "unified"}, {"reference": 50, "source": "somewhere"}],
         "published": {"score": 1.5, "source": "there"}, "if_failed": "go on"},
        {"cluster": 0, "method": "zero_shot", "gates": [{"reference": 1}]},
    ],
    "fallbacks": ["zero_shot", {"control": "global"}],
    "bands": [{"from": 0, "to": 50, "name": "low"}, {"from": 50, "to": 100, "name": "high"}],
}  # fmt: skip
TUNING = {
    **SHARED, "trials": 3, "sampler": "tpe", "pruner": "median", "tuning_personas": 1,
    "methods": [{"method": "persona_prefix", "space": {"tokens": [2, 4], "learning_rate": {"low": 1e-4, "high": 0.1,
                 "log": True}, "epochs": None}}],
    "parts": [{"benchmark": "jsonl", "set": {"data": "data.jsonl"}}],
}  # fmt: skip
ENTRY = [
    *("label", "control", "set", "method", "space", "low", "high", "log", "choices", "name", "gates", "beats", "parts"),
    *("methods", "phases", "fallbacks", "bands", "seeds", "trials", "sampler", "pruner", "tuning_personas"),
]


@counts
@pytest.mark.parametrize("kind", ["sweep", "plan"])
def test_sweeps_and_plans(kind, count):
    write_data()

    def check(content: bytes) -> None:
        Path("s.yaml").write_bytes(content)
        sound("sweep", "s.yaml", "--dry-run", "--quiet")

    cases(files([SWEEP if kind == "sweep" else PLAN], [*SETTINGS, *OPTIONS, *ENTRY]), check, count)


@counts
def test_tunings(count):
    write_data()

    def check(content: bytes) -> None:
        Path("t.yaml").write_bytes(content)
        sound("tune", "t.yaml", "--backbone", NOWHERE, "--quiet")

    cases(files([TUNING], [*SETTINGS, *OPTIONS, *ENTRY]), check, count)


# ---- data ----


def lines(whole: list[dict[str, Any]], keys: list[str]) -> st.SearchStrategy[bytes]:
    """JSON lines, one of which is broken, or anything."""
    one = files(whole[:1], keys)

    def among(line: bytes, place: int) -> bytes:
        good = [json.dumps(item).encode() for item in whole]
        return b"\n".join([*good[:place], line.replace(b"\n", b" "), *good[place:]])

    return st.one_of(st.builds(among, one, st.integers(0, len(whole))), one)


TALK = [{"role": "user", "text": "warmer"}, {"role": "assistant", "text": "21 degrees"}]
DIALOGUES = [{"persona_id": f"p{i}", "messages": TALK, "dialogue_idx": 0, "split": "train"} for i in range(9)]
JOKES = "1,a joke\n2,another joke\n3,a third joke\n"
TABLE = "instance_id,user_id,text,offensiveness,gender\n" + "".join(
    f"{i},{u}.0,comment {i},{1 + (i + u) % 5}.0,x\n" for u in range(2) for i in range(50)
)
JESTER = "".join(f"3,{p}.5,-3.2,9\n" for p in range(4))
LAMP = {"input": "Write a title", "output": "A title", "profile": [
    {"id": str(i), "title": f"t {i}", "abstract": f"a {i}"} for i in range(5)
]}  # fmt: skip
XML = "<debate>{}</debate>".format(
    "".join(
        f"<annotatedArgumentPair><id>{i}</id><debateMetaData><title>t</title></debateMetaData>"
        "<arg1><text>one</text><stance>s</stance></arg1><arg2><text>two</text></arg2><mTurkAssignments>"
        "<mTurkAssignment><turkID>j</turkID><reason>because</reason><value>a1</value></mTurkAssignment>"
        "</mTurkAssignments></annotatedArgumentPair>"
        for i in range(5)
    )
)
FIELDS = [
    *(
        "persona_id",
        "prompt",
        "reply",
        "messages",
        "role",
        "text",
        "content",
        "description",
        "context",
        "item",
        "split",
    ),
    *("dialogue_idx", "profile", "input", "output", "id", "title", "abstract"),
]
WHOLE = {
    "jsonl": DATA, "jsonl of choices": DATA, "edgewise": DIALOGUES, "answers": DATA, "lamp in lines": [LAMP],
}  # fmt: skip
SOURCES: dict[str, tuple[str, str, st.SearchStrategy[bytes], list[str]]] = {
    "jsonl": ("jsonl", "x.jsonl", lines([*DATA, *DIALOGUES], FIELDS), ["metrics=exact_match"]),
    "jsonl of choices": ("jsonl", "x.jsonl", lines(DATA, FIELDS), ["metrics=accuracy", "choices=1..5", "split=item"]),
    "edgewise": ("edgewise", "x.jsonl", lines(DIALOGUES, FIELDS), []),
    "answers": ("jokes", "x.jsonl", lines(DATA, FIELDS), ["at_least=1"]),
    "lamp": ("lamp", "x.json", files([LAMP], FIELDS).map(lambda b: b"[" + b + b"]"), ["task=LaMP_5"]),
    "lamp in lines": ("lamp", "x.jsonl", lines([LAMP], FIELDS), ["task=LaMP_1", "at_least=1"]),
    "lamp in parquet": ("lamp", "x.parquet", st.one_of(st.binary(), st.binary().map(lambda b: b"PAR1" + b + b"PAR1")),
                        ["task=LaMP_1"]),
    "offensiveness": ("offensiveness", "x.csv", damaged(st.just(TABLE)), ["at_least=3"]),
    "jokes": ("jokes", "x.csv", damaged(st.just(JESTER)), ["at_least=1", "texts=texts.csv"]),
    "texts of jokes": ("jokes", "texts.csv", damaged(st.just(JOKES)),
                       ["at_least=1", "texts=texts.csv"]),
    "jokes in a sheet": ("jokes", "x.xls", st.one_of(st.binary(), st.binary().map(lambda b: bytes.fromhex(
                         "d0cf11e0a1b11ae1") + b)), ["at_least=1", "texts=texts.csv"]),
    "convincing": ("convincing", "x.xml", damaged(st.just(XML)), ["at_least=1", "decides=choice_accuracy"]),
}  # fmt: skip


@counts
@pytest.mark.parametrize("name", SOURCES)
def test_data(name, count):
    benchmark, file, contents, sets = SOURCES[name]
    Path("texts.csv").write_text(JOKES)
    Path("x.csv").write_text(JESTER)
    data = "x.csv" if file == "texts.csv" else file
    flags = [word for one in [f"data={data}", *sets] for word in ("--set", one)]

    def check(content: bytes) -> None:
        Path(file).write_bytes(content)
        sound("run", "--method", "zero_shot", "--benchmark", benchmark, "--backbone", NOWHERE, "--quiet", *flags)

    cases(contents, check, -(-count // 2))


Said = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(40, marks=[pytest.mark.attack, pytest.mark.timeout(0)])])
def test_data_with_any_texts_are_run_to_the_end(count):
    def check(case: tuple[list[tuple[str, str, str]], int]) -> None:
        said, seed = case
        rows = [
            {"persona_id": who, "prompt": ask, "reply": reply, "dialogue_idx": f"{place} {split}", "split": split}
            for place, (who, ask, reply) in enumerate(said)
            for split in ("train", "validation", "test")
        ]
        Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        code, _ = sound(
            "run", "--method", "zero_shot", "--baseline", "zero_shot", "--benchmark", "jsonl", "--quiet",
            "--seed", str(seed), "--set", "data=x.jsonl", "--set", "metrics=exact_match,rouge_l",
            "--set", "max_new_tokens=2", "--set", "profile=true",
        )  # fmt: skip
        assert code == 0

    cases(
        st.tuples(st.lists(st.tuples(Said, Said, Said), min_size=1, max_size=3), st.integers(0, 10**20)), check, count
    )


# ---- scores that were made elsewhere ----

SCORES = [{"persona": f"p{i}", "example": f"e{j}", "score": 0.5} for i in range(2) for j in range(3)]
CSV = "persona,example,score\n" + "".join(f"p{i},e{j},0.{j}\n" for i in range(2) for j in range(3))
MEANS = "persona,n,score\n" + "".join(f"p{i},{i + 1},0.5\n" for i in range(3))
IMPORTED = ["--method", "theirs", "--benchmark", "b", "--example-set", "s"]


@counts
@pytest.mark.parametrize("kind", ["csv", "means", "json lines", "anything"])
def test_imports(kind, count):
    columns = ["persona", "example", "n", "score"]
    contents = {
        "csv": damaged(st.just(CSV)),
        "means": damaged(st.just(MEANS)),
        "json lines": lines(SCORES, columns),
        "anything": st.one_of(st.binary(), files(SCORES, columns), st.binary().map(lambda b: b"PAR1" + b + b"PAR1")),
    }[kind]
    units = [["similarity"], ["similarity", "--unit", "pt"], ["odd", "--unit", "raw", "--higher-is-better"]]
    number = iter(range(10**9))

    def check(case: tuple[bytes, list[str]]) -> None:
        content, metric = case
        Path("scores").write_bytes(content)
        folder = f"runs{next(number)}"
        code, _ = sound("import", "scores", *IMPORTED, "--metric", *metric, "--runs-dir", folder)
        if code == 0:
            _, out = sound("list", "runs", "--runs-dir", folder, "--json")
            (run,) = json.loads(out)
            assert sound("show", run["run"], "--runs-dir", folder)[0] == 0

    cases(st.tuples(contents, st.sampled_from(units)), check, count)


# ---- records ----


@counts
def test_records_of_anything(count, put):
    """Records that are nearly sound are tried elsewhere."""
    run = put("theirs", [0.5, 0.75, 0.25], n=4)
    path = run.path / "run.json"
    text = path.read_bytes()
    keys = st.one_of(st.sampled_from(list(json.loads(text))), Text, SPELLED)
    versions = st.one_of(st.sampled_from([1, 2, 3]), VALUES)
    values = st.one_of(
        VALUES, st.builds(lambda found, version: {**found, "schema_version": version},
                          st.dictionaries(keys, VALUES, max_size=4), versions)
    )  # fmt: skip
    contents = st.one_of(
        values.map(as_text).map(str.encode),
        st.integers(0, len(text) - 20).map(lambda end: text[:end]),
        st.binary(),
        st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b'"\\ud800"', b"1" * 10_000, b"1e999"]),
    )

    def check(content: bytes) -> None:
        path.write_bytes(content)
        for words in (["list", "runs"], ["show", "theirs"]):
            sound(*words, "--runs-dir", str(run.path.parent))
            sound(*words, "--runs-dir", str(run.path.parent), "--json")

    cases(contents, check, count)


# ---- the property itself ----


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (CONFIG, ["run", "--config", "f", "--backbone", NOWHERE]),
        (SWEEP, ["sweep", "f", "--dry-run"]),
        (PLAN, ["sweep", "f", "--dry-run"]),
        (TUNING, ["tune", "f"]),
    ],
)
def test_what_is_not_broken_gets_as_far_as_the_backbone(file, words):
    write_data()
    Path("f").write_text(as_text(file))
    code, _, err = call(*words)
    assert (code, err.partition(";")[0]) == (2, f"harness: backbone folder '{NOWHERE}' does not exist")


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.endswith(("parquet", "sheet"))])
def test_so_do_data(name):
    benchmark, file, _, sets = SOURCES[name]
    whole = {
        "x.csv": TABLE if name == "offensiveness" else JESTER, "texts.csv": JOKES, "x.xml": XML,
        "x.json": as_text([LAMP]), "x.jsonl": "".join(json.dumps(line) + "\n" for line in WHOLE.get(name, [])),
    }  # fmt: skip
    for place in ("x.csv", "texts.csv", file):
        Path(place).write_text(whole[place])
    data = "x.csv" if file == "texts.csv" else file
    flags = [word for one in [f"data={data}", *sets] for word in ("--set", one)]
    code, _, err = call("run", "--method", "zero_shot", "--benchmark", benchmark, "--backbone", NOWHERE, *flags)
    assert (code, err.partition(";")[0]) == (2, f"harness: backbone folder '{NOWHERE}' does not exist")


def test_the_property_notices_a_bug(monkeypatch):
    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(sys.modules["harness.cli"], "app", fails)
    with pytest.raises(AssertionError):
        sound("list")
