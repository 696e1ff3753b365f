"""What the tests of backbones share."""

from __future__ import annotations

import pytest


@pytest.fixture
def folder(tmp_path, make_backbone):
    """A model saved in Hub format, fp32."""
    made = make_backbone("float32")
    made.model.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"
