"""What a user notices of loading a model: the right one comes, a wrong one is refused with a helpful line."""

from __future__ import annotations

import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from harness.errors import HarnessError
from harness.model import backbone, sources


def test_a_local_folder_loads_frozen_and_in_eval_mode(folder):
    loaded = backbone.load_backbone(str(folder))
    assert (loaded.hidden, loaded.dtype, loaded.device.type) == (16, torch.float32, "cpu")
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer("w3")["input_ids"] == [6]


def test_fingerprint_is_of_the_contents_not_of_the_place(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere")
    first = backbone.load_backbone(str(folder))
    assert backbone.load_backbone(str(tmp_path / "elsewhere")).fingerprint == first.fingerprint
    assert backbone.load_backbone(str(folder), dtype="bfloat16").fingerprint != first.fingerprint


def test_fingerprint_sees_one_weight_and_the_chat_template(folder):
    loaded = backbone.load_backbone(str(folder))
    before = loaded.fingerprint
    next(iter(loaded.model.parameters())).data[0, 0] += 1
    assert backbone.fingerprint(loaded.model, loaded.tokenizer) != before
    again = backbone.load_backbone(str(folder))
    again.tokenizer.chat_template = "{{ other }}"
    assert backbone.fingerprint(again.model, again.tokenizer) != before


def test_weights_in_bf16_are_converted_to_what_is_asked(folder, tmp_path):
    half = backbone.load_backbone(str(folder), dtype="bfloat16")
    half.model.save_pretrained(tmp_path / "half")
    half.tokenizer.save_pretrained(tmp_path / "half")
    loaded = backbone.load_backbone(str(tmp_path / "half"), dtype="float32")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    expected = {name: tensor.float() for name, tensor in half.model.state_dict().items()}
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_tokenizer_of_no_special_class_is_taken_to_the_letter(folder):
    """AutoTokenizer alone would rebuild it as the model type's own class, with other token ids."""
    assert backbone.load_backbone(str(folder)).tokenizer("w3 w4 nonsense")["input_ids"] == [6, 7, 2]


def test_embedded_models_load_by_name(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "EMBEDDED_FOLDER", tmp_path)
    assert sources.embedded_names() == ["model"]
    assert backbone.load_backbone("model").fingerprint == backbone.load_backbone(str(folder)).fingerprint


def test_a_mistyped_name_is_answered_at_once(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "EMBEDDED_FOLDER", tmp_path)
    monkeypatch.setattr(sources, "_hub_fault", lambda name: "no such model")
    start = time.perf_counter()
    with pytest.raises(HarnessError, match=r"no folder here and is not reachable on the Hub.*did you mean 'model'"):
        backbone.load_backbone("modle")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (404, "RepoNotFound", "no such model"),
        (401, "GatedRepo", ""),
        (503, "", "the Hub answers 503"),
        (0, "", "no connection"),
    ],
)
def test_what_the_hub_answers_is_said(monkeypatch, status, code, reason):
    """A server of the test's own on this machine answers as the Hub does; status 0: none is listening."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    asked: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        if not status:
            server.server_close()
        threading.Thread(target=server.serve_forever, daemon=True).start() if status else None
        found = sources._hub_fault("someone/model")
        if status:
            server.shutdown()
    assert reason in found if reason else found == ""
    assert asked.count("/api/models/someone/model") == (1 if status else 0)  # the client may ask for more of its own


def test_offline_the_hub_is_not_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert sources._hub_fault("someone/model") == "HF_HUB_OFFLINE is set"


def test_a_missing_folder_is_not_asked_for_on_the_hub(monkeypatch):
    monkeypatch.setattr(sources, "_hub_fault", lambda name: pytest.fail("asked the Hub"))
    for name in ("./nowhere", "/no/such/folder", "a/b/c"):
        with pytest.raises(HarnessError, match="does not exist"):
            backbone.load_backbone(name)


def test_an_impossible_hub_id_is_one_line(tmp_path):
    with pytest.raises(HarnessError, match="no backbone is named"):
        backbone.load_backbone(" ")
    with pytest.raises(HarnessError, match="neither a folder nor a possible Hub id"):
        backbone.load_backbone("what is this?")


def test_pickle_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(HarnessError, match="pickle"):
        backbone.load_backbone(str(folder))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "qwem2"}'), "cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08" * 100), "cannot be loaded"),
    ],
)
def test_damaged_folders_are_explained(folder, break_it, message):
    break_it(folder)
    with pytest.raises(HarnessError, match=message):
        backbone.load_backbone(str(folder))


def test_incomplete_weights_are_not_filled_with_random_numbers(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HarnessError, match=r"lack 1 tensors.*layers\.1\.mlp\.up_proj"):
        backbone.load_backbone(str(folder))


def test_unknown_dtype_and_device_are_explained(folder):
    with pytest.raises(HarnessError, match="did you mean 'float32'"):
        backbone.load_backbone(str(folder), dtype="float23")
    with pytest.raises(HarnessError, match="device 'gpu' cannot be used"):
        backbone.load_backbone(str(folder), device="gpu")


def test_a_model_that_needs_code_of_its_own_is_refused_without_advice_that_nobody_can_follow(tmp_path):
    for file in (sources.EMBEDDED_FOLDER / "tiny").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "strange", "auto_map": own}))
    (tmp_path / "own.py").write_text("raise SystemExit('run')\n")
    with pytest.raises(HarnessError, match="Python code of its own, which is never run") as refused:
        backbone.load_backbone(str(tmp_path))
    assert "trust" not in str(refused.value)
