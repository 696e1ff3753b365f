"""Steering vectors: added where they should be, in both engines in every family; merged LoRAs that keep their rank."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from harness.adapters import combine_loras, create_bank, load_bank, save_bank
from harness.adapters.steering_vector import decoder_blocks
from harness.contract import LoRA, SteeringVector, TrainOptions
from harness.engines import engine_for
from harness.errors import HarnessError
from harness.model.prompts import Encoded
from harness.training.bank_training import fit_bank
from tests.engines.families import FAMILIES
from tests.engines.test_families import assert_as

NAMES = {family.name: family for family in FAMILIES}


def steered(backbone, layer, scale=1.0):
    bank = create_bank(backbone, SteeringVector(layer), ["a", "b"], 0)
    generator = torch.Generator().manual_seed(5)
    values = scale * torch.randn(2, backbone.hidden, generator=generator, dtype=torch.float64)
    return bank.with_tensors({"vector": values.to(bank.tensors["vector"])})


def plain(backbone, bank, layer):
    """logits_of(ids, row) by a hook of this test's own, a full forward each."""

    def logits_of(ids, row):
        model, vector = backbone.model, bank.tensors["vector"][row].to(backbone.dtype)
        with contextlib.ExitStack() as stack, torch.no_grad():
            if layer is None:
                head = model.get_output_embeddings()
                handle = head.register_forward_pre_hook(lambda module, inputs: (inputs[0] + vector,))
            else:
                block = decoder_blocks(model, 2)[layer]
                handle = block.register_forward_hook(
                    lambda module, inputs, out: (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector
                )
            stack.callback(handle.remove)
            return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]

    return logits_of


@pytest.mark.parametrize("layer", [0, -1, None])
@pytest.mark.parametrize("name", NAMES)
def test_a_vector_is_added_at_its_block_in_every_family(name, layer):
    backbone = NAMES[name].backbone()
    try:
        bank = steered(backbone, layer)
        assert_as(NAMES[name], backbone, bank, plain(backbone, bank, layer))
    except HarnessError as refusal:
        pytest.skip(str(refusal))


@pytest.mark.parametrize("layer", [0, 1, None])
def test_training_is_the_same_in_both_engines(make_backbone, layer):
    train = [[Encoded((5, 8 + k, 9, 4, 7, 9), (False, False, *[True] * 4))] * 3 for k in range(2)]
    found = {}
    for engine in ("llama_cpu", "transformers"):
        backbone = replace(make_backbone("float64", "llama"), engine=engine)
        bank = create_bank(backbone, SteeringVector(layer), ["a", "b"], 0)
        assert engine_for(backbone, bank)[0].name == engine
        fit_bank(backbone, bank, train, train, TrainOptions(learning_rate=0.05, epochs=2, batch_size=1), 3)
        found[engine] = bank.tensors["vector"]
    assert found["llama_cpu"].abs().max() > 0.01
    assert torch.allclose(found["llama_cpu"], found["transformers"], atol=1e-12)


def test_zeros_change_nothing_and_files_read_back(make_backbone, tmp_path):
    backbone = make_backbone("float64", "llama")
    bank = create_bank(backbone, SteeringVector(1), ["a", "../b"], 0)
    ids = torch.tensor([[5, 9, 11]] * 2)
    with torch.no_grad():
        before = backbone.model(input_ids=ids).logits
        with bank.applied(backbone.model, torch.tensor([0, 1])):
            assert torch.equal(backbone.model(input_ids=ids).logits, before)
        with steered(backbone, 1).applied(backbone.model, torch.tensor([0, 1])):
            assert not torch.equal(backbone.model(input_ids=ids).logits, before)
        assert torch.equal(backbone.model(input_ids=ids).logits, before)  # nothing is left behind
    full = steered(backbone, 1)
    save_bank(full, tmp_path / "bank", "base")
    again = load_bank(tmp_path / "bank", backbone)
    assert (again.spec, again.keys) == (full.spec, full.keys)
    assert torch.equal(again.tensors["vector"], full.tensors["vector"])


def test_a_block_that_is_not_there_is_refused(make_backbone):
    with pytest.raises(HarnessError, match=r"2 blocks, and layer 7 is none of them"):
        create_bank(make_backbone("float64", "llama"), SteeringVector(7), ["a"], 0)


def test_merged_loras_of_the_same_rank_are_the_nearest_ones(make_backbone):
    backbone = make_backbone("float64", "llama")
    bank: Any = create_bank(backbone, LoRA(rank=2, alpha=6.0), ["a", "b", "c"], 0)
    generator = torch.Generator().manual_seed(1)
    filled = {name: torch.randn(t.shape, generator=generator, dtype=t.dtype) for name, t in bank.tensors.items()}
    bank = bank.with_tensors(filled)
    recipes = {"x": {"a": 0.5, "b": 0.3, "c": 0.2}, "y": {"b": 1.0}}
    exact, near = combine_loras(bank, recipes), combine_loras(bank, recipes, same_rank=True)
    assert near.spec == bank.spec
    for row in range(2):
        wanted, found = exact.weight_deltas(row), near.weight_deltas(row)
        for module, delta in wanted.items():
            values = np.linalg.svd(delta.numpy(), compute_uv=False)
            left = np.linalg.norm(delta.numpy() - found[module].numpy())
            assert left == pytest.approx(np.sqrt(np.square(values[2:]).sum()), abs=1e-9)  # Eckart and Young
    for module, delta in bank.weight_deltas(1).items():  # one LoRA alone is kept as it is
        assert torch.allclose(near.weight_deltas(1)[module], delta, atol=1e-9)
