"""Pretraining through its command: a seeded recipe gives the same backbone, and a faulty one is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness.model import load_backbone

RECIPE = Path(__file__).parents[2] / "configs" / "backbone_tiny.yaml"


def small(folder: Path, **changes) -> Path:
    """The recipe of the embedded backbone, cut to one stage of a few seconds."""
    recipe = yaml.safe_load(RECIPE.read_text("utf-8"))
    recipe["model"] |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    recipe["model"]["num_key_value_heads"] = 2
    recipe["tokenizer"]["vocabulary"] = 600
    recipe["corpus"]["shared"] |= {"personas": 4, "dialogues": [2, 0, 0]}
    recipe["stages"] = [recipe["stages"][0] | {"tokens": 6_000, "bf16": False, "batch": 4}]
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe | changes), "utf-8")
    return file


@pytest.mark.slow
def test_a_recipe_gives_the_same_backbone_twice_and_it_can_be_loaded(harness, tmp_path):
    recipe = small(tmp_path)
    costs = []
    for name in ("one", "two"):
        code, out, err = harness("backbone", "train", str(recipe), "--output", str(tmp_path / name), "--quiet")
        assert code == 0, err
        costs.append(json.loads((tmp_path / name / "training.json").read_text("utf-8")))
        assert costs[-1]["weights_sha256"] in out
        assert err == "", "no bar of a library's own"
    assert costs[0]["weights_sha256"] == costs[1]["weights_sha256"]
    assert costs[0]["stages"][0]["tokens"] >= 6_000
    backbone = load_backbone(str(tmp_path / "one"))
    assert backbone.hidden == 32
    assert backbone.tokenizer.decode(backbone.tokenizer("ärger 42")["input_ids"]) == "ärger 42"


def test_a_faulty_recipe_or_option_is_named(harness, tmp_path):
    code, _, err = harness("backbone", "train", str(small(tmp_path, sead=3)), "--output", str(tmp_path / "out"))
    assert (code, "unknown key 'sead'; did you mean 'seed'?" in err) == (2, True)
    corpus = yaml.safe_load(RECIPE.read_text("utf-8"))["corpus"]
    corpus["shared"]["persons"] = 3
    code, _, err = harness("backbone", "train", str(small(tmp_path, corpus=corpus)), "--output", str(tmp_path / "out"))
    assert (code, "corpus option 'persons'" in err) == (2, True)
    assert harness("backbone", "train", str(tmp_path / "none.yaml"), "--output", str(tmp_path / "out"))[0] == 2
