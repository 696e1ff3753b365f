"""What `harness new-method` writes passes at once; names that would do harm are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.commands.common import options_of
from harness.config.run_config import default_values, load_config
from harness.contract.plugins import load_file
from harness.errors import HarnessError
from harness.testkit.conformance import check_here
from harness.testkit.scaffold import new_method

ROOT = Path(__file__).parents[2]


@pytest.fixture
def written(tmp_path):
    """Plugin, configuration and test in a folder that was not there before."""
    return new_method("my_method", tmp_path / "made" / "here")


@pytest.mark.slow
def test_what_is_written_keeps_the_contract(written):
    report = check_here("my_method", [written[0]])
    assert report.ok, report


@pytest.mark.slow
@pytest.mark.long
def test_what_is_written_passes_at_once(written):
    plugin, _, test = written
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test.name],
        cwd=plugin.parent, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.slow
@pytest.mark.long
def test_its_test_fails_when_the_method_breaks(written):
    plugin, _, test = written
    plugin.write_text(plugin.read_text().replace("study.by_persona()", "study.for_all()"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test.name],
        cwd=plugin.parent, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "2 failed" in done.stdout
    assert "shares='persona'" in done.stdout, "the message names what the card says"


def test_the_plugin_is_of_the_size_that_contributing_promises_and_stands_on_the_baseline(written):
    plugin, *_ = written
    assert len([line for line in plugin.read_text().splitlines() if line.strip()]) <= 30
    assert load_file(plugin).name == "my_method"
    assert default_values()["baseline"] in load_file(plugin).card.requires  # pyright: ignore[reportAttributeAccessIssue]


def test_the_configuration_is_a_run_of_it(written):
    plugin, config, _ = written
    found = load_config(options_of=options_of([plugin]), file=config)
    assert found.method == "my_method"
    assert found.method_options.prompt.tokens == 10
    first = config.read_text().splitlines()[0]
    assert first == f"# harness run --config {config} --plugin {plugin}"


def test_what_is_written_is_clean(written):
    folder = written[0].parent
    settings = ["--config", str(ROOT / "pyproject.toml"), str(folder)]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", *settings],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("9lives", "begin with a letter"),
        ("my-method", "letters, digits and underscores"),
        ("../escape", "letters, digits and underscores"),
        ("méthode", "letters, digits and underscores"),
        ("", "letters, digits and underscores"),
        ("class", "word of Python"),
        ("predict", "it is a hook"),
        ("load", "it is a hook"),
        ("test_me", "pytest"),
        (default_values()["baseline"], "there is a method of that name"),
        (default_values()["benchmark"], "there is a benchmark of that name"),
        ("json", "shadow"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(tmp_path, name, words):
    with pytest.raises(HarnessError, match=words):
        new_method(name, tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_nothing_is_overwritten(tmp_path, place):
    there = new_method("my_method", tmp_path)
    for path in there:
        path.unlink()
    there[place].write_text("mine")
    with pytest.raises(HarnessError, match="not overwritten"):
        new_method("my_method", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there[place].name]
    assert there[place].read_text() == "mine"


def test_the_command_says_what_is_next(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["new-method", "my_method", "--output", str(tmp_path)])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for words in (
        "pytest",
        "harness check my_method --plugin",
        "harness run --config",
        'entry-points."harness.methods"',
    ):
        assert words in out
    with pytest.raises(SystemExit) as ended:
        main(["new-method", "my_method", "--output", str(tmp_path)])
    assert ended.value.code == 2
    assert "not overwritten" in capsys.readouterr().err
