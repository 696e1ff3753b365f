"""Which layers a LoRA adapts on which architecture, and where soft prompts begin where embeddings are scaled."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.adapters.kinds import create_bank
from harness.adapters.lora import target_modules
from harness.contract.specs import LoRA, SoftPrompt
from harness.errors import ConfigError, HarnessError
from tests.engines.families import FAMILIES

FAMILY = {family.name: family for family in FAMILIES}


def last(names):
    return sorted({name.rsplit(".", 1)[-1] for name in names})


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("llama", ["q_proj", "v_proj"]),
        ("gpt2", ["c_attn"]),
        ("gpt_neox", ["query_key_value"]),
        ("bloom", ["query_key_value"]),
        ("falcon", ["query_key_value"]),
        ("phi3", ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
    ],
)
def test_default_targets_follow_the_architecture(name, default):
    assert last(target_modules(FAMILY[name].backbone().model, ["default"])) == default


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3", "bloom"])
def test_all_linear_is_every_linear_layer_but_the_head(name):
    backbone = FAMILY[name].backbone()
    found = target_modules(backbone.model, ["all-linear"])
    assert "lm_head" not in found
    assert set(target_modules(backbone.model, ["default"])) <= set(found)
    made: Any = create_bank(backbone, LoRA(targets=("all-linear",)), ["a"], 0)
    assert made.modules == found


def test_the_head_and_mixed_kinds_and_words_that_stand_alone_are_refused():
    backbone = FAMILY["llama"].backbone()
    with pytest.raises(HarnessError, match=r"'lm_head' is the head of LlamaForCausalLM.* stays as it is"):
        create_bank(backbone, LoRA(targets=("lm_head",)), ["a"], 0)
    with pytest.raises(HarnessError, match=r"did you mean 'q_proj'"):
        create_bank(backbone, LoRA(targets=("q_prj",)), ["a"], 0)
    with pytest.raises(ConfigError, match="stand alone"):
        LoRA(targets=("default", "o_proj"))


@pytest.mark.parametrize("name", ["gemma3_text", "gemma2", "gemma", "llama"])
def test_a_soft_prompt_begins_at_what_the_model_makes_of_words(name):
    """Whatever the embedding module does to its weights, a prompt of a text is that text to the model."""
    backbone = FAMILY[name].backbone()
    bank = create_bank(backbone, SoftPrompt(4, init="text", text="lamp"), ["a"], 0)
    ids = torch.tensor([backbone.tokenizer("lamp", add_special_tokens=False)["input_ids"]])
    prefix = bank.prefix(torch.tensor([0]))
    assert prefix is not None
    with torch.no_grad():
        wanted = backbone.model(input_ids=ids).logits
        assert torch.allclose(backbone.model(inputs_embeds=prefix).logits, wanted)
    words: Any = create_bank(backbone, SoftPrompt(4, init="text", text="lamp", kind="discrete"), ["a"], 0)
    assert words.token_ids(0) == ids[0].tolist()
    assert torch.allclose(words.prefix(torch.tensor([0])), prefix)
