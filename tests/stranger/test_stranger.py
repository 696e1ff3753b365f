"""Somebody else's distribution, built and installed by pip: its methods, its metric and its kind of adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from harness.adapters import create_bank, load_bank, save_bank, write_peft
from harness.contract import MetricBatch, load_plugin
from harness.errors import HarnessError, StoreError
from harness.model import split_examples
from harness.scoring.registry import score_columns
from harness.store import kind_sources
from harness.testkit import tiny_backbone, tiny_dataset, tiny_trial
from harness.testkit.conformance import check_here

ROOT = Path(__file__).parents[2]
MODULES = ("strange_methods", "strange_metrics", "strange_adapters", "strange_bank", "persona_scaling")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder that the distribution is installed into; no network is needed."""
    folder = tmp_path_factory.mktemp("stranger")
    copy = folder / "source"  # building writes into the source folder
    copy.mkdir()
    for path in Path(__file__).parent.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [*pip, "--target", str(folder / "site"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    yield folder / "site"
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def installed(site, monkeypatch):
    """The distribution in this process."""
    monkeypatch.syspath_prepend(str(site))
    return site


END = "\n-- end --\n"
COMMANDS = f"""
import json, sys
from harness.cli import main
for number, words in enumerate(json.loads(sys.argv.pop())):
    print({END!r} * (number > 0), end="", flush=True)
    try:
        main(words)
    except SystemExit as ended:
        if ended.code:
            raise
"""


def call(folder: Path, *arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with the distribution where `site` is given."""
    return each(folder, [arguments], site)


def each(folder: Path, commands: Sequence[Sequence[str]], site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Commands in one process, one after the other; END stands between what they print."""
    command = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*([str(site)] if site else []), str(ROOT)])}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False)


@pytest.mark.slow
def test_it_is_listed_with_its_distribution_and_file(tmp_path, site):
    lists = [["list", what, "--json"] for what in ("methods", "metrics", "adapters")]
    methods, metrics, adapters = map(json.loads, each(tmp_path, lists, site=site).stdout.split(END))
    for listed, name, module in (
        (methods, "persona_scaling", "persona_scaling"),
        (methods, "borrowed_words", "strange_methods"),
        (metrics, "shared_words", "strange_metrics"),
        (adapters, "ia3", "strange_adapters"),
    ):
        (row,) = [row for row in listed if row["name"] == name]
        assert (row["distribution"], row["version"], row["error"]) == ("a-stranger", "0.3", None)
        assert row["file"] == str(site / f"{module}.py")
        assert len(listed) > 2, "ours are there too"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["persona_scaling", "borrowed_words"])
def test_its_methods_keep_the_contract(installed, name):
    report = check_here(name)
    assert report.ok, report.text()
    assert "save_and_load" in {result.name for result in report.results if result.status == "ok"}


@pytest.mark.slow
def test_its_adapters_are_trained_saved_and_scored_by_its_metric(installed, tmp_path):
    trial = tiny_trial("persona_scaling", tmp_path)
    adapters, dataset = trial.fitted.adapters, tiny_dataset()
    assert adapters.bank is not None
    assert adapters.folder is not None
    assert adapters.bank.keys == tuple(persona.id for persona in dataset.personas)
    assert all((factors != 1).any() for factors in adapters.bank.tensors.values())
    assert json.loads((adapters.folder / "index.json").read_text())["kind"] == "ia3"
    examples = split_examples(dataset, "test")
    replies = trial.predict([example.prompt for example in examples])
    scored = score_columns(["shared_words"], MetricBatch(dataset, examples, replies))
    assert len(scored["shared_words"]) == len(examples)


@pytest.mark.slow
def test_peft_loads_its_files_and_gives_the_same_logits(installed, tmp_path):
    from peft import PeftModel
    from strange_adapters import Scaling  # pyright: ignore[reportMissingImports]

    base = tiny_backbone("float32")
    bank = create_bank(base, Scaling(), ("a", "b"), seed=0)
    for factors in bank.tensors.values():
        factors += 0.5 * torch.randn(factors.shape, generator=torch.Generator().manual_seed(1))
    save_bank(bank, tmp_path, "base")
    again = load_bank(tmp_path, base)
    ids = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]])
    with torch.no_grad():
        with again.applied(base.model, torch.tensor([1, 1])):
            ours = base.model(input_ids=ids).logits
        plain = base.model(input_ids=ids).logits
        _, folder = write_peft(bank, tmp_path / "peft", "base")
        theirs = PeftModel.from_pretrained(tiny_backbone("float32").model, str(folder))(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, plain, atol=1e-2)


@pytest.mark.slow
def test_files_of_a_kind_whose_plugin_is_missing_are_refused_in_words(installed, tmp_path, monkeypatch):
    from strange_adapters import Scaling  # pyright: ignore[reportMissingImports]

    base = tiny_backbone()
    save_bank(create_bank(base, Scaling(), ("a",), seed=0), tmp_path, "base")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(installed)])
    with pytest.raises(StoreError, match=r"no kind of adapter 'ia3'(.|\n)*Is the plugin that brings it installed"):
        load_bank(tmp_path, base)
    with pytest.raises(HarnessError, match=r"Scaling.* is the spec of no kind of adapter; known: GatedPrefix, LoRA"):
        create_bank(base, Scaling(), ("a",), seed=0)


@pytest.mark.slow
def test_the_code_of_its_kind_is_part_of_what_its_method_makes(installed):
    scaling, words = (load_plugin("method", name).source for name in ("persona_scaling", "borrowed_words"))
    assert len(kind_sources([scaling])) == 1
    assert kind_sources([words]) == [], "a method that does not name the kind does not hang on it"
    assert kind_sources([load_plugin("method", "zero_shot").source]) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_making_a_run_with_all_of_it_needs_it_installed_and_reading_one_does_not(tmp_path, site):
    lines = [
        {"persona_id": f"p{p}", "prompt": f"say {p * 4 + i}", "reply": f"it is {p * 4 + i}"}
        for p in range(3)
        for i in range(4)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = ("data=data.jsonl", "metrics=shared_words", "splits=2/1/1", "max_new_tokens=4")
    data = ("--benchmark", "jsonl", *(word for option in options for word in ("--set", option)))
    more = ("--baseline", "zero_shot", "--quiet", "--json")
    made = call(tmp_path, "run", "--method", "persona_scaling", *data, *more, site=site)
    assert made.returncode == 0, made.stderr
    (run,) = (path.name for path in (tmp_path / "runs").glob("persona_scaling-*"))
    assert json.loads((tmp_path / "runs" / run / "run.json").read_text())["metrics"] == ["shared_words"]
    again = call(tmp_path, "run", "--method", "persona_scaling", *data, *more)
    assert again.returncode == 2
    assert "there is no method 'persona_scaling'" in again.stderr
    readers = (("show", run), ("compare", "zero_shot", "persona_scaling"), ("leaderboard", "--format", "csv"))
    stored = each(tmp_path, [(*command, "--runs-dir", "runs") for command in readers])
    assert stored.returncode == 0, f"a reader needs the metric's plugin: {stored.stderr}"
    assert ["shared_words" in text for text in stored.stdout.split(END)] == [True] * 3
