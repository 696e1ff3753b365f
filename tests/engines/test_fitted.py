"""Who replies to whom: a fallback, routes and added text, one on top of another; and adapters beside their files."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.adapters import create_bank, save_bank
from harness.contract.data import Message, Prompt
from harness.contract.specs import LoRA, SoftPrompt
from harness.engines.fitted import Adapters, FitCost, Fitted
from harness.errors import HarnessError

PROMPT = (Message("system", "be brief"), Message("user", "hello"))


def asked(persona: str) -> Prompt:
    return Prompt(f"{persona}#0", persona, 0, PROMPT)


def note(text: str):
    return lambda prompt: (*prompt.messages[:-1], Message("user", prompt.messages[-1].text + text))


@pytest.fixture
def bank(make_backbone):
    base = make_backbone()
    return Adapters(base, create_bank(base, SoftPrompt(2), ["one", "two"], 0))


def test_a_persona_has_its_adapter_and_everybody_else_the_fallbacks(bank, make_backbone):
    below = Fitted.of(Adapters(make_backbone()))
    fitted = Fitted.of(bank, {"ann": "two", "bob": "one"}, fallback=below)
    assert [fitted.row(p) for p in ("ann", "bob", "eve")] == [1, 0, -1]
    assert fitted.who("eve").adapters is below.adapters
    chain = Fitted.of(below.adapters, fallback=fitted)
    assert chain.who("ann").adapters is bank, "a fallback serves its own personas, too"
    alone = Fitted.of(bank, {"ann": "two"})
    assert (alone.who("eve").adapters, alone.who("eve").row) == (bank, -1), "the backbone below"
    shared = Fitted.of(bank, {}, "one", fallback=below)
    assert (shared.who("eve").adapters, shared.row("eve")) == (bank, 0)
    with pytest.raises(HarnessError, match="no adapter 'three'"):
        Fitted.of(bank, {"ann": "three"})


def test_added_text_is_shown_whoever_replies(bank, make_backbone):
    """By the method itself, by another to which a persona is routed, and by the fallback."""
    below = Fitted.of(Adapters(make_backbone()))
    other = Fitted.of(Adapters(make_backbone()))
    fitted = Fitted.of(bank, {"ann": "one"}, fallback=below).with_routes({"bob": other})
    assert not fitted.adds_text
    added = fitted.with_messages(note(" (brief)"))
    assert added.adds_text
    for persona, adapters in (("ann", bank), ("bob", other.adapters), ("eve", below.adapters)):
        assert added.messages(asked(persona))[-1].text == "hello (brief)"
        assert added.who(persona).adapters is adapters
    twice = added.with_messages(note(" (please)"))
    assert twice.messages(asked("bob"))[-1].text == "hello (please) (brief)", "both texts are shown"
    routed = fitted.with_routes({"ann": added})
    assert routed.messages(asked("ann"))[-1].text == "hello (brief)"
    assert routed.messages(asked("eve"))[-1].text == "hello"
    assert routed.adds_text


def test_only_one_model_can_be_a_base(bank, make_backbone):
    base = make_backbone()
    lora = Fitted.of(Adapters(base, create_bank(base, LoRA(rank=2), ["all"], 0)), {}, "all")
    assert lora.base() is lora.with_messages(note("!")).base(), "merged once"
    assert Fitted.of(Adapters(base)).base() is base
    with pytest.raises(HarnessError, match="must be a single LoRA"):
        Fitted.of(bank, {"ann": "one"}).base()
    with pytest.raises(HarnessError, match="sends personas to several"):
        lora.with_routes({"ann": Fitted.of(bank, {"ann": "one"})}).base()


def test_adapters_are_compared_with_their_files_to_the_bit(bank, tmp_path):
    assert bank.unlike_stored() == "", "nothing is saved"
    save_bank(bank.bank, tmp_path, "base")
    kept = Adapters(bank.backbone, bank.bank, tmp_path)
    assert kept.unlike_stored() == ""
    values = bank.bank.tensors["prompt_embeddings"]
    with torch.no_grad():
        values[1, 0, 3] = torch.nextafter(values[1, 0, 3], values.new_tensor(9.0))
    assert "'prompt_embeddings' of the adapter of 'two'" in kept.unlike_stored()
    renamed = Adapters(bank.backbone, replace(bank.bank, keys=("two", "one")), tmp_path)
    assert "other keys" in renamed.unlike_stored()


def test_costs_add_up():
    assert FitCost(1, 2.0, 3, 4) + FitCost(10, 20.0, 30, 40) == FitCost(11, 22.0, 33, 44)
    assert sum([FitCost(1, 2.0, 3, 4)], FitCost()) == FitCost(1, 2.0, 3, 4)
