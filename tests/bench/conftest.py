from __future__ import annotations

import pytest


@pytest.fixture
def another_harness(tmp_path, monkeypatch):
    """The current folder has a package `harness`, as this repository has. What is measured must not import it."""
    package = tmp_path / "current" / "harness"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('the harness of the current folder')\n")
    monkeypatch.chdir(package.parent)
