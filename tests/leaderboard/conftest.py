"""The page's board of hostile names, which its tests as text and in a browser share."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from harness.leaderboard import board_of
from harness.leaderboard.page import render
from harness.runs.record import Rewaved
from harness.runs.stored import all_runs
from tests.conftest import written

BASE = np.linspace(0.7, 0.9, 24)
NOISE = np.random.default_rng(1).normal(0, 0.01, len(BASE))
EVIL = "<script>window.hacked=1;alert(1)</script><img src=x onerror=window.hacked=2>"
CLOSER = '</script><script>window.hacked=3</script>"onmouseover="window.hacked=4" @@DATA@@ $& \u2028'


@pytest.fixture(scope="session")
def board_runs(tmp_path_factory):
    """The folder of the runs of `board`: nobody writes there."""
    folder = tmp_path_factory.mktemp("board") / "runs"
    put = functools.partial(written, folder)
    hostile = {"name": EVIL, "options": {}, "facts": {CLOSER: EVIL}, "sha256": "0"}
    reference = {"score": 82.14, "se": 0.33, "source": EVIL, "aggregation": "micro", "note": CLOSER}
    ceilings = [{"name": f"oracle {EVIL}", "knows": CLOSER, "scores": {"similarity": 0.95}}]
    more = {"benchmark": hostile, "reference": reference, "ceilings": ceilings}
    more |= {"personas": [EVIL, *(f"p{i:03d}" for i in range(1, 24))], "texts": (CLOSER, CLOSER, CLOSER)}
    put("base", BASE, **more)
    put("good", BASE + 0.03 + NOISE, flags=[Rewaved()], **more)
    put(EVIL, BASE - 0.03 + NOISE, id="evil", summary=CLOSER, **more)
    put("base", BASE[:12], id="second-base", hashes={"examples": "f" * 64})
    put("other", BASE[:12] + 0.001, id="second-other", hashes={"examples": "f" * 64})
    put("half", BASE, id="half", status="failed", error=CLOSER)
    return folder


@pytest.fixture(scope="session")
def board(board_runs):
    """Two sections; names, a persona, replies, a flag, an error and a benchmark that are hostile."""
    return board_of(all_runs(board_runs))


@pytest.fixture(scope="session")
def board_page(board):
    """The page of `board`, drawn once."""
    return made(board)


def made(board, **options) -> str:
    from harness.leaderboard.figures import figures
    from harness.leaderboard.plots import draw

    return render(board, draw(f for group in board.groups for f in figures(group)), **options)
