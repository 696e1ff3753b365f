"""Fixtures of this folder: distributions that are made up for a test."""

from __future__ import annotations

import sys
import textwrap

import pytest


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A function that installs a made-up distribution with one plugin module under an entry-point name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def install(name: str, source: str, distribution: str = "strange", group: str = "harness.methods") -> str:
        module = f"{distribution}_{name}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{distribution}-1.5.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        points = info / "entry_points.txt"
        known = points.read_text() if points.exists() else ""
        points.write_text(f"{known}[{group}]\n{name} = {module}\n")
        made.append(module)
        return str(tmp_path / f"{module}.py")

    yield install
    for module in made:
        sys.modules.pop(module, None)
