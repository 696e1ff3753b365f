"""The page: one file that asks for nothing, hostile text inert, sorted and filtered and read in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files

import numpy as np
import pyarrow.parquet
import pytest

from harness.leaderboard import board_of
from harness.leaderboard.page import render
from harness.leaderboard.replies import MOST_CHARACTERS, examples
from harness.runs.record import Rewaved
from harness.runs.stored import all_runs, write_run
from harness.store.disk import Store
from harness.text import script_json, terminal
from tests.leaderboard import browser

BASE = np.linspace(0.7, 0.9, 24)
NOISE = np.random.default_rng(1).normal(0, 0.01, len(BASE))
EVIL = "<script>window.hacked=1;alert(1)</script><img src=x onerror=window.hacked=2>"
CLOSER = '</script><script>window.hacked=3</script>"onmouseover="window.hacked=4" @@DATA@@ $& \u2028'


@pytest.fixture
def board(put, tmp_path):
    """Two sections; names, a persona, replies, a flag, an error and a benchmark that are hostile."""
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
    return board_of(all_runs(tmp_path / "runs"))


def made(board, **options) -> str:
    from harness.leaderboard.figures import figures
    from harness.leaderboard.plots import draw

    return render(board, draw(f for group in board.groups for f in figures(group)), **options)


def data_of(page: str) -> dict:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def test_the_page_is_one_file_that_asks_for_nothing(board):
    page = made(board)
    markup = page.replace(files("leaderboard").joinpath("page.js").read_text(), "")
    assert not re.search(
        r"\b(src|href)\s*=\s*(?!\"#)", re.sub(r'<script id="data".*?</script>', "", markup, flags=re.S)
    )
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert not re.search(r"url\(", files("leaderboard").joinpath("page.css").read_text())


def test_only_the_pages_own_script_may_run(board):
    page = made(board)
    assert len(re.findall(r"<script\b", page, re.IGNORECASE)) == 2, "data, and the page's own"
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "innerHTML" not in script
    assert "insertAdjacentHTML" not in script


def test_data_cannot_leave_their_script_element():
    text = script_json({EVIL: [CLOSER, "<!--", "]]>", "a\x00b\ud800c"]})
    assert not set(text) & set("<>&\u2028\u2029\x00")
    assert json.loads(text)[EVIL][1:] == ["<!--", "]]>", r"a\x00b\ud800c"]
    with pytest.raises(TypeError):
        script_json({"x": object()})


def test_same_runs_same_bytes_in_any_order(board, tmp_path):
    again = board_of(all_runs(tmp_path / "runs")[::-1])
    assert made(again) == made(board)


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


# ---- in a browser ----


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    program = browser.installed()
    if program is None:
        pytest.skip("no Chromium is installed, so the page was opened by nobody: apt-get install chromium")
    started = browser.Browser(program, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def page(chromium, board, tmp_path):
    """open(after the #) -> the browser with the page of `board`."""
    path = tmp_path / "index.html"
    path.write_text(made(board), encoding="utf-8")
    chromium.screen(1280, 900)

    def visit(address: str = "") -> browser.Browser:
        chromium.open(path.as_uri() + (f"#{address}" if address else ""))
        return chromium

    return visit


KEY = "document.querySelector('main section').id.slice(6)"
COLUMN = "[...document.querySelector('main table').tBodies[0].rows].map(r => r.cells[{}].textContent)"
HEADS = "[...document.querySelector('main table').tHead.rows[0].cells].map(c => c.dataset.key)"


def column(page, key: str) -> list[str]:
    return page.js(COLUMN.format(page.js(HEADS).index(key)))


def test_hostile_text_is_shown_and_inert(page):
    seen = page()
    assert seen.faults == []
    assert seen.js("window.hacked") is None
    assert (
        seen.js("document.querySelectorAll('main script, main [onerror], main [onmouseover], img[src=x]').length") == 0
    )
    text = seen.js("document.body.innerText")
    assert EVIL in text, "the name is shown as it is"
    assert EVIL in column(seen, "method")
    assert seen.js("document.querySelector('.reply.given p').textContent").startswith("user: " + CLOSER[:20])
    assert seen.js("document.querySelector('.reply:not(.given) p').textContent").startswith(CLOSER[:20])
    # Were a script to get in, the policy would stop it.
    seen.js("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked=5'}))")
    seen.js("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=window.hacked=6>')")
    seen.js("new Promise(done => setTimeout(done, 100))")
    assert seen.js("window.hacked") is None


def test_nothing_is_fetched_but_the_file_itself(page):
    seen = page()
    seen.js("document.querySelectorAll('img').forEach(i => { i.loading = 'eager'; })")
    drawn = "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    widths = seen.js(drawn)
    assert widths
    assert min(widths) > 100, "every plot is drawn"
    outside = [url for url in seen.asked if not url.startswith("data:")]
    assert len(outside) == 1
    assert outside[0].endswith("index.html")
    assert seen.faults == []


def test_a_click_sorts_another_turns_round_a_third_goes_back(page):
    seen = page()
    ranked = column(seen, "score")
    assert [float(x) for x in ranked] == sorted((float(x) for x in ranked), reverse=True)
    click = "document.querySelector('main th[data-key=method] button').click()"
    seen.js(click)
    names = column(seen, "method")
    assert names == sorted(names, key=str.lower)
    assert seen.js("document.querySelector('main th[data-key=method]').ariaSort") == "ascending"
    seen.js(click)
    assert column(seen, "method") == names[::-1]
    seen.js(click)
    assert column(seen, "score") == ranked
    assert seen.js("document.querySelector('main th[data-key=method]').ariaSort") == "none"


def test_numbers_sort_as_numbers_and_empty_cells_stay_last(page):
    seen = page()
    for turn in (-1, 1):
        seen.js("document.querySelector('main th[data-key=delta] button').click()")
        cells = column(seen, "delta")
        full = [float(x) for x in cells if x]
        assert len(full) == 2
        assert full == sorted(full, key=lambda x, turn=turn: turn * x)
        assert cells[len(full) :] == [""] * (len(cells) - len(full))


def test_the_keyboard_sorts_and_filters(page):
    seen = page()
    seen.js("document.querySelector('main th[data-key=method] button').focus()")
    seen.key("Enter", 13, "\r")
    assert seen.js("document.querySelector('main th[data-key=method]').ariaSort") == "ascending"
    seen.js("document.getElementById('q').focus()")
    seen.send("Input.insertText", text="GOOD")
    assert column(seen, "method") == ["good"]
    seen.key("Tab", 9)
    assert seen.js("document.activeElement.id") == "verdict"


def test_filters_by_name_flag_and_verdict_and_is_reset(page):
    seen = page()
    everything = column(seen, "method")

    def ask(box: str, text: str, event: str) -> list[str]:
        code = (
            f"e = document.getElementById('{box}'); e.value = {json.dumps(text)}; e.dispatchEvent(new Event('{event}'))"
        )
        seen.js(f"{{let {code}}}")
        return column(seen, "method")

    assert ask("q", "goo", "input") == ["good"]
    assert seen.js("document.getElementById('count').textContent") == "1 row"
    assert ask("q", "rewaved", "input") == ["good"]
    with pytest.raises(RuntimeError):  # one cell over all columns
        ask("q", "nothing at all", "input")
    assert seen.js("document.querySelector('main tbody').innerText").strip() == "No row fits the filter."
    assert ask("q", "", "input") == everything
    assert ask("verdict", "worse", "change") == [EVIL]
    seen.js("document.getElementById('reset').click()")
    assert column(seen, "method") == everything


def test_an_address_carries_sorting_filter_and_example(page):
    seen = page()
    key = seen.js(KEY)
    assert re.fullmatch(r"[0-9a-f]{8}", key)
    seen = page(f"sort={key}:method:desc&ex={key}:4&q=o")
    names = column(seen, "method")
    assert names == sorted(names, key=str.lower, reverse=True)
    assert seen.js(f"document.getElementById('ex-{key}').value") == "4"
    seen.js(
        "document.getElementById('q').value = 'goo'; document.getElementById('q').dispatchEvent(new Event('input'))"
    )
    address = seen.js("location.hash")
    assert "q=goo" in address
    assert f"{key}%3A4" in address
    seen.js("location.hash = 'verdict=better'")
    seen.js("new Promise(done => setTimeout(done, 50))")
    assert column(seen, "method") == ["good"]
    assert page("sort=zzz:nothing&ex=zzz:x&verdict=%3Cscript%3E").faults == []


def test_replies_stand_side_by_side(page, board):
    seen = page()
    key = seen.js(KEY)
    group = next(g for g in board.groups if g.key == key)
    chosen = examples(group).chosen
    cards = (
        "[...document.querySelectorAll('main > section:first-of-type .reply:not(.given)')]"
        ".map(c => ['h4', 'p'].map(x => c.querySelector(x).textContent))"
    )
    for place in (0, 1):
        shown = seen.js(cards)
        assert [text for _, text in shown] == [terminal(reply.text) for reply in chosen[place].replies]
        assert {name for name, _ in shown} == {"good", "base (baseline)", EVIL}
        seen.js("[...document.querySelectorAll('main > section:first-of-type .picker button')].at(-1).click()")
    seen.js(f"{{let e = document.getElementById('ex-{key}'); e.value = '20'; e.dispatchEvent(new Event('change'))}}")
    assert [text for _, text in seen.js(cards)] == [terminal(reply.text) for reply in chosen[19].replies]
    assert seen.js("[...document.querySelectorAll('main > section:first-of-type .picker button')].at(-1).disabled")
    assert "20 of 240 examples" in seen.js("document.body.innerText")
    given = "[...document.querySelectorAll('main > section:first-of-type .given p')].map(p => p.textContent)"
    last = chosen[19]
    assert seen.js(given) == [terminal(one.text) for one in (last.prompt, last.reference) if one]
    assert seen.js(given)[0].startswith("user: "), "what was asked stands beside the replies"


def test_published_records_say_that_they_have_no_replies(chromium, board, tmp_path):
    from harness.leaderboard import publish_records, published

    publish_records(all_runs(tmp_path / "runs"), tmp_path / "records")
    path = tmp_path / "index.html"
    path.write_text(made(board_of(published(tmp_path / "records"))), encoding="utf-8")
    chromium.open(path.as_uri())
    assert chromium.js("document.querySelectorAll('.reply').length") == 0
    assert chromium.js("document.body.innerText").count("Published records keep sums per persona and no replies") == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_turns_with_the_colour_scheme(page, scheme):
    seen = page()
    seen.screen(390, 844, scheme, mobile=True)
    assert seen.js("document.documentElement.scrollWidth") <= 390, seen.js(
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > 390 &&"
        " !e.closest('.scroll, figure div')).map(e => e.outerHTML.slice(0, 200))"
    )
    paper = seen.js("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
