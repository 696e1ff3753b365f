"""The page as text: one file that asks for nothing, data inert, the same bytes. A browser reads it elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files

import pyarrow.parquet
import pytest

from harness.leaderboard import board_of
from harness.leaderboard.replies import MOST_CHARACTERS, examples
from harness.runs.stored import all_runs, write_run
from harness.store.disk import Store
from harness.text import script_json
from tests.leaderboard.conftest import BASE, CLOSER, EVIL, NOISE, made


def data_of(page: str) -> dict:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def test_the_page_is_one_file_that_asks_for_nothing(board_page):
    page = board_page
    markup = page.replace(files("leaderboard").joinpath("page.js").read_text(), "")
    assert not re.search(
        r"\b(src|href)\s*=\s*(?!\"#)", re.sub(r'<script id="data".*?</script>', "", markup, flags=re.S)
    )
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert not re.search(r"url\(", files("leaderboard").joinpath("page.css").read_text())


def test_only_the_pages_own_script_may_run(board_page):
    page = board_page
    assert len(re.findall(r"<script\b", page, re.IGNORECASE)) == 2, "data, and the page's own"
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "innerHTML" not in script
    assert "insertAdjacentHTML" not in script


def test_names_break_after_an_underscore_and_never_within_a_word(board_page):
    """The browser's test sees where; this one also runs without a browser."""
    (rule,) = re.findall(r"td\.name \{([^}]*overflow-wrap[^}]*)\}", board_page)
    assert "overflow-wrap: normal" in rule
    script = board_page.rpartition("<script>")[2]
    assert 'split(/(?<=[_.=])/).flatMap((part, i) => (i ? [make("wbr"), part] : [part]))' in script
    assert "named(textOf(row, c.key))" in script


def test_data_cannot_leave_their_script_element():
    text = script_json({EVIL: [CLOSER, "<!--", "]]>", "a\x00b\ud800c"]})
    assert not set(text) & set("<>&\u2028\u2029\x00")
    assert json.loads(text)[EVIL][1:] == ["<!--", "]]>", r"a\x00b\ud800c"]
    with pytest.raises(TypeError):
        script_json({"x": object()})


def test_same_runs_same_bytes_in_any_order(board_runs, board_page):
    assert made(board_of(all_runs(board_runs)[::-1])) == board_page


def test_examples_are_spread_evenly_and_bounded(board):
    group = next(g for g in board.groups if g.record.n_personas == 24)
    found = examples(group, 5)
    assert found.n_replies == 240
    places = [int(re.sub(r".*/d(\d+)#(\d)", r"\1", x.id)) for x in found.chosen]
    assert len(found.chosen) == 5
    assert found.chosen[0].persona == EVIL, "the first persona's"
    assert found.chosen[-1].persona == "p023"
    assert places[0] == 0
    assert all(len(x.replies) == 3 for x in found.chosen)
    assert examples(group, 0).chosen == ()
    assert len(examples(group, 10_000).chosen) == 240


def test_the_number_of_examples_is_an_option_and_long_replies_are_cut(harness, put, tmp_path):
    put("base", BASE)
    put("good", BASE + 0.03 + NOISE, texts=("q" * 3000, "r" * 3000, "x" * 3000))
    words = ["leaderboard", "--runs-dir", tmp_path / "runs", "--output", tmp_path / "README.md"]
    assert harness(*words, "--examples", "3")[0] == 0
    (group,) = data_of((tmp_path / "index.html").read_text())["groups"]
    assert len(group["examples"]["chosen"]) == 3
    reply = next(r for r in group["examples"]["chosen"][0]["replies"] if r["text"].startswith("x"))
    assert len(reply["text"]) == MOST_CHARACTERS
    assert reply["left_out"] == 3000 + len(" 0.700") - MOST_CHARACTERS


def test_runs_in_another_order_are_matched_by_the_examples_name(put, tmp_path):
    put("base", BASE)
    run = put("good", BASE + 0.03 + NOISE)
    table = pyarrow.parquet.read_table(run.path / "replies.parquet")
    turned = table.take(list(range(len(table) - 1, 4, -1)))
    write_run(
        Store(run.path.parent),
        run.record,
        lambda folder: pyarrow.parquet.write_table(turned, folder / "replies.parquet"),
    )
    (group,) = board_of(all_runs(tmp_path / "runs")).groups
    found = examples(group, 240)
    for example in found.chosen[5:]:
        texts = {reply.run: reply.text for reply in example.replies}
        assert len(texts) == 2
        person = int(example.persona[1:])
        assert texts[run.id] == f"scored {BASE[person] + 0.03 + NOISE[person]:.3f}"
    assert [len(example.replies) for example in found.chosen[:5]] == [1] * 5, "what one run lacks is not made up"


def test_a_broken_file_of_replies_is_named_and_left_out(put, tmp_path, harness):
    run = put("base", BASE)
    put("good", BASE + 0.03 + NOISE)
    (run.path / "replies.parquet").write_text("oops\n")
    code, _, err = harness("leaderboard", "--runs-dir", tmp_path / "runs", "--output", tmp_path / "README.md")
    assert code == 0
    assert err.splitlines() == [
        f"{run.path / 'replies.parquet'} is damaged: its digest is not the recorded one; the command that made the run "
        "makes it again; its replies are not on the page"
    ]
    (group,) = data_of((tmp_path / "index.html").read_text())["groups"]
    assert group["examples"]["without"] == ["base"]
    assert group["examples"]["chosen"]
