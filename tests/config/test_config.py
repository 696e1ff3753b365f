"""Configuration: layers, typing of values, where an option goes, and all faults together."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, strategies as st
from pydantic import Field

from harness.adapters import SHARD
from harness.config.resolved import config_yaml
from harness.config.run_config import (
    RunConfig,
    default_values,
    help_examples,
    isolates,
    load_config,
    read_document,
    shipped,
)
from harness.config.yaml_file import parse
from harness.contract import SCORER, Plain, resolve
from harness.contract.options import option_types, read_value
from harness.errors import ConfigError, PluginError


@dataclass(frozen=True)
class Training:
    learning_rate: float = 1e-3
    epochs: int = 10


@dataclass(frozen=True)
class MethodOptions:
    tokens: int = 10
    init: Literal["random", "vocab_sample"] = "random"
    size: int = 1
    training: Training = field(default_factory=Training)

    def __post_init__(self):
        if self.tokens > 100:
            raise ValueError("tokens: at most 100")


@dataclass(frozen=True)
class BenchmarkOptions:
    data: str = ""
    choices: str = ""
    size: int = 2
    seed: int = 0
    personas: int | None = None


OPTIONS: Mapping[str, Mapping[str, type]] = {
    "method": {"prefix": MethodOptions, "other": Training},
    "benchmark": {"world": BenchmarkOptions},
}


def options_of(kind: str, name: str) -> type:
    if name not in OPTIONS[kind]:
        raise PluginError(f"there is no {kind} '{name}'")
    return OPTIONS[kind][name]


def load(*sets: str, file: Any = None, **flags: Any) -> RunConfig:
    return load_config(
        options_of=options_of, file=file, flags={"method": "prefix", "benchmark": "world", **flags}, sets=sets
    )


def faults_of(*sets: str, **flags: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*sets, **flags)
    return str(caught.value).splitlines()


def test_defaults_come_from_the_shipped_file():
    config, values = load(), default_values()
    assert config.baseline == values["baseline"]
    assert config.personas == values["personas"]
    assert config.method_options == MethodOptions()
    assert config.benchmark_options == BenchmarkOptions()
    assert config.shard_people == SHARD
    assert set(values) < set(RunConfig.__dataclass_fields__)
    assert help_examples()["run"].startswith("harness run --method ")


def test_later_layers_win(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("seed: 5\nthreads: 1\nset:\n  tokens: 4\n  init: vocab_sample\n  training: {epochs: 3}\n")
    config = load("tokens=6", file=file, seed=7)
    assert (config.seed, config.threads) == (7, 1)
    assert config.method_options == MethodOptions(6, "vocab_sample", 1, Training(epochs=3))


def test_values_get_the_types_of_the_option_dataclasses():
    config = load("learning_rate=3e-4", "choices=1..5", "data=007", "training.epochs=4")
    assert config.method_options.training == Training(3e-4, 4)
    assert (config.benchmark_options.choices, config.benchmark_options.data) == ("1..5", "007")


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("3e-4", float, 3e-4),
        ("3", float, 3.0),
        ("1e3", int, 1000),
        ("010", int, 10),
        ("1:30", str, "1:30"),
        ("no", str, "no"),
        ("null", int | None, None),
        ("true", bool, True),
        ("q_proj,v_proj", tuple[str, ...], ("q_proj", "v_proj")),
        ("q_proj", tuple[str, ...], ("q_proj",)),
        ("1,2", tuple[str, ...], ("1", "2")),
        ("1, 2", tuple[int, ...], (1, 2)),
        ("", tuple[str, ...], ()),
        ("2020-01-01", str, "2020-01-01"),
        ("7", str | None, "7"),
    ],
)
def test_unquoted_text_becomes_what_the_option_wants(text, hint, value):
    result = read_value(Plain(text), hint)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "hint", "message"),
    [
        ("true", int, "integer"),
        ("1.5", int, "integer"),
        ("nan", float, "finite"),
        (".inf", float, "number"),
        ("meen", Literal["mean", "median"], "did you mean 'mean'"),
    ],
)
def test_wrong_values_are_told_what_is_wanted(text, hint, message):
    with pytest.raises(ValueError, match=message):
        read_value(Plain(text), hint)


def test_an_option_of_both_plugins_must_say_which():
    assert faults_of("size=3") == ["--set size=3: 'size' is ambiguous; write method.size or benchmark.size"]
    config = load("method.size=3", "benchmark.size=4")
    assert (config.method_options.size, config.benchmark_options.size) == (3, 4)


def test_protocol_fields_are_reached_last():
    config = load("max_new_tokens=9", "choices=1..5", "protocol.choices=a,b")
    assert config.protocol == {"max_new_tokens": 9, "choices": ("a", "b")}
    assert config.benchmark_options.choices == "1..5"
    assert load("seed=9").benchmark_options.seed == 9
    assert load("seed=9").seed == 0


def test_all_faults_come_at_once():
    faults = faults_of(
        "tokns=3",
        "epochs=many",
        "init=randm",
        "backbone=x",
        "nonsense",
        seed=-1,
        dtype="float23",
        cluster="a",
    )
    text = "\n".join(faults)
    assert len(faults) == 8
    assert "--set tokns=3: unknown option 'tokns'; did you mean 'tokens'?" in faults
    assert "--set epochs=many: training.epochs should be a valid integer" in text
    assert "did you mean 'random'?" in text
    assert "--set backbone=x: 'backbone' is a setting of the run: write --backbone" in text
    assert "--set nonsense: write --set key=value" in faults
    assert "--seed: seed = -1: should be greater than or equal to 0" in faults
    assert "--dtype: dtype = float23: should be one of" in text
    assert "--cluster: cluster = a: should be a valid integer" in text


@pytest.mark.parametrize(
    ("value", "words"),
    [("a,b", "'a' should be a valid integer"), ("0,-1", "'-1' should be greater than or equal to 0"),
     ("1.5", "should be a valid integer"), ("", "at least 1 item")],
)  # fmt: skip
def test_a_list_that_cannot_be_read_names_the_item_that_is_wrong(value, words):
    with pytest.raises(ValueError, match=words):
        read_value(Plain(value), Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)])
    with pytest.raises(ValueError, match="should be a list, such as 1,2,3"):
        read_value({"a": 1}, tuple[int, ...])


def test_faults_of_a_file_name_the_line(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("# a comment\nseeed: 1\npersonas: -2\nset:\n  tokens: 5\n  tokns: 6\n")
    faults = faults_of(file=file)
    assert [fault.split(": ")[0] for fault in faults] == [f"{file}:{line}" for line in (2, 3, 6)]
    assert "did you mean 'seed'?" in faults[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", r"run.yaml:2: 'seed' is given twice, first in line 1"),
        ("set:\n  tokens: 1\n  tokens: 2\n", r"run.yaml:3: 'set.tokens' is given twice"),
        ("seed: [1\n", r"run.yaml:2: "),
        ("- 1\n- 2\n", "must be a mapping"),
        ("seed: !!python/name:os.system\n", r"run.yaml:1: tag .* is not used"),
        ("a: &a 1\nb: *a\n", r"run.yaml:2: aliases"),
        ("set: 3\n", "'set' must be a mapping"),
        ("examples: {}\n", "unknown key 'examples'"),
        ("seed: 1\n---\nseed: 2\n", r"run.yaml:2: "),
        ("{[1]: 2}", "a key must be plain text"),
    ],
)
def test_hostile_or_broken_files(tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(file=file)


def test_a_missing_file_or_one_that_is_no_text(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"did you mean 'mine.yaml'"):
        load(file=tmp_path / "mnie.yaml")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(file=tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match=r"--config unifeid: .*did you mean 'unified'"):
        load(file="unifeid")


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "run.yaml").write_text("")
    assert load(file=tmp_path / "run.yaml") == load()


def test_personas_is_the_runs_and_fills_the_benchmarks_option():
    assert load(personas="8").benchmark_options.personas == 8
    assert load(personas="all").benchmark_options.personas is None
    assert "write --personas" in faults_of("personas=4")[0]


def test_picking_personas_takes_the_full_world():
    config = load(persona="p1,7")
    assert (config.persona, config.personas) == (("p1", "7"), "all")
    assert load(cluster="0").benchmark_options.personas is None
    assert "give only one of the two" in faults_of(persona="p1", personas="8")[0]
    assert "not both" in faults_of(persona="p1", cluster="1")[0]


def test_unknown_plugins_are_faults_beside_the_others():
    faults = faults_of("whatever=1", "max_new_tokens=many", method="prefx", seed="x")
    assert any("there is no method 'prefx'" in fault for fault in faults)
    assert any("--seed" in fault for fault in faults)
    assert any("max_new_tokens" in fault for fault in faults)
    assert not any("whatever" in fault for fault in faults)  # it may be an option of the method that was meant


def test_a_method_must_be_named():
    with pytest.raises(ConfigError, match="method is missing: give --method NAME"):
        load_config(options_of=options_of, flags={"benchmark": "world"})


def test_what_post_init_refuses_is_a_fault_too():
    assert faults_of("tokens=101") == ["options of method 'prefix': tokens: at most 100"]


def test_the_record_is_json():
    config = load("protocol.choices=a,b", runs_dir=Path("/tmp/x"))
    plain = json.loads(json.dumps(config.as_dict()))
    assert plain["runs_dir"] == "/tmp/x"
    assert plain["method_options"]["training"]["epochs"] == 10
    assert plain["protocol"] == {"choices": ["a", "b"]}


def test_ready_made_runs_are_found_by_name_and_start_with_their_command():
    folder = Path(__file__).parents[2] / "configs"
    runs = [path for path in folder.glob("*.yaml") if "harness run --config" in path.read_text()]
    assert len(runs) >= 3
    for path in runs:
        assert path.read_text().splitlines()[0] == f"# harness run --config configs/{path.name}"
        assert shipped(path.stem).values["method"]


def test_a_name_that_is_not_shipped_gets_the_names_of_its_own_command_alone():
    for command, own in (("run", "zero_shot"), ("sweep", "quick"), ("tune", "tune_quick")):
        with pytest.raises(ConfigError) as caught:
            read_document("nope", command)
        listed = str(caught.value).partition("known: ")[2].split(", ")
        assert own in listed
        assert not {"zero_shot", "quick", "tune_quick", "default", "backbones", "backbone_tiny"} - {own} & {*listed}
        assert read_document(own, command).values


@pytest.mark.parametrize(
    ("file", "command", "words"),
    [
        ("quick", "run", "--config quick: is a file for another command: harness sweep quick"),
        ("tune_quick", "sweep", "tune_quick: is a file for another command: harness tune tune_quick"),
        ("zero_shot", "tune", "zero_shot: is a file for another command: harness run --config zero_shot"),
    ],
)
def test_a_file_for_another_command_is_refused_with_that_command(file, command, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_document(file, command)
    assert read_document("quick", "tune").values, "a sweep can be tuned"
    assert read_document(file, "").values, "and without a command any file is read"


def test_a_configuration_as_yaml_gives_the_same_configuration():
    given = {"persona": "p1,p2", "seed": 3, "margin": 0.5, "scorer": SCORER, "device": "cpu"}
    sets = ["tokens=3", "training.learning_rate=3e-5", "other.epochs=2", "max_new_tokens=9", "choices=1,yes"]
    config = load(*sets, **given)
    again = load_config(options_of=options_of, file=parse(config_yaml(config), "resolved"))
    assert again == config
    assert "method.training.learning_rate: 3.0e-05" in config_yaml(config)
    assert "other.epochs: 2" in config_yaml(config)


def test_nested_options_are_dotted():
    assert list(option_types(MethodOptions)) == [
        "tokens", "init", "size", "training.learning_rate", "training.epochs",
    ]  # fmt: skip


@given(st.text())
def test_any_text_reads_as_text_and_never_crashes_the_parser(text):
    assert read_value(Plain(text), str) == text
    resolve(Plain(text))
    with contextlib.suppress(ConfigError):  # any other exception would be a traceback for the user
        parse(text, "hostile.yaml")


def test_an_item_of_a_list_knows_its_line_and_a_part_is_a_document():
    whole = parse("a: 1\nlist:\n  - plain\n  - name: x\n    set:\n      b: 2\n  - {name: y}\n", "f.yaml")
    assert [whole.where(f"list.{i}") for i in range(3)] == ["f.yaml:3", "f.yaml:4", "f.yaml:7"]
    part = whole.part("list.1", whole.values["list"][1])
    assert part.values == {"name": "x", "set": {"b": "2"}}
    assert part.where("set.b") == "f.yaml:6"
    assert whole.part("list.2", whole.values["list"][2]).where("name") == "f.yaml:7"


def test_a_scorer_is_the_one_by_its_name_or_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my-scorer").mkdir()
    Path("my-scorer/model.safetensors").touch()
    assert load().scorer == SCORER
    assert load(scorer=SCORER).scorer == SCORER
    assert load(scorer="my-scorer").scorer == "my-scorer"
    assert load(scorer=str(tmp_path)).scorer == str(tmp_path)
    (fault,) = faults_of(scorer="my-scorr")
    assert fault.startswith("--scorer: scorer = my-scorr: is neither a folder")
    assert fault.endswith("did you mean 'my-scorer'?")
    (fault,) = faults_of(scorer="sentence-transformer/all-MiniLM-L6")
    assert fault.endswith(f"did you mean '{SCORER}'?")
    faults = faults_of("tokens=many", scorer="typo")
    assert len(faults) == 2, "with all others"
    assert f"known: my-scorer, {SCORER}" in faults[0]


def test_options_of_what_a_method_stands_on_go_under_its_name(tmp_path):
    config = load("other.learning_rate=2e-3", "tokens=5")
    assert config.required_options == {"other": Training(2e-3)}
    assert config.method_options == MethodOptions(tokens=5)
    assert config.plain("other").options == Training(2e-3)
    assert config.plain("prefix").options is None
    path = tmp_path / "c.yaml"
    path.write_text("set:\n  other: {learning_rate: 1e-2, epochs: 3}\n")
    assert load("other.learning_rate=2e-3", file=path).required_options == {"other": Training(2e-3, 3)}


def test_a_methods_own_name_before_its_option_means_the_same():
    assert load("prefix.tokens=5").method_options == load("tokens=5").method_options
    assert load("prefix.tokens=5").required_options == {}
    # An option's own outer name comes first, whatever methods are called.
    assert load("training.epochs=3").method_options.training.epochs == 3


def test_a_typo_in_an_option_of_what_a_method_stands_on_is_answered():
    assert faults_of("other.learning_rat=1") == [
        "--set other.learning_rat=1: unknown option 'other.learning_rat'; did you mean 'learning_rate'?"
    ]
    assert faults_of("othr.epochs=1") == [
        "--set othr.epochs=1: unknown option 'othr.epochs'; there is no method 'othr'"
    ]
    assert faults_of("other.epochs=many")[0].startswith("--set other.epochs=many: epochs should be a valid integer")


@pytest.mark.parametrize(
    ("environment", "text", "flag", "wanted"),
    [
        (None, "", None, True),
        ("false", "", None, False),
        ("false", "isolate: true", None, True),
        (None, "isolate: false", None, False),
        (None, "isolate: false", True, True),
        ("true", "isolate: true", False, False),
    ],
)
def test_who_decides_on_isolation(tmp_path, monkeypatch, environment, text, flag, wanted):
    monkeypatch.delenv("HARNESS_ISOLATE")
    if environment:
        monkeypatch.setenv("HARNESS_ISOLATE", environment)
    file = tmp_path / "run.yaml"
    file.write_text(f"seed: 1\n{text}\n")
    assert isolates(flag, read_document(file)) == wanted
    assert load(file=file, isolate=flag).isolate == wanted


def test_the_environment_gives_the_threads_that_nothing_else_gives(tmp_path, monkeypatch):
    file = tmp_path / "run.yaml"
    file.write_text("threads: 4\n")
    monkeypatch.setenv("HARNESS_THREADS", "3")
    assert (load().threads, load(file=file).threads, load(file=file, threads=5).threads) == (3, 4, 5)
    assert default_values()["threads"] == 2, "how a run is reproduced is said for an environment without it"
    monkeypatch.setenv("HARNESS_THREADS", "many")
    with pytest.raises(ConfigError, match="HARNESS_THREADS: threads = many"):
        load()


def test_a_wrong_word_in_the_environment_is_told(monkeypatch):
    monkeypatch.setenv("HARNESS_ISOLATE", "perhaps")
    with pytest.raises(ConfigError, match="HARNESS_ISOLATE: isolate = perhaps"):
        load()
