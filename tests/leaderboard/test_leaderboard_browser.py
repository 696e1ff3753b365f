"""The page in a real browser: hostile text inert, sorted, filtered, read, on a phone and in the dark.

playwright drives the system's Chromium. Without one of them nothing here is tested, and the tests say so.
"""

from __future__ import annotations

import functools
import itertools
import re
import shutil

import pytest

from harness.leaderboard import board_of, publish_records, published
from harness.leaderboard.replies import examples
from harness.runs.stored import all_runs
from harness.text import terminal
from tests.leaderboard.conftest import BASE, CLOSER, EVIL, NOISE, made

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip(
        "playwright.sync_api",
        reason="playwright is not installed, so the page was opened by nobody: pip install playwright",
    )
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed, so the page was opened by nobody: apt-get install chromium")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


class Seen:
    """One page, with its faults and every address that it asked for."""

    def __init__(self, page) -> None:
        self.page, self.faults, self.asked = page, [], []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda said: self.faults.append(said.text) if said.type in ("warning", "error") else None)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("dialog", lambda dialog: (self.faults.append(dialog.message), dialog.accept()))

    @property
    def section(self):
        return self.page.locator("main > section").first

    @property
    def key(self) -> str:
        return (self.section.get_attribute("id") or "").removeprefix("group-")

    def head(self, key: str):
        return self.section.locator(f"th[data-key={key}]")

    def sort(self, key: str) -> str | None:
        """Click a column's head; what it then says of itself."""
        self.head(key).get_by_role("button").click()
        return self.head(key).get_attribute("aria-sort")

    def column(self, key: str) -> list[str]:
        code = """(section, key) => {
            const table = section.querySelector('table');
            const place = [...table.tHead.rows[0].cells].findIndex(cell => cell.dataset.key === key);
            return [...table.tBodies[0].rows].map(row => row.cells[place].textContent);
        }"""
        return self.section.evaluate(code, key)

    def replies(self) -> list[tuple[str, str]]:
        cards = "cards => cards.map(c => ['h4', 'p'].map(x => c.querySelector(x).textContent))"
        return [tuple(pair) for pair in self.section.locator(".reply:not(.given)").evaluate_all(cards)]


@pytest.fixture(scope="module")
def context(chromium):
    """context(width, height, scheme) -> a window of that size, made once."""
    return functools.cache(
        lambda width, height, scheme: chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
    )


@pytest.fixture
def visit(context, tmp_path, board, board_page):
    """visit(board, after the #, width, height, scheme) -> what is Seen of the board's page."""
    pages = []

    def call(other, address: str = "", width: int = 1280, height: int = 900, scheme: str = "light") -> Seen:
        path = tmp_path / "index.html"
        path.write_text(board_page if other is board else made(other), encoding="utf-8")
        pages.append(context(width, height, scheme).new_page())
        seen = Seen(pages[-1])
        seen.page.goto(path.as_uri() + (f"#{address}" if address else ""))
        return seen

    yield call
    for page in pages:
        page.close()


def test_hostile_text_is_shown_and_inert(visit, board):
    seen = visit(board)
    assert seen.faults == []
    assert seen.page.evaluate("window.hacked") is None
    assert seen.page.locator("main script, main [onerror], main [onmouseover], img[src=x]").count() == 0
    assert EVIL in seen.page.inner_text("body"), "the name is shown as it is"
    assert EVIL in seen.column("method")
    assert (seen.section.locator(".reply.given p").first.text_content() or "").startswith("user: " + CLOSER[:20])
    assert seen.replies()[0][1].startswith(CLOSER[:20])
    # Were a script to get in, the policy would stop it.
    seen.page.evaluate(
        """new Promise(done => {
            document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked=5'}));
            document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=window.hacked=6>');
            setTimeout(done, 100);
        })"""
    )
    assert seen.page.evaluate("window.hacked") is None


def test_nothing_is_fetched_but_the_file_itself(visit, board):
    seen = visit(board)
    drawn = """() => {
        document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; });
        return Promise.all([...document.images].map(image => image.decode().then(() => image.naturalWidth)));
    }"""
    widths = seen.page.evaluate(drawn)
    assert len(widths) >= 6
    assert min(widths) > 100, "every plot is drawn"
    outside = [url for url in seen.asked if not url.startswith("data:")]
    assert len(outside) == 1
    assert outside[0].endswith("index.html")
    assert seen.faults == []


def test_the_page_opens_with_its_headline_plot_and_contents(visit, board):
    seen = visit(board)
    text = seen.page.inner_text("#headline")
    assert text.startswith("other beats base by 0.1 pt of similarity"), "of the section without a simulator's ceilings"
    assert seen.page.locator("#headline img").evaluate("image => image.getBoundingClientRect().top") < 900
    links = seen.page.locator("#contents a")
    assert links.count() == seen.page.locator("main > section[id^=group-]").count() == 2
    links.nth(1).click()
    second = seen.page.locator("main > section").nth(1)
    assert abs(second.evaluate("section => section.getBoundingClientRect().top")) < 100
    again = visit(board, (second.get_attribute("id") or ""))
    assert again.page.evaluate("window.scrollY") > 500, "a link leads to its section"


def test_nothing_moves_while_plots_are_drawn(visit, board):
    seen = visit(board)
    height = "document.documentElement.scrollHeight"
    before = seen.page.evaluate(height)
    seen.page.evaluate("document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; })")
    seen.page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    assert seen.page.evaluate(height) == before


def test_a_click_sorts_another_turns_round_a_third_goes_back(visit, board):
    seen = visit(board)
    ranked = seen.column("score")
    assert [float(x) for x in ranked] == sorted((float(x) for x in ranked), reverse=True)
    assert seen.sort("method") == "ascending"
    names = seen.column("method")
    assert names == sorted(names, key=str.lower)
    assert seen.sort("method") == "descending"
    assert seen.column("method") == names[::-1]
    assert seen.sort("method") == "none"
    assert seen.column("score") == ranked


def test_numbers_sort_as_numbers_and_empty_cells_stay_last(visit, board):
    seen = visit(board)
    for turn in (-1, 1):
        seen.sort("delta")
        cells = seen.column("delta")
        full = [float(x) for x in cells if x]
        assert len(full) == 2
        assert full == sorted(full, key=lambda x, turn=turn: turn * x)
        assert cells[len(full) :] == [""] * (len(cells) - len(full))


def test_the_keyboard_sorts_and_filters(visit, board):
    seen = visit(board)
    seen.head("method").get_by_role("button").focus()
    seen.page.keyboard.press("Enter")
    assert seen.head("method").get_attribute("aria-sort") == "ascending"
    seen.page.locator("#q").focus()
    seen.page.keyboard.type("GOOD")
    assert seen.column("method") == ["good"]
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.id") == "verdict"


def test_filters_by_name_flag_and_verdict_and_is_reset(visit, board):
    seen = visit(board)
    everything = seen.column("method")
    search = seen.page.locator("#q")
    search.fill("goo")
    assert seen.column("method") == ["good"]
    assert seen.page.text_content("#count") == "1 row"
    search.fill("rewaved")
    assert seen.column("method") == ["good"]
    search.fill("nothing at all")
    assert seen.section.locator("tbody").inner_text().strip() == "No row fits the filter."
    search.fill("")
    assert seen.column("method") == everything
    seen.page.select_option("#verdict", "worse")
    assert seen.column("method") == [EVIL]
    seen.page.click("#reset")
    assert seen.column("method") == everything


def test_an_address_carries_sorting_filter_and_example(visit, board):
    key = visit(board).key
    assert re.fullmatch(r"[0-9a-f]{8}", key)
    seen = visit(board, f"sort={key}:method:desc&ex={key}:4&q=o")
    names = seen.column("method")
    assert names == sorted(names, key=str.lower, reverse=True)
    assert seen.page.input_value(f"#ex-{key}") == "4"
    seen.page.fill("#q", "goo")
    address = seen.page.evaluate("location.hash")
    assert "q=goo" in address
    assert f"{key}%3A4" in address
    seen.page.evaluate(
        "new Promise(done => { addEventListener('hashchange', done); location.hash = 'verdict=better'; })"
    )
    assert seen.column("method") == ["good"]
    assert visit(board, "sort=zzz:nothing&ex=zzz:x&verdict=%3Cscript%3E").faults == []


def test_replies_stand_side_by_side_and_personas_are_chosen(visit, board):
    seen = visit(board)
    group = next(group for group in board.groups if group.key == seen.key)
    chosen = examples(group).chosen
    for place in (0, 1):
        assert [text for _, text in seen.replies()] == [terminal(reply.text) for reply in chosen[place].replies]
        assert {name for name, _ in seen.replies()} == {"good", "base (baseline)", EVIL}
        seen.section.get_by_role("button", name="next").click()
    personas = seen.page.locator(f"#who-{seen.key} option").all_text_contents()
    assert personas == list(dict.fromkeys(terminal(example.persona) for example in chosen))
    seen.page.select_option(f"#who-{seen.key}", label=personas[-1])
    assert [text for _, text in seen.replies()] == [terminal(reply.text) for reply in chosen[16].replies]
    seen.page.select_option(f"#ex-{seen.key}", "20")
    last = chosen[19]
    assert [text for _, text in seen.replies()] == [terminal(reply.text) for reply in last.replies]
    assert seen.section.get_by_role("button", name="next").is_disabled()
    assert "20 of 240 examples" in seen.page.inner_text("body")
    given = seen.section.locator(".given p").all_text_contents()
    assert given == [terminal(one.text) for one in (last.prompt, last.reference) if one]
    assert given[0].startswith("user: "), "what was asked stands beside the replies"


def test_words_that_the_reference_does_not_have_are_marked(visit, put, tmp_path):
    put("base", [0.5] * 8, texts=("ask", "the lamp is red", "the lamp"))
    put("m", [0.6] * 8, texts=("ask", "the lamp is red", "a red lamp"))
    seen = visit(board_of(all_runs(tmp_path / "runs")))
    cards = {
        name: card
        for card in seen.section.locator(".reply:not(.given)").all()
        if (name := card.locator("h4").inner_text())
    }
    # The reference is "the lamp is red 0", replies end with their scores.
    assert cards["m"].locator("mark").all_text_contents() == ["a", "red", "0.600"]
    assert cards["base (baseline)"].locator("mark").all_text_contents() == ["0.500"]


def test_published_records_say_that_they_have_no_replies(visit, board_runs, tmp_path):
    publish_records(all_runs(board_runs), tmp_path / "records")
    seen = visit(board_of(published(tmp_path / "records")))
    assert seen.page.locator(".reply").count() == 0
    assert seen.page.inner_text("body").count("Published records contain sums per persona and no replies") == 2


@pytest.mark.parametrize("width", [1440, 1280])
def test_tables_fit_and_heads_stay_on_one_line(visit, board, width):
    seen = visit(board, width=width)
    wide = "boxes => boxes.map(box => box.scrollWidth - box.clientWidth)"
    assert seen.page.locator("main .scroll").evaluate_all(wide) == [0] * seen.page.locator("main .scroll").count()
    tall = "buttons => buttons.map(button => button.getBoundingClientRect().height)"
    assert len(set(seen.section.locator("th button").evaluate_all(tall))) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_turns_with_the_colour_scheme(visit, board, scheme):
    seen = visit(board, width=390, height=844, scheme=scheme)
    outside = """[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 391 &&
        !e.closest('.scroll, figure div')).map(e => e.outerHTML.slice(0, 200))"""
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390, seen.page.evaluate(outside)
    assert seen.head("score").is_visible()
    assert not seen.head("se").is_visible(), "fewer columns on a phone"
    name = seen.section.locator("td.name").first
    assert name.evaluate("cell => getComputedStyle(cell).position") == "sticky"
    paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]


@pytest.mark.parametrize("width", [390, 1280])
def test_a_method_name_breaks_only_after_an_underscore_a_dash_or_a_space(visit, put, width):
    name = "counterfactualisation_of_hierarchical-prefixes (control: swapped)"
    put("base", BASE)
    run = put(name, BASE + 0.03 + NOISE, id="long")
    seen = visit(board_of(all_runs(run.path.parent)), width=width)
    code = """cell => {
        const lines = [], words = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), range = document.createRange();
        for (let node; (node = words.nextNode()); ) {
            for (let i = 0; i < node.length; i++) {
                range.setStart(node, i);
                range.setEnd(node, i + 1);
                lines.push([node.data[i], Math.round(range.getBoundingClientRect().top)]);
            }
        }
        return lines;
    }"""
    cell = seen.section.locator("td.name").filter(has_text="counterfactual")
    places = cell.evaluate(code)
    assert "".join(letter for letter, _ in places) == name, "the name is whole when it is copied"
    broken = [first for (first, above), (second, below) in itertools.pairwise(places)
              if second != " " and below > above]  # fmt: skip
    assert set(broken) <= {"_", "-", " "}
    assert broken or width == 1280
