"""Joint fits: what designs compute, how their priors learn, and that a fit keeps its promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from harness.adapters.kinds import create_bank
from harness.contract.specs import (
    Coefficients,
    FromVector,
    GatedPrefix,
    Levels,
    LoRA,
    SoftPrompt,
    SteeringVector,
    Subspace,
    TrainOptions,
)
from harness.errors import HarnessError
from harness.model.prompts import Encoded
from harness.training.bank_training import fit_jointly
from harness.training.designs import CoefficientsDesign, FromVectorDesign, LevelsDesign, Prior
from harness.training.optimiser import Flat

KEYS = ("a", "b", "c", "d", "e")  # e has no dialogues
CLUSTERS = [0, 0, 1, 1, 1]
VECTORS = torch.tensor(np.random.default_rng(3).normal(size=(5, 4)), dtype=torch.float32)
OPTIONS = TrainOptions(learning_rate=0.05, epochs=3, batch_size=2, patience=1, microbatch_tokens=40)
DESIGNS = {
    "levels": (Levels(), SoftPrompt(3)),
    "levels, free": (Levels(shrink=False), GatedPrefix(3)),
    "coefficients": (Coefficients(), LoRA(rank=2, alpha=4.0)),
    "from vector": (FromVector(width=6), SoftPrompt(3)),
    "subspace": (Subspace(rank=2), SteeringVector(1)),
}


def data():
    """(train, validation): each key repeats a token of its own, 6 and 2 dialogues each."""
    found = ({}, {})
    for number, key in enumerate(KEYS[:4]):
        generator = np.random.default_rng(number)
        for split, count in zip(found, (6 - number, 2), strict=True):
            split[key] = []
            for _ in range(count):
                ids = [int(t) for t in generator.integers(3, 60, size=10)]
                ids[5:] = [10 + number] * 5
                split[key].append(Encoded(tuple(ids), (False,) * 5 + (True,) * 5))
    return found


@pytest.fixture(scope="module")
def base(make_backbone):
    return make_backbone("float64")


def fitted(base, name, *, train=None, options=OPTIONS, **more):
    design, spec = DESIGNS[name]
    given, validation = data()
    bank = create_bank(base, spec, KEYS, 5, create_bank(base, spec, ["all"], 5))
    report, facts = fit_jointly(
        base, bank, bank.by_row(train or given), bank.by_row(validation), options, 11, design, CLUSTERS, VECTORS, **more
    )  # fmt: skip
    return bank, report, facts


def values(bank, key):
    return torch.cat([tensor[bank.row(key)].flatten() for _, tensor in sorted(bank.tensors.items())])


@pytest.mark.parametrize("name", DESIGNS)
def test_a_joint_fit_learns_and_is_the_same_again(base, name):
    bank, report, facts = fitted(base, name)
    again, _, _ = fitted(base, name)
    for key in KEYS[:4]:
        losses = report.adapters[key].train_loss
        assert losses[-1] < losses[0]
        assert torch.equal(values(bank, key), values(again, key))
    assert facts["shared_numbers"] > 0
    assert report.adapters["e"].status == "no data"


@pytest.mark.parametrize("name", DESIGNS)
def test_an_interrupted_joint_fit_ends_in_the_same_bits(base, name, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total, note):
        if done >= 20:
            raise StopError

    path = tmp_path / "state"
    with pytest.raises(StopError):
        fitted(base, name, progress=stop, checkpoint=path, checkpoint_seconds=0)
    assert path.exists()
    resumed, report, facts = fitted(base, name, checkpoint=path, checkpoint_seconds=1e9)
    whole, other, more = fitted(base, name)
    assert report.adapters == other.adapters
    assert facts == more
    for key in KEYS:
        assert torch.equal(values(resumed, key), values(whole, key))


def test_one_with_few_dialogues_is_served_what_the_shared_parameters_become(base):
    """And not what they were when it had gone through its own dialogues: somebody without any was served better."""
    train, validation = data()
    train["a"], train["b"] = train["a"] * 4, train["b"][:1]
    bank = create_bank(base, SoftPrompt(3), KEYS, 5, create_bank(base, SoftPrompt(3), ["all"], 5))
    report, _ = fit_jointly(
        base, bank, bank.by_row(train), bank.by_row(dict.fromkeys(validation, validation["a"])),
        replace(OPTIONS, patience=0), 11, FromVector(width=6), CLUSTERS, torch.zeros(5, 4),
    )  # fmt: skip
    assert {report.adapters[key].steps for key in KEYS[:4]} == {3 * 12}, "though a has 24 dialogues, b one, c four"
    assert {len(report.adapters[key].validation_loss) for key in KEYS[:4]} == {3}
    for key in KEYS:
        torch.testing.assert_close(values(bank, key), values(bank, "a"), msg="they have one vector, so one adapter")


def test_somebody_without_dialogues_gets_what_the_design_says_of_them(base):
    levels, _, _ = fitted(base, "levels")
    everybody = create_bank(base, SoftPrompt(3), ["all"], 5)
    assert not torch.equal(values(levels, "e"), values(everybody, "all")), "the shared parts have been learned"
    mapped, _, _ = fitted(base, "from vector")
    assert not torch.equal(values(mapped, "e"), values(mapped, "a")), "another vector, another adapter"


def test_with_a_gate_the_start_is_the_backbone_to_the_bit(base, monkeypatch):
    # LoRA's start is the backbone, too; both through the model's own forward, which gates need.
    base = replace(base, engine="transformers")
    options = TrainOptions(learning_rate=1e-3, epochs=1, keep_start=True)
    _, gated, _ = fitted(base, "levels, free", options=options)
    _, lora, _ = fitted(base, "coefficients", options=options)
    for key in KEYS[:4]:
        assert gated.adapters[key].start_validation_loss == lora.adapters[key].start_validation_loss


def test_one_whose_loss_is_not_finite_is_given_up_and_the_others_go_on(make_backbone):
    broken = make_backbone("float64")
    broken.model.get_input_embeddings().weight.data[63] = float("nan")
    train, _ = data()
    train["b"][0] = Encoded((63, *train["b"][0].ids[1:]), train["b"][0].labels)
    bank, report, _ = fitted(broken, "levels", train=train)
    assert report.adapters["b"].status == "diverged"
    for key in ("a", "c", "d"):
        assert report.adapters[key].status == "ok"
        assert bool(values(bank, key).isfinite().all())


def test_empirical_bayes_finds_the_spread_where_there_is_information_and_keeps_it_where_there_is_none():
    generator = torch.Generator().manual_seed(0)
    known = nn.Parameter(0.3 * torch.randn(50, 40, generator=generator))
    prior = Prior({"level": known}, [30, 10], [1.0, 1.0])
    prior.observe("level", torch.full_like(known, 1e4))
    prior.end_epoch()
    assert prior.facts()["variance_level"] == pytest.approx([0.09, 0.09], rel=0.1)
    silent = Prior({"level": nn.Parameter(torch.zeros(50, 40))}, [40], [0.5])
    silent.observe("level", torch.full((50, 40), 1e-6))
    silent.end_epoch()
    assert silent.facts()["variance_level"] == pytest.approx([0.5], rel=1e-3)


def test_the_prior_is_the_normal_density():
    values = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    prior = Prior({"level": values}, [1, 1], [0.5, 2.0])
    assert float(prior.penalty().detach()) == pytest.approx(1 / (2 * 0.5) + 4 / (2 * 2.0))


def test_levels_add_up(base):
    bank = create_bank(base, SoftPrompt(2), KEYS, 5)
    flat = Flat(bank.tensors)
    design = LevelsDesign(flat.join(bank.tensors), flat, CLUSTERS, shrink=True)
    assert torch.equal(design()[3], flat.join(bank.tensors)[0])
    with torch.no_grad():
        design.cluster[1] += 2.0
        design.persona[3] += 5.0
    assert torch.allclose(design()[3] - design()[0], torch.full_like(design.mu[0], 7.0))
    assert torch.allclose(design()[2] - design()[0], torch.full_like(design.mu[0], 2.0))


def test_coefficients_scale_the_rank_directions(base):
    bank = create_bank(base, LoRA(rank=2, alpha=4.0), KEYS, 5)
    flat = Flat(bank.tensors)
    design = CoefficientsDesign(bank, flat, CLUSTERS, shrink=True)
    with torch.no_grad():
        for factor in design.factors:
            factor.normal_(generator=torch.Generator().manual_seed(1))
        design.persona[1, 0] = 1.0  # the first layer's first direction, doubled
    tensors = flat.split(design())
    name = next(n for n in flat.names if n.endswith("lora_B"))
    assert torch.allclose(tensors[name][1, :, 0], 2 * tensors[name][0, :, 0])
    assert torch.equal(tensors[name][1, :, 1], tensors[name][0, :, 1])
    gradient = torch.randn(design().shape, generator=torch.Generator().manual_seed(2), dtype=design.persona.dtype)
    design().backward(gradient)
    design.observe(gradient)
    assert design.prior is not None
    assert design.persona.grad is not None
    assert torch.allclose(design.prior.get_buffer("information_persona"), design.persona.grad.square())


def test_coefficients_need_a_lora_and_vectors_somebody(base):
    bank = create_bank(base, SoftPrompt(2), KEYS, 5)
    with pytest.raises(HarnessError, match="need a LoRA"):
        CoefficientsDesign(bank, Flat(bank.tensors), CLUSTERS, True)


def test_a_vector_network_starts_at_the_shared_start(base):
    bank = create_bank(base, SoftPrompt(2), KEYS, 5)
    start = Flat(bank.tensors).join(bank.tensors)
    assert torch.equal(FromVectorDesign(start, VECTORS, 6, 0)(), start[:1].expand_as(start))
