"""Banks: what a row does to the model, that order and company do not matter, that PEFT reads our files."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file

from harness.adapters import merged
from harness.adapters.files import load_bank, open_adapter, save_bank, write_peft
from harness.adapters.kinds import CORE, create_bank
from harness.adapters.lora import dropped
from harness.contract.specs import CORE_ADAPTERS, GatedPrefix, LoRA, SoftPrompt
from harness.errors import ConfigError, HarnessError, StoreError
from harness.model import backbone as backbones

HOSTILE = ("../../x", "/etc/passwd", "", "a b\n", "CON", "ä" * 300, "x", "X")
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def random_lora(backbone, keys, spec=LoRA(rank=3, alpha=5.0), seed=0):  # noqa: B008
    """A LoRA bank whose B is not zero."""
    bank = create_bank(backbone, spec, keys, seed)
    generator = torch.Generator().manual_seed(1)
    for tensor in bank.tensors.values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * 0.3)
    return bank


def logits(backbone, ids, bank=None, rows=None, past=None):
    """Logits [B, T, V] of token rows ids [B, T] with adapter rows[b] in row b; `past`: a cache to stand behind."""
    with torch.no_grad():
        if bank is None:
            return backbone.model(input_ids=ids).logits
        rows = torch.tensor(rows)
        embedded = backbone.model.get_input_embeddings()(ids)
        prefix = bank.prefix(rows)
        with bank.applied(backbone.model, rows):
            if prefix is None:
                return backbone.model(inputs_embeds=embedded, past_key_values=past).logits
            whole = torch.cat([prefix, embedded], 1)
            return backbone.model(inputs_embeds=whole).logits[:, prefix.shape[1] :]


@pytest.fixture(scope="module")
def base(make_backbone):
    return make_backbone("float64")


IDS = torch.tensor([[5, 9, 11, 30, 7], [8, 8, 12, 3, 40], [60, 4, 21, 33, 10], [17, 18, 19, 20, 21]])


# ---- creation ----


@pytest.mark.parametrize(
    "spec",
    [
        *(SoftPrompt(4), SoftPrompt(4, init="random"), SoftPrompt(4, kind="kv"), SoftPrompt(4, kind="discrete")),
        *(GatedPrefix(4), LoRA(rank=2)),
    ],
)
def test_initial_values_follow_from_seed_and_key_alone(base, spec):
    wide = create_bank(base, spec, ("a", "b", "c"), seed=3)
    alone = create_bank(base, spec, ("b",), seed=3)
    turned = create_bank(base, spec, ("c", "b"), seed=3)
    other = create_bank(base, spec, ("b",), seed=4)
    for name, tensor in wide.tensors.items():
        assert torch.equal(tensor[1], alone.tensors[name][0])
        assert torch.equal(tensor[1], turned.tensors[name][1])
        if not name.endswith(("lora_B", "gate")):
            assert not torch.equal(tensor[0], tensor[1])
            assert not torch.equal(tensor[1], other.tensors[name][0])


def test_vocab_sample_takes_ordinary_tokens_without_repeats(base):
    table = base.model.get_input_embeddings().weight
    bank = create_bank(base, SoftPrompt(20), ("a", "b"), seed=0)
    for row in bank.tensors["prompt_embeddings"]:
        ids = [int((table == vector).all(1).nonzero()[0]) for vector in row]
        assert len(set(ids)) == 20
        assert not {0, 1, 2} & set(ids)


def test_random_init_has_the_spread_of_the_embeddings(base):
    table = base.model.get_input_embeddings().weight
    drawn = create_bank(base, SoftPrompt(200, init="random"), ("a", "b"), seed=0).tensors["prompt_embeddings"]
    assert math.isclose(drawn.std(), table.std(), rel_tol=0.05)
    assert abs(drawn.mean() - table.mean()) < 0.05 * table.std()


def test_a_new_lora_changes_nothing(base):
    bank = create_bank(base, LoRA(), ("a", "b"), seed=0)
    torch.testing.assert_close(logits(base, IDS[:2], bank, [0, 1]), logits(base, IDS[:2]), rtol=0, atol=1e-13)


def test_counts_are_of_one_adapter_and_of_all(make_backbone):
    small = make_backbone("bfloat16")
    assert create_bank(small, SoftPrompt(4), ("a", "b"), 0).trainable_per_adapter == 4 * 16
    lora = create_bank(small, LoRA(rank=2), ("a", "b", "c"), 0)
    assert lora.trainable_per_adapter == 2 * 2 * (16 + 16 + 16 + 8)  # 2 layers of q 16->16 and v 16->8
    assert lora.stored_bytes == 3 * lora.trainable_per_adapter * 4  # kept in fp32 on a bf16 backbone
    prefix = create_bank(small, SoftPrompt(4), ("a",), 0).prefix(torch.tensor([0]))
    assert prefix is not None
    assert prefix.dtype == torch.bfloat16


def test_a_start_is_copied_to_every_row_or_row_by_row(base):
    fitted = create_bank(base, SoftPrompt(3), ("global", "other"), seed=9)
    bank = create_bank(base, SoftPrompt(3), ("a", "b", "c"), seed=1, start=fitted.select([0]))
    values, origin = bank.tensors["prompt_embeddings"], fitted.tensors["prompt_embeddings"]
    assert all(torch.equal(row, origin[0]) for row in values)
    by_row = create_bank(base, SoftPrompt(3), ("a", "b", "c"), seed=1, start=fitted.select([1, 0, 1]))
    assert torch.equal(by_row.tensors["prompt_embeddings"], origin[[1, 0, 1]])
    values[0] += 1
    assert not torch.equal(values[0], values[1])
    assert not torch.equal(values[0], origin[0])


def test_a_start_that_does_not_fit_is_refused(base, make_backbone):
    prompt = create_bank(base, SoftPrompt(3), ("a", "b"), 0)
    with pytest.raises(HarnessError, match="same kind and shape"):
        create_bank(base, SoftPrompt(4), ("a", "b"), 0, start=prompt)
    with pytest.raises(HarnessError, match="same kind and shape"):
        create_bank(base, LoRA(), ("a", "b"), 0, start=prompt)
    with pytest.raises(HarnessError, match="from 1 adapter or from 3, not 2"):
        create_bank(base, SoftPrompt(3), ("a", "b", "c"), 0, start=prompt)
    with pytest.raises(HarnessError, match="another backbone"):
        create_bank(make_backbone(seed=5), SoftPrompt(3), ("a", "b"), 0, start=prompt)


def test_wrong_specifications_are_explained(base):
    with pytest.raises(ConfigError, match="at least 1 token"):
        SoftPrompt(0)
    with pytest.raises(ConfigError, match="did you mean 'vocab_sample'"):
        SoftPrompt(3, init="vocab_samples")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"(?s)rank.*alpha.*dropout"):
        LoRA(rank=0, alpha=-1, dropout=1.0)
    with pytest.raises(HarnessError, match="'a' is given twice"):
        create_bank(base, SoftPrompt(), ("a", "a"), 0)
    with pytest.raises(HarnessError, match=r"did you mean 'q_proj'\? Linear layers: down_proj, gate_proj"):
        create_bank(base, LoRA(targets=("v_proj", "q_prog")), ("a",), 0)


# ---- use ----


@pytest.mark.parametrize("rows", [[0, 1, 2, 0], [0, 0, 2, 2], [1, 1, 1, 1], [2, 1, 1, 1], [1], [2, 2]])
def test_every_row_of_a_lora_batch_uses_its_own_adapter(base, rows):
    bank = random_lora(base, ("a", "b", "c"), LoRA(rank=3, alpha=5.0, targets=ALL_LINEAR))
    got = logits(base, IDS[: len(rows)], bank, rows)
    for place, row in enumerate(rows):
        alone = merged(base, bank, row)
        torch.testing.assert_close(got[place], logits(alone, IDS[place : place + 1])[0], rtol=0, atol=1e-12)


def test_hooks_leave_with_the_context_even_after_an_error(base):
    bank = random_lora(base, ("a",))
    before = logits(base, IDS)
    with pytest.raises(ZeroDivisionError), bank.applied(base.model, torch.tensor([0])):
        raise ZeroDivisionError
    assert torch.equal(logits(base, IDS), before)


def test_repeated_rows_add_up_their_gradients(base):
    bank = random_lora(base, ("a", "b"))
    rows = torch.tensor([1, 0, 1, 1])
    for tensor in bank.tensors.values():
        tensor.requires_grad_(True)
    embedded = base.model.get_input_embeddings()(IDS)
    with bank.applied(base.model, rows):
        base.model(inputs_embeds=embedded).logits.square().sum().backward()
    together = {name: tensor.grad for name, tensor in bank.tensors.items()}
    for tensor in bank.tensors.values():
        tensor.grad = None
    for place, row in enumerate(rows):
        with bank.applied(base.model, row.view(1)):
            base.model(inputs_embeds=embedded[place : place + 1]).logits.square().sum().backward()
    for name, tensor in bank.tensors.items():
        torch.testing.assert_close(together[name], tensor.grad, rtol=1e-11, atol=1e-11)


def test_merging_gives_the_hooks_logits_and_leaves_the_original(make_backbone):
    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-12)):
        base = make_backbone(dtype)
        before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
        bank = random_lora(base, ("a", "b"), LoRA(rank=3, alpha=5.0, targets=ALL_LINEAR))
        folded = merged(base, bank, 1)
        torch.testing.assert_close(
            logits(folded, IDS), logits(base, IDS, bank, [1, 1, 1, 1]), rtol=tolerance, atol=tolerance
        )
        assert folded.fingerprint not in (base.fingerprint, merged(base, bank, 0).fingerprint)
        assert base.fingerprint == backbones.fingerprint(base.model, base.tokenizer)
        assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())
        with pytest.raises(HarnessError, match="row 2 is not in a bank of 2"):
            merged(base, bank, 2)
        with pytest.raises(HarnessError, match="cannot be merged"):
            merged(base, create_bank(base, SoftPrompt(2), ("a",), 0), 0)


def test_dropout_masks_depend_on_seed_layer_and_place_only():
    ones = torch.ones(2, 400, 16, dtype=torch.float64)
    both = dropped(ones, torch.tensor([12345678901234, 5]), 3, 0.25)
    kept = both != 0
    assert abs(kept.double().mean() - 0.75) < 0.01
    torch.testing.assert_close(both[kept], torch.full_like(both[kept], 1 / 0.75))
    assert torch.equal(dropped(ones[:1, :100], torch.tensor([5]), 3, 0.25)[0], both[1, :100])  # shorter padding
    for other in (
        dropped(ones[:1], torch.tensor([6]), 3, 0.25),
        dropped(ones[:1], torch.tensor([5]), 4, 0.25),
    ):
        agreement = ((other[0] != 0) == kept[1]).double().mean()
        assert abs(agreement - (0.75**2 + 0.25**2)) < 0.02  # as independent masks do


# ---- files ----


@pytest.mark.parametrize(
    "spec",
    [
        *(SoftPrompt(3), SoftPrompt(3, kind="kv"), SoftPrompt(3, kind="discrete", init="text", text="w4 w9")),
        *(GatedPrefix(3), LoRA(rank=2, alpha=4.0, targets=("q_proj", "o_proj"), dropout=0.1)),
    ],
)
@pytest.mark.parametrize("shard", [2, 256])
def test_a_saved_bank_comes_back_under_hostile_keys(base, tmp_path, spec, shard):
    bank = create_bank(base, spec, HOSTILE, seed=2)
    place = tmp_path / "deep" / "er" / "adapters"
    save_bank(bank, place, "some/base", shard=shard)
    folders = write_peft(bank, place, "some/base")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]
    assert all(folder.parent == place for folder in folders)
    assert len(list(place.glob("*/adapter_model.safetensors"))) == len(HOSTILE)
    assert len(list(place.glob("shard-*.safetensors"))) == math.ceil(len(HOSTILE) / shard)
    again = load_bank(place, base)
    assert again.keys == HOSTILE
    assert again.spec == spec
    for name, tensor in bank.tensors.items():
        assert torch.equal(again.tensors[name], tensor)
    for row, key in enumerate(HOSTILE):
        one = open_adapter(place, key)
        assert one.keys() == bank.tensors.keys()
        assert all(torch.equal(one[name], tensor[row]) for name, tensor in bank.tensors.items())


def test_one_adapter_of_many_is_found_by_its_key_in_one_file(base, tmp_path):
    keys = [f"p{number:03d}" for number in range(40)]
    bank = create_bank(base, SoftPrompt(2), keys, seed=0)
    save_bank(bank, tmp_path, "base", shard=7)
    for path in tmp_path.glob("shard-*.safetensors"):  # those that p021 is not in
        if path.name != "shard-00003.safetensors":
            path.unlink()
    assert torch.equal(open_adapter(tmp_path, "p021")["prompt_embeddings"], bank.tensors["prompt_embeddings"][21])
    some = load_bank(tmp_path, base, ["p027", "p021", "p024"])
    assert some.keys == ("p027", "p021", "p024")
    assert torch.equal(some.tensors["prompt_embeddings"], bank.tensors["prompt_embeddings"][[27, 21, 24]])
    with pytest.raises(HarnessError, match=r"no adapter 'p0211'.*did you mean 'p021'"):
        open_adapter(tmp_path, "p0211")
    with pytest.raises(HarnessError, match="no adapter 'a'"):
        open_adapter(tmp_path, "a")
    with pytest.raises(StoreError, match="cannot be read"):
        load_bank(tmp_path, base)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        *(("qwen2", "input"), ("llama", "input"), ("gpt2", "input"), ("qwen2", "lora"), ("llama", "lora")),
        *(("qwen2", "kv"), ("llama", "kv"), ("gpt2", "kv"), ("qwen2", "discrete")),
    ],
)
def test_peft_loads_our_folder_and_gives_the_same_logits(make_backbone, cache_of, tmp_path, architecture, kind):
    from peft import PeftModel

    base = make_backbone("float32", architecture)
    if kind == "lora":
        bank = random_lora(base, ("a", "../b"))
    else:
        bank = create_bank(base, SoftPrompt(3, kind=kind), ("a", "../b"), seed=0)
        for tensor in bank.tensors.values():  # away from the start, where kv is an input prompt too
            tensor += 0.3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
    (folder,) = write_peft(bank, tmp_path, "base", ["../b"])
    ours = logits(base, IDS[:1], bank, [1], cache_of(bank, 1))
    fresh = make_backbone("float32", architecture)  # PEFT changes the model it wraps
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(fresh.model, str(folder))(input_ids=IDS[:1]).logits
    torch.testing.assert_close(ours, theirs[:, -IDS.shape[1] :], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, logits(base, IDS[:1]), atol=1e-2)


def test_a_bank_of_another_backbone_is_refused(base, make_backbone, tmp_path):
    save_bank(create_bank(base, SoftPrompt(3), ("a",), 0), tmp_path, "x/first")
    with pytest.raises(StoreError, match=r"another backbone \(x/first"):
        load_bank(tmp_path, make_backbone("float64", seed=1))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "index.json").unlink(), "no complete bank"),
        (lambda folder: (folder / "index.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "index.json").write_text("[]"), "not an index"),
        (
            lambda folder: (folder / "shard-00000.safetensors").write_bytes(b"\x00" * 30),
            "cannot be read",
        ),
        (lambda folder: (folder / "shard-00000.safetensors").unlink(), "cannot be read"),
        (lambda folder: rewrite(folder, '"shard-00000', '"../shard-00000'), "never writes"),
        (
            lambda folder: save_file({"prompt_embeddings": torch.zeros(2, 3, 16)}, folder / "shard-00000.safetensors"),
            "does not say whose",
        ),
        (
            lambda folder: rewrite(folder, '"tokens": 3', '"tokens": 4'),
            r"shape \(2, 3, 16\), wanted shape \(2, 4, 16\)",
        ),
        (
            lambda folder: rewrite(folder, '"tokens"', '"tokans"'),
            "not an index of adapters for this backbone",
        ),
        (lambda folder: rewrite(folder, '"format": 2', '"format": 99'), "format 99"),
    ],
)
def test_damaged_banks_are_explained(base, tmp_path, break_it, message):
    save_bank(create_bank(base, SoftPrompt(3), ("a", "b"), 0), tmp_path, "x")
    break_it(tmp_path)
    with pytest.raises(StoreError, match=message):
        load_bank(tmp_path, base)


def rewrite(folder, old, new):
    path = folder / "index.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# ---- kinds ----


def test_no_plugin_may_take_the_name_of_a_kind_of_the_core():
    assert {kind.name for kind in CORE} == CORE_ADAPTERS


def test_what_is_no_spec_is_refused_with_the_known_ones(base):
    with pytest.raises(HarnessError, match=r"is the spec of no kind of adapter; known: GatedPrefix, LoRA,.*Prompt"):
        create_bank(base, {"rank": 3}, ("a",), seed=0)
