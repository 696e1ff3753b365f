"""Sweeps: faults with file and line, shared fits, resumption, a failing method, the joint table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.compare.guard import Family, comparison_rows
from harness.config.run_config import shipped
from harness.contract.plugins import list_plugins, load_plugin
from harness.errors import ConfigError
from harness.runs.stored import all_runs
from harness.sweeps.plan_file import load_plan
from harness.sweeps.sweep import Made, Order, Scope, joint_rows
from harness.sweeps.sweep_file import Entry, load_sweep, open_reader

CONFIGS = Path(__file__).parents[2] / "configs"


def options_of(kind, name):
    return load_plugin(kind, name).card.options


# ---- the file ----


FAULTY = """benchmark: smarthome
baseline: unifid
seeds: [0, 0]
methodes: []
set: {tokens: 5, dialogues: [4, 2, 2]}
methods:
  - zero_shott
  - {method: persona_prefix, labl: x}
  - method: persona_prefix
    set:
      tokns: 3
  - persona_prefix
  - {method: persona_prefix, label: zero_shot}
  - {method: persona_prefix, control: swaped}
  - {set: {tokens: 3}}
"""


def test_every_fault_comes_at_once_with_file_and_line(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(FAULTY)
    with pytest.raises(ConfigError) as caught:
        load_sweep(open_reader(path, options_of), {"personas": "none"})
    text = str(caught.value)
    for line, words in (
        (2, "did you mean 'unified'?"),
        (3, "a seed occurs twice"),
        (4, "unknown key 'methodes' of a sweep; did you mean 'methods'?"),
        (5, "unknown option 'tokens'"),
        (7, "did you mean 'zero_shot'?"),
        (8, "unknown key 'labl' of a method; did you mean 'label'?"),
        (11, "unknown option 'tokns'; did you mean 'tokens'?"),
        (13, "is the same run as 'persona_prefix'"),
        (14, "did you mean 'swapped'?"),
        (15, "name a method"),
    ):
        assert any(f"f.yaml:{line}: " in fault and words in fault for fault in text.splitlines()), (line, words, text)
    assert "--personas: personas = none" in text
    assert "under that method's own 'set:'" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nseeds: [0]\nmethods: [zero_shot]\n", "f.yaml:1: seed and seeds"),
        ("seeds: [-1]\nmethods: [zero_shot]\n", "f.yaml:1: seeds"),
        ("seeds: []\nmethods: [zero_shot]\n", "f.yaml:1: seeds"),
        ("method: zero_shot\nmethods: [zero_shot]\n", "f.yaml:1: 'method' belongs to a single run"),
        ("baseline: null\nmethods: [zero_shot]\n", "f.yaml:1: a sweep compares with a baseline"),
        ("personas: 6\n", "'methods' must be a list"),
        ("methods: []\n", "f.yaml:1: 'methods' must be a list"),
        ("methods:\n  - {method: zero_shot, set: {turns: last}}\n", "f.yaml:2: the protocol is the same for all"),
        ("methods:\n  - {method: zero_shot, set: {dialogues: [1, 1, 1]}}\n", "f.yaml:2: unknown option 'dialogues'"),
        ("methods:\n  - {method: zero_shot, label: unified}\n", "label 'unified' is the baseline's"),
        (
            "methods:\n  - {method: persona_prefix, label: a}\n  - {method: zero_shot, label: a}\n",
            "f.yaml:3: the label 'a' is taken (f.yaml:2)",
        ),
    ],
)
def test_a_fault_names_its_line(tmp_path, text, words):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_sweep(open_reader(path, options_of), {})
    assert words in str(caught.value).replace(f"{tmp_path}/", "")


def test_entries_carry_their_options_controls_and_labels_and_share_the_rest(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(
        "personas: 7\nthreads: 1\ncontrol: global\nset: {dialogues: [4, 2, 2]}\nmethods:\n  - zero_shot\n"
        "  - {method: persona_prefix, set: {tokens: 5, train: {epochs: 1}}}\n"
        "  - {method: persona_prefix, label: mine, control: null}\n"
    )
    sweep = load_sweep(open_reader(path, options_of), {"seeds": "2,1", "personas": None})
    assert [e.label for e in sweep.entries] == [
        "zero_shot (control: global)", "persona_prefix tokens=5 train.epochs=1 (control: global)", "mine",
    ]  # fmt: skip
    assert [e.config.control for e in sweep.entries] == ["global", "global", None]
    assert sweep.entries[1].config.method_options.prompt.tokens == 5
    assert sweep.entries[1].config.method_options.train.epochs == 1
    assert {(e.config.personas, e.config.threads, e.config.benchmark_options) for e in sweep.entries} == {
        (7, 1, sweep.shared.benchmark_options)
    }
    assert sweep.shared.benchmark_options.dialogues == (4, 2, 2)
    assert sweep.seeds == (2, 1)
    assert sweep.baseline.label == sweep.shared.method
    assert sweep.baseline.config.control is None


def test_options_of_the_base_are_everybodys_or_an_entrys_own(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(
        "set: {unified: {epochs: 3}}\nmethods:\n  - persona_prefix\n"
        "  - {method: persona_prefix, set: {unified.learning_rate: 2e-3}}\n"
    )
    sweep = load_sweep(open_reader(path, options_of), {})
    assert sweep.baseline.config.method_options.train.epochs == 3
    first, second = (entry.config.recipe.others["unified"].train for entry in sweep.entries)
    assert (first.epochs, second.epochs, second.learning_rate) == (3, 3, 2e-3)
    assert first.learning_rate == sweep.baseline.config.method_options.train.learning_rate
    assert sweep.entries[1].label == "persona_prefix unified.learning_rate=2e-3"
    assert len({entry.identity for entry in sweep.entries}) == 2


def test_a_listed_baseline_is_one_row_under_its_own_label(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("methods:\n  - {method: unified, label: yardstick}\n  - zero_shot\n")
    sweep = load_sweep(open_reader(path, options_of), {})
    assert sweep.baseline is sweep.entries[0]
    assert sweep.baseline.label == "yardstick"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sweep_and_plan_parses_and_its_first_line_is_its_command(path):
    values = shipped(path.stem).values
    if not {"methods", "phases"} & set(values) or "trials" in values:
        pytest.skip("not a sweep")
    assert path.read_text().splitlines()[0] == f"# harness sweep configs/{path.name}"
    for file in (path.stem, path):
        reader = open_reader(file, options_of)
        assert (load_plan if "phases" in values else load_sweep)(reader, {}).shared.method == "unified"


def test_the_quick_sweep_has_every_method():
    sweep = load_sweep(open_reader("quick", options_of), {})
    ours = {item.name for item in list_plugins("method") if item.distribution == "personalisation-harness"}
    ours = ours or {item.name for item in list_plugins("method")}
    assert {entry.config.method for entry in sweep.entries} == ours


@pytest.mark.parametrize(
    ("file", "words"),
    [("quik", "did you mean 'quick'?"), ("no_such.yaml", "no_such.yaml: No such file")],
)
def test_a_file_that_is_not_there(sweep_lab, file, words):
    with pytest.raises(SystemExit) as ended:
        main(["sweep", file])
    assert ended.value.code == 2
    assert words in sweep_lab.capsys.readouterr().err


# ---- the table ----


def made_of(entry: Entry, *runs) -> list[Made]:
    return [Made(Order(entry, run.record.seed, Scope()), run) for run in runs]


def entry_of(label: str) -> Entry:
    sweep = load_sweep(open_reader("quick", options_of), {})
    return Entry(label, sweep.shared)


def test_the_joint_table_is_comparison_rows_with_seeds_as_one_family(tmp_path, stored):
    import numpy as np

    noise = np.random.default_rng(1).normal(0, 0.02, (8, 24))
    base, one, two = entry_of("base"), entry_of("one"), entry_of("two")
    runs = {
        "base": [stored(tmp_path, "base", 0.8 + noise[s], seed=s) for s in (0, 1)],
        "one": [stored(tmp_path, "one", 0.82 + noise[2 + s], seed=s) for s in (1, 0)],
        "two": [stored(tmp_path, "two", 0.81 + noise[4 + s], seed=s) for s in (0, 1)],
    }
    made = [m for e in (base, one, two) for m in made_of(e, *runs[e.label])]
    rows = joint_rows(base, (one, base, two), made)
    families = {name: Family(name, tuple(sorted(r, key=lambda x: x.record.seed))) for name, r in runs.items()}
    own, expected = comparison_rows(families["base"], [families["one"], families["two"]])
    assert [row.score for row in rows] == [expected[0], own, expected[1]]
    assert expected[0].family_size == 2
    assert rows[0].family is not None
    assert [run.record.seed for run in rows[0].family.runs] == [0, 1]


def test_a_failed_baseline_leaves_scores_without_comparison_and_a_failed_seed_is_kept_apart(tmp_path, stored):
    base, one = entry_of("base"), entry_of("one")
    lost = Made(Order(base, 0, Scope()), None, error="ValueError: x")
    rows = joint_rows(base, (base, one), [lost, *made_of(one, stored(tmp_path, "one", [0.5] * 8))])
    assert rows[0].family is None
    assert rows[0].failed == (lost,)
    assert rows[1].score is not None
    assert rows[1].comparison is None
    half = [*made_of(base, stored(tmp_path, "base", [0.4] * 8, seed=1)), lost]
    rows = joint_rows(base, (base, one), [*half, *made_of(one, stored(tmp_path, "one", [0.5] * 8))])
    assert rows[0].failed == (lost,)
    assert rows[1].comparison is not None
    assert rows[1].comparison.baseline_seeds == (1,)


# ---- the command ----


@pytest.mark.slow
def test_a_sweep_ends_with_the_joint_table_and_again_everything_comes_from_the_store(sweep_lab):
    sweep_lab.method("plain", 0.3)
    sweep_lab.method("sharp", 0.9)
    text = "baseline: plain\nmethods:\n  - sharp\n  - {method: sharp, set: {right: 0.35}, label: dull}\n"
    code, found = sweep_lab.json(text, "--seeds", "0,1")
    assert code == 0
    assert [row["label"] for row in found["rows"]] == ["sharp", "dull", "plain"]
    assert [len(row["runs"]) for row in found["rows"]] == [2, 2, 2]
    assert [run["status"] for run in found["runs"]] == ["made"] * 6
    runs = {run.id: run for run in all_runs(sweep_lab.runs)}
    families = [Family(row["label"], tuple(runs[i] for i in row["runs"])) for row in found["rows"]]
    _, (sharp, dull) = comparison_rows(families[2], families[:2])
    for row, expected in zip(found["rows"], (sharp, dull), strict=False):
        assert row["p_adj"] == expected.p_adj
        assert row["sim_ci"] == list(expected.sim_ci_pts or ())
        assert row["verdict"] == expected.verdict
    assert found["rows"][0]["verdict"].startswith("better than plain by ")
    assert "conditional on one training seed" not in found["rows"][0]["verdict"]

    before = {path: path.read_bytes() for path in sweep_lab.runs.glob("*/*.json*")}
    code, again = sweep_lab.json(text, "--seeds", "0,1")
    assert code == 0
    assert [run["status"] for run in again["runs"]] == ["stored"] * 6
    assert again["rows"] == found["rows"]
    assert {path: path.read_bytes() for path in sweep_lab.runs.glob("*/*.json*")} == before
    assert sorted(sweep_lab.fits("sharp")) == ["0", "0", "1", "1"], "two options, two seeds, each fitted once"

    code, out, _ = sweep_lab.call(text, "--quiet", "--dry-run", "--seeds", "0,1,2")
    assert code == 0
    assert "9 runs: 6 stored, 3 to make" in out
    assert len(sweep_lab.fits("sharp")) == 4, "a dry run makes nothing"
    _, out, err = sweep_lab.call(text)
    assert "sharp: better than plain by " in out
    assert "run 2 of 3: sharp, seed 0; stored" in err
    assert "7 personas" in out


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_with_what_is_stored(sweep_lab):
    sweep_lab.method("plain", 0.3)
    sweep_lab.method("stops", 0.6, sweep_lab.stops_once)
    text = "baseline: plain\nmethods: [stops]\n"
    code, out, err = sweep_lab.call(text, "--quiet", "--json")
    assert code == 130
    assert out == ""
    assert "the same command goes on" in err
    (first,) = (run for run in all_runs(sweep_lab.runs) if run.complete)
    assert first.record.method == "plain"
    files = {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()}
    code, out, _ = sweep_lab.call(text, "--quiet", "--dry-run")
    assert "started, continues where it stopped" in out
    code, found = sweep_lab.json(text)
    assert code == 0
    assert [(run["label"], run["status"]) for run in found["runs"]] == [("plain", "stored"), ("stops", "made")]
    assert found["runs"][0]["run"] == first.id
    assert {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()} == files
    assert sweep_lab.fits("plain") == ["0"]


@pytest.mark.slow
def test_a_method_that_fails_gets_a_flagged_row_and_the_others_go_on(sweep_lab):
    sweep_lab.method("plain", 0.3)
    sweep_lab.method("broken", 0.6, "raise ZeroDivisionError('one by none')")
    sweep_lab.method("vandal", 0.6, "next(study.backbone.model.parameters()).data.add_(1)")
    sweep_lab.method("sharp", 0.9)
    text = "baseline: plain\nmethods: [broken, vandal, sharp]\n"
    code, found = sweep_lab.json(text)
    assert code == 2
    rows = {row["label"]: row for row in found["rows"]}
    assert rows["broken"]["status"] == "failed"
    why = "method 'broken', fit: broken.py:21: ZeroDivisionError: one by none"
    assert rows["broken"]["errors"] == [{"seed": 0, "error": why}]
    assert "changed the frozen backbone" in rows["vandal"]["flags"][0]
    assert rows["sharp"]["verdict"].startswith("better than plain")
    assert rows["sharp"]["comparison"]["family_size"] == 1
    code, out, _ = sweep_lab.call(text, "--quiet")
    assert code == 2
    assert f"failed: broken, seed 0: {why}" in out
    assert sweep_lab.fits("broken") == ["0", "0"], "what failed is tried again"
    assert sweep_lab.fits("sharp") == ["0"]


@pytest.mark.slow
def test_a_runs_id_and_scores_are_those_that_run_gives_alone(sweep_lab):
    """Other methods and the shared session leave no trace in a run."""
    sweep_lab.method("plain", 0.3)
    sweep_lab.method("sharp", 0.9)
    _, found = sweep_lab.json("baseline: plain\nmethods: [sharp]\n", "--seeds", "1")
    alone = sweep_lab.folder / "alone"
    plugins = [word for path in sweep_lab.plugins for word in ("--plugin", str(path))]
    data = [
        "--set",
        f"data={sweep_lab.folder / 'data.jsonl'}",
        "--set",
        "metrics=exact_match",
        "--set",
        "splits=1/1/23",
    ]
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("run", "--method", "sharp", "--baseline", "plain", "--benchmark", "jsonl", "--seed", "1"),
                *plugins,
                *data,
                *("--runs-dir", str(alone), "--json", "--quiet"),
            ]
        )
    assert not ended.value.code
    result = json.loads(sweep_lab.capsys.readouterr().out)
    (sharp,) = (row for row in found["rows"] if row["label"] == "sharp")
    assert sharp["runs"] == [result["run"]]
    assert sharp["p_adj"] == result["p_adj"]
    name = f"{result['run']}/replies.parquet"
    assert (alone / name).read_bytes() == (sweep_lab.runs / name).read_bytes()


@pytest.mark.parametrize("isolated", [True, False])
def test_a_file_says_whether_methods_are_isolated_before_their_code_is_imported(
    harness, tmp_path, monkeypatch, isolated
):
    """What a loose file does when it is imported must not happen in the process that holds the references."""
    (tmp_path / "mine.py").write_text("")
    for command, own in (("sweep", ""), ("tune", "trials: 2\n")):
        (tmp_path / f"{command}.yaml").write_text(f"isolate: {str(isolated).lower()}\nmethods: []\n{own}")
    asked: list[bool] = []

    def options_of(files: list[Path], isolate: bool = False) -> None:
        asked.append(isolate)
        raise ConfigError("stopped")

    monkeypatch.setattr("harness.commands.common.options_of", options_of)
    for command in ("sweep", "tune"):
        asked.clear()
        code, _, err = harness(command, tmp_path / f"{command}.yaml", "--plugin", tmp_path / "mine.py")
        assert (code, asked) == (2, [isolated]), err
