"""The embedded backbone: its size, its tokenizer, and the abilities that its card promises."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from harness.model.backbone import EMBEDDED_FOLDER, load_backbone

TINY = EMBEDDED_FOLDER / "tiny"


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("tiny")


@pytest.fixture(scope="module")
def abilities():
    """tests/scripts/abilities.py as a module."""
    spec = importlib.util.spec_from_file_location("abilities", Path(__file__).parents[1] / "scripts" / "abilities.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_weights_are_small_and_no_pickle():
    assert (TINY / "model.safetensors").stat().st_size <= 8_000_000
    assert not [p for p in TINY.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".pth")]


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_survives_the_tokenizer(tiny, text):
    if any("\ud800" <= c <= "\udfff" for c in text):
        return
    ids = tiny.tokenizer.encode(text, add_special_tokens=False)
    specials = set(tiny.tokenizer.all_special_tokens)
    if not any(special in text for special in specials):
        assert tiny.tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    "text", ["日本語 😀 naïve", "a  b\n\tc", " lead and trail ", "ﬁ ligature e\u0301", "0 100 1000"]
)
def test_awkward_text_survives(tiny, text):
    assert tiny.tokenizer.decode(tiny.tokenizer.encode(text, add_special_tokens=False)) == text


def test_numbers_are_one_token_each(tiny):
    assert all(len(tiny.tokenizer.encode(f" {n}", add_special_tokens=False)) == 1 for n in range(101))


def test_the_card_says_what_was_measured(abilities):
    card = (TINY / "README.md").read_text(encoding="utf-8")
    cost = json.loads((TINY / "training.json").read_text())
    assert cost["weights_sha256"][:16] in card
    assert "tests/scripts/abilities.py" in card


@pytest.mark.slow
def test_it_follows_stated_settings_and_reads_profiles(abilities):
    found = abilities.measure("tiny")
    assert found["stated"] >= 0.95
    assert found["profile"] >= 0.90
