"""Families of models x kinds of adapters: the same logits, likelihoods and replies as plain transformers and PEFT."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from functools import lru_cache
from typing import Any

import pytest
import torch

from harness.adapters import load_bank, merged, save_bank, write_peft
from harness.engines import engine_for
from harness.errors import HarnessError
from harness.model.backbone import _check
from harness.testkit import random_backbone, tiny_backbone
from tests.engines.families import FAMILIES, KINDS, PAGE, REFUSED, page_with, plain_logits, prompts, random_bank, table

NEW = 5
FAMILY = {family.name: family for family in FAMILIES}
BY_HAND = ("input", "kv", "discrete")  # kinds that plain transformers can be given without PEFT
IN_PEFT = ("lora", "input", "discrete")


@lru_cache(maxsize=2)
def backbone_of(name):
    return FAMILY[name].backbone()


def bank_of(backbone, kind) -> Any:
    if kind == "none":
        return None
    if kind != "gated":  # the only kind that some families cannot have
        return random_bank(backbone, kind)
    try:
        return random_bank(backbone, kind)
    except HarnessError as refusal:
        pytest.skip(str(refusal))


def greedy(logits_of, prompt):
    """New tokens, one full forward each."""
    ids = list(prompt)
    for _ in range(NEW):
        ids.append(int(logits_of(ids)[-1].argmax()))
    return ids[len(prompt) :]


def assert_as(family, backbone, bank, logits_of, least=0.0):
    """Replies, likelihoods and choices of a batch of unequal prompts against logits_of(ids, row) [T, V]."""
    engine, _ = engine_for(backbone, bank)
    tolerance = max(family.tolerance, least)
    asked, rows = prompts(), [-1] * 3 if bank is None else [0, 1, 0]
    wanted = [greedy(lambda ids, row=row: logits_of(ids, row), ids) for ids, row in zip(asked, rows, strict=True)]
    assert engine.replies(bank, rows, asked, max_new_tokens=NEW, stop_id=-1) == wanted
    for nats, ids, reply, row in zip(engine.reply_nll(bank, rows, asked, wanted), asked, wanted, rows, strict=True):
        losses = logits_of(ids + reply, row).log_softmax(-1)
        own = [-float(losses[len(ids) + i - 1, token]) for i, token in enumerate(reply)]
        assert len(nats) == NEW
        assert nats.tolist() == pytest.approx(own, abs=tolerance)
    found = engine.choice_log_probs(bank, rows, asked, [[7], [8, 9]])
    for line, ids, row in zip(found, asked, rows, strict=True):
        first = logits_of(ids, row)[-1].double().log_softmax(-1)
        both = torch.stack([first[7], first[8] + logits_of([*ids, 8], row)[-1].double().log_softmax(-1)[9]])
        assert torch.allclose(torch.from_numpy(line), both - both.logsumexp(0), atol=tolerance)


@pytest.mark.parametrize("kind", ["none", *BY_HAND])
@pytest.mark.parametrize("name", FAMILY)
def test_as_plain_transformers(name, kind):
    family, backbone = FAMILY[name], backbone_of(name)
    bank = bank_of(backbone, kind)
    assert_as(family, backbone, bank, lambda ids, row: plain_logits(backbone, ids, bank, row))


@pytest.mark.parametrize("kind", IN_PEFT)
@pytest.mark.parametrize("name", FAMILY)
def test_as_peft_that_loads_the_files(name, kind, tmp_path):
    from peft import PeftModel

    family, backbone = FAMILY[name], backbone_of(name)
    bank = bank_of(backbone, kind)
    save_bank(bank, tmp_path / "bank", "base")
    again = load_bank(tmp_path / "bank", backbone)
    assert all(torch.equal(values, again.served()[part]) for part, values in bank.served().items())
    theirs = {}
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for row, folder in enumerate(write_peft(bank, tmp_path, "base")):
            theirs[row] = (
                PeftModel.from_pretrained(copy.deepcopy(backbone.model), str(folder)).eval().to(backbone.dtype)
            )

    def logits_of(ids, row):
        with torch.no_grad():
            logits = theirs[row](input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
        return logits[-len(ids) :]  # PEFT gives logits of virtual tokens, too

    # PEFT keeps soft prompts in fp32; scaled embeddings are none of its numbers.
    assert_as(family, backbone, bank, logits_of, 1e-5 if kind == "discrete" else 0.0)


@pytest.mark.parametrize("name", FAMILY)
def test_a_lora_merged_into_the_weights_is_the_lora(name):
    family, backbone = FAMILY[name], backbone_of(name)
    bank = bank_of(backbone, "lora")
    assert_as(family, backbone, bank, lambda ids, row: plain_logits(folded(backbone, bank, row), ids, None, -1))


@lru_cache(maxsize=2)
def folded(backbone, bank, row):
    return merged(backbone, bank, row)


@pytest.mark.parametrize("name", FAMILY)
def test_a_gated_prefix_is_the_backbone_while_closed_and_knows_no_company(name):
    backbone = backbone_of(name)
    bank = bank_of(backbone, "gated")
    engine, _ = engine_for(backbone, bank)
    together = engine.replies(bank, [0, 1, 0], prompts(), max_new_tokens=NEW, stop_id=-1)
    alone = [
        engine.replies(bank, [row], [ids], max_new_tokens=NEW, stop_id=-1)[0]
        for row, ids in zip([0, 1, 0], prompts(), strict=True)
    ]
    assert together == alone
    closed = bank.with_tensors({**bank.tensors, "gate": torch.zeros_like(bank.tensors["gate"])})
    assert_as(FAMILY[name], backbone, closed, lambda ids, row: plain_logits(backbone, ids, None, -1))


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_would_be_silently_wrong_is_refused(name):
    tokenizer = tiny_backbone().tokenizer
    made = random_backbone(tokenizer, architecture=name, dtype="float32", **REFUSED[name])
    with pytest.raises(HarnessError, match=r"carries a state from token to token|lets later tokens change earlier"):
        _check("it", made.model, tokenizer)


def test_there_are_many_families_and_every_kind():
    assert len(FAMILIES) >= 14
    assert set(KINDS) == {"lora", "input", "kv", "discrete", "gated"}


def test_the_page_is_the_table_as_it_stands():
    assert PAGE.read_text("utf-8") == page_with(table()), "python tests/engines/families.py writes it anew"
