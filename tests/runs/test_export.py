"""Exported folders: what PEFT and transformers make of them by the README's own code is what the harness computes."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from harness.adapters import create_bank, merged, save_bank
from harness.contract.specs import GatedPrefix, LoRA, SoftPrompt
from harness.model import load_backbone
from harness.runs.serving import FILE as SERVED, write_served
from harness.runs.stored import write_run
from harness.store.disk import Store, copy_sealed
from harness.testkit import tiny_backbone

IDS = torch.tensor([[5, 9, 11, 30, 7]])
PEOPLE = ("ann", 'b"ob\n`', "eve")  # eve is served by what the method stands on
KEYS = ("one", "../two")


def noisy(bank, seed: int):
    """The bank away from where it starts."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in bank.tensors.values():
        tensor += 0.3 * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
    return bank


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "base"
    base = tiny_backbone("float32")
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


class World:
    """A stored run with adapters in a folder of its own, and the models that it stands on."""

    def __init__(self, folder: Path, stored, spec, below: bool, **changes) -> None:
        self.base = self.top = load_backbone("base")
        if below:
            lora = noisy(create_bank(self.base, LoRA(rank=2), ("all",), 0), 1)
            save_bank(lora, folder / "unified", "base")
            self.top = replace(merged(self.base, lora, 0), folder=folder / "unified")
        self.bank = noisy(create_bank(self.top, spec, KEYS, 0), 2)
        save_bank(self.bank, folder / "fitted", self.top.name, self.top.folder)
        config = {"method": "mine", "benchmark": "toy", "backbone": "base", "dtype": "float32"}
        run = stored(
            folder / "runs", "mine", [0.5, 0.25, 1.0], personas=PEOPLE, config=config,
            protocol={"system": "Answer.", "max_new_tokens": 4},
            **{"hashes": {"backbone": self.base.fingerprint}, **changes},
        )  # fmt: skip

        def fill(part: Path) -> None:
            copy_sealed(folder / "fitted", part / "adapters")
            write_served(part, dict(zip(PEOPLE, KEYS, strict=False)))

        self.run = write_run(Store(folder / "runs"), run.record, fill)

    def logits(self, row: int, cache) -> torch.Tensor:
        """[1, T, V] of IDS as the harness computes them."""
        rows = torch.tensor([row])
        with torch.no_grad(), self.bank.applied(self.top.model, rows):
            if (prefix := self.bank.prefix(rows)) is None:
                return self.top.model(input_ids=IDS, past_key_values=cache).logits
            whole = torch.cat([prefix, self.top.model.get_input_embeddings()(IDS)], 1)
            return self.top.model(inputs_embeds=whole).logits[:, prefix.shape[1] :]


@pytest.fixture
def make_world(tmp_path, monkeypatch, stored, base_folder):
    """make_world(spec, below, ...) -> a World in the current folder, which is the test's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").symlink_to(base_folder)

    def make(spec=SoftPrompt(3), below=True, **changes):  # noqa: B008
        return World(tmp_path, stored, spec, below, **changes)

    return make


def run_readme(folder: Path, monkeypatch) -> dict:
    """Run the code of a folder's README there, with the base beside it; returns its names."""
    text = (folder / "README.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if not (folder / "base").exists():
        (folder / "base").symlink_to(Path("base").resolve())
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(compile(block, str(folder / "README.md"), "exec"), names)
    return names


@pytest.mark.parametrize(
    ("spec", "below", "to"),
    [
        *((SoftPrompt(3), below, "peft") for below in (True, False)),
        *((LoRA(rank=2, alpha=5.0), below, "peft") for below in (True, False)),
        *((SoftPrompt(3, kind="kv"), True, "peft"), (SoftPrompt(3, kind="discrete"), True, "peft")),
        *((SoftPrompt(3), True, "merged"), (LoRA(rank=2, alpha=5.0), True, "merged")),
    ],
    ids=str,
)
def test_the_code_of_the_readme_computes_what_the_harness_does(
    make_world, cache_of, harness, monkeypatch, capsys, spec, below, to
):
    world = make_world(spec, below)
    code, out, err = harness("export", "mine", "--to", to, "--persona", PEOPLE[1], "--output", "out")
    assert (code, err) == (0, ""), err
    assert f"adapters 1, personas 1, base adapters {int(below)};" in out
    names = run_readme(Path("out").resolve(), monkeypatch)
    assert names["PERSONA"] == PEOPLE[1]
    with torch.no_grad():
        theirs = names["model"](input_ids=IDS).logits[:, -IDS.shape[1] :]
    ours = world.logits(1, cache_of(world.bank, 1))
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(theirs, world.logits(0, cache_of(world.bank, 0)), atol=1e-2), "another's adapter differs"
    if below:
        with torch.no_grad():
            assert not torch.allclose(theirs, world.base.model(input_ids=IDS).logits, atol=1e-2)
    assert capsys.readouterr().out == names["reply"] + "\n"


def test_all_personas_are_exported_where_none_is_named(make_world, harness):
    make_world()
    assert harness("export", "mine", "--to", "peft", "--output", "out")[0] == 0
    places = json.loads(Path("out/personas.json").read_text("utf-8"))
    assert places.keys() == set(PEOPLE[:2]), "eve is served by another model"
    assert {path.parent.as_posix() for path in Path("out").glob("adapters/*/adapter_config.json")} == {
        f"out/{place}" for place in places.values()
    }
    readme = Path("out/README.md").read_text("utf-8")
    assert "vLLM serves no soft prompts" in readme
    config = json.loads(Path("out", places["ann"], "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "base + below/1 (see README.md)", "no model of this name exists"
    assert json.loads(Path("out/below/1/adapter_config.json").read_text())["base_model_name_or_path"] == "base"


def test_a_lora_says_nothing_of_vllms_soft_prompts_and_added_text_is_mentioned(make_world, harness):
    make_world(LoRA(rank=2), adds_text=True)
    assert harness("export", "mine", "--to", "peft", "--output", "out")[0] == 0
    readme = Path("out/README.md").read_text("utf-8")
    assert "vLLM" not in readme
    assert "adds text to the prompts" in readme


@pytest.mark.parametrize(
    ("spec", "below", "arguments", "words"),
    [
        (SoftPrompt(2), True, ["--to", "peft", "--persona", "anna"], "has no persona 'anna'; did you mean 'ann'?"),
        (
            SoftPrompt(2),
            True,
            ["--to", "peft", "--persona", "eve"],
            "'eve' is served by a base of 'mine', not by an adapter of mine-x-0",
        ),
        (SoftPrompt(2), False, ["--to", "merged"], "there is nothing to merge; use --to peft"),
        (LoRA(rank=2), True, ["--to", "merged"], "a whole model for each of 2 LoRAs"),
        (GatedPrefix(2), True, ["--to", "peft"], "PEFT has no adapters of the kind gated_prefix"),
        (SoftPrompt(2), True, ["--to", "hf-eval-results"], "needs --dataset"),
        (SoftPrompt(2), True, ["--to", "hf-eval-results", "--dataset", "mine"], "looks as owner/name"),
        (SoftPrompt(2), True, ["--to", "eee", "--persona", "anna"], "did you mean 'ann'?"),
        (SoftPrompt(2), True, ["--to", "gguf"], "--to"),
        (SoftPrompt(2), True, ["--to", "peft", "--backbone", "nowhere/at/all"], "does not exist"),
    ],
    ids=str,
)
def test_what_cannot_be_exported_is_one_line(make_world, harness, spec, below, arguments, words):
    make_world(spec, below)
    code, out, err = harness("export", "mine", *arguments, "--output", "out")
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not Path("out").exists()


def test_runs_without_adapters_or_with_another_backbone_are_one_line(make_world, harness, put, tmp_path):
    def complaint(run: str, *more: str) -> str:
        code, _, err = harness("export", run, "--to", "peft", "--output", "out", *more)
        assert code == 2
        assert err.count("\n") == 1
        return err

    make_world(SoftPrompt(2), True, hashes={"backbone": "0" * 64})
    put("bare", [0.5, 0.25])
    assert "is not the backbone that mine-x-0 was made with" in complaint("mine")
    assert "'bare' trains none of its own" in complaint("bare")
    assert "no run 'nothing'" in complaint("nothing")
    (tmp_path / "runs/mine-x-0" / SERVED).unlink()
    assert "served.json" in complaint("mine")
    Path("out").mkdir()
    Path("out/file").touch()
    assert "out is not empty" in complaint("bare") or "trains none" in complaint("bare")


# ---- scores ----


def test_every_eval_ever_holds_each_metric_and_persona(make_world, harness, monkeypatch, capsys):
    make_world()
    code, out, err = harness("export", "mine", "--to", "eee", "--output", "out")
    assert code == 0, err
    (path,) = Path("out/data").rglob("*.json")
    assert path.as_posix() in out
    value = json.loads(path.read_text("utf-8"))
    (result,) = value["evaluation_results"]
    assert result["score_details"]["score"] == pytest.approx((0.5 + 0.25 + 1.0) / 3)
    assert result["score_details"]["uncertainty"]["num_samples"] == 30
    assert result["metric_config"]["max_score"] == 1.0
    assert value["model_info"]["id"] == "/".join(path.parts[3:5])
    check_against_schema(value)
    run_readme(Path("out").resolve(), monkeypatch)
    assert capsys.readouterr().out.split()[:2] == ["toy", "similarity"]
    monkeypatch.undo()


def test_every_eval_ever_of_some_personas(make_world, harness):
    make_world()
    assert harness("export", "mine", "--to", "eee", "--persona", "eve", "--persona", "ann", "--output", "out")[0] == 0
    (path,) = Path("out/data").rglob("*.json")
    value = json.loads(path.read_text("utf-8"))
    found = {r["evaluation_name"]: r["score_details"]["score"] for r in value["evaluation_results"]}
    assert found == pytest.approx({"toy, eve": 1.0, "toy, ann": 0.5})
    check_against_schema(value)


def check_against_schema(value: dict) -> None:
    """What schema 0.3.0 asks for, in our words: its own package needs a newer Python than the least one here."""
    wanted = {
        *("schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info", "eval_library"),
        "evaluation_results",
    }
    assert wanted <= value.keys() <= wanted | {"evaluation_timestamp"}
    assert value["schema_version"] == "0.3.0"
    assert {"deployment_type", "model_availability"} <= value["model_info"]["additional_details"].keys()
    assert all(isinstance(text, str) for text in value["model_info"]["additional_details"].values())
    for result in value["evaluation_results"]:
        assert {"evaluation_name", "source_data", "metric_config", "score_details"} <= result.keys()
        assert {"min_score", "max_score", "lower_is_better"} <= result["metric_config"].keys()
        assert math.isfinite(result["score_details"]["score"])


def test_the_hubs_yaml_is_read_by_the_hubs_own_client(make_world, harness, monkeypatch, capsys):
    from huggingface_hub import parse_eval_result_entries

    make_world()
    flags = ["--to", "hf-eval-results", "--dataset", "someone/toy", "--persona", "ann", "--persona", "eve"]
    code, out, err = harness("export", "mine", *flags, "--output", "out")
    assert code == 0, err
    assert ".eval_results/toy.yaml" in out
    (entry,) = parse_eval_result_entries(yaml.safe_load(Path("out/.eval_results/toy.yaml").read_text("utf-8")))
    assert (entry.dataset_id, entry.value) == ("someone/toy", pytest.approx(75.0))
    assert "2 of 3 personas" in str(entry.notes)
    run_readme(Path("out").resolve(), monkeypatch)
    assert "someone/toy 75.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--to", "peft", "--dataset", "owner/name"), "--dataset goes with --to hf-eval-results"),
        (("--to", "eee", "--backbone", "tiny"), "--backbone goes with adapters"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(harness, tmp_path, arguments, words):
    code, out, err = harness("export", "any", *arguments, "--output", tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
