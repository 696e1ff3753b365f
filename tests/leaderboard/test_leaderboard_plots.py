"""The plots: which there are, what they show, the same bytes for the same runs, hostile names as text alone."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from harness.leaderboard import board_of, render
from harness.leaderboard.cost_plot import apart
from harness.leaderboard.figures import MOST_PANELS, MOST_ROWS, figures, panels, points
from harness.leaderboard.files import write_board
from harness.leaderboard.plots import draw
from harness.leaderboard.rows import Group
from harness.runs.learning import learning_of, write_learning
from harness.runs.stored import StoredRun, all_runs

BASE = np.linspace(0.7, 0.9, 24)
NOISE = np.random.default_rng(1).normal(0, 0.01, len(BASE))
EVIL = "<script>alert(1)</script> $x_{ & \"q\" onload='x' ]]>\x00\u202e日本語 %"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def make(tmp_path, stored):
    """make(name, shift, **changes) -> a run of 24 personas."""

    def run(name: str, shift: float = 0.0, **changes):
        noise = NOISE if shift else 0
        return stored(tmp_path, name, BASE + shift + noise, id=changes.pop("id", f"{len(name)}-{shift}"), **changes)

    return run


def only(runs) -> Group:
    (group,) = board_of(runs).groups
    return group


def drawn(runs) -> dict[str, str]:
    found = figures(only(runs))
    made = draw(found)
    return {figure.kind: made[figure.file] for figure in found}


def one(runs, kind: str) -> str:
    """One of the plots: drawing the others would take longer."""
    figure = next(figure for figure in figures(only(runs)) if figure.kind == kind)
    return draw([figure])[figure.file]


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.fixture
def runs(make):
    return [make("base"), make("good", 0.03), make(EVIL, -0.03, id="evil")]


def test_same_runs_same_bytes_whatever_the_order_and_the_readers_own_settings(runs):
    first = drawn(runs)
    assert first.keys() == {"forest", "personas", "cost"}
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert drawn(runs[::-1]) == first
        assert matplotlib.rcParams["font.size"] == 30, "the reader's settings are left as they were"


def test_hostile_names_are_text_and_nothing_else(runs):
    for svg in drawn(runs).values():
        root = ElementTree.fromstring(svg)
        for node in root.iter():
            assert node.tag.removeprefix(SVG) in {
                "svg", "title", "style", "defs", "g", "path", "text", "use", "clipPath", "rect"
            }, node.tag  # fmt: skip
            for name, value in node.attrib.items():
                assert not name.lower().startswith("on"), name
                assert "href" not in name or value.startswith("#"), value
        assert "<!DOCTYPE" not in svg
        assert "\x00" not in svg
        assert "\u202e" not in svg
        assert any("<script>alert(1)</script>" in text for text in texts(svg)), "the name is shown as it is"


def test_nothing_is_loaded_from_anywhere_and_no_date_is_told(runs):
    for svg in drawn(runs).values():
        addresses = set(re.findall(r"https?://[^\"'\s<]+", svg))
        assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        assert "matplotlib.org" not in svg
        assert not re.search(r"20\d\d-\d\d-\d\d", svg)


def test_the_plots_turn_with_the_readers_colour_scheme(runs):
    for svg in drawn(runs).values():
        assert "prefers-color-scheme: dark" in svg
        rules = set(re.findall(r'\[style\*="((?:fill|stroke): #\w{6})"\]', svg))
        used = set(re.findall(r"(?:fill|stroke): #\w{6}", svg.partition("</style>")[2]))
        both = {"#3b82d6", "#d1651f", "#808890", "#2e9460", "#9a63d4"}  # stand on light and on dark
        assert used - rules <= {f"{kind}: {colour}" for kind in ("fill", "stroke") for colour in both}
        for text in re.findall(r"<text[^>]*>", svg):
            assert "fill: #" in text, "text without a colour would be black on dark"


def contrast(a: str, b: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_on_both_backgrounds():
    """WCAG 2.2: 4.5 for text, 3 for what is drawn."""
    from harness.leaderboard.svg import BLUE, DARK, GREEN, GREY, INK, MUTED, ORANGE, PAPER, PURPLE

    for ink in (INK, MUTED):
        assert contrast(ink, PAPER) >= 4.5
        assert contrast(DARK[ink], DARK[PAPER]) >= 4.5
    for colour in (BLUE, ORANGE, GREY, GREEN, PURPLE):
        assert min(contrast(colour, PAPER), contrast(colour, DARK[PAPER])) >= 3


def test_every_label_lies_inside_and_on_no_other(make):
    ceilings = [{"name": f"oracle: {k}", "knows": "", "scores": {"similarity": 0.80 + 0.0005 * k}} for k in range(4)]
    reference = {"score": 80.0, "se": 0.3, "source": "x", "aggregation": "micro"}
    many = [make("base", reference=reference, ceilings=ceilings)]
    many += [make(f"method_{'long_' * (k % 9)}{k}", 0.001 * k, id=f"r{k}") for k in range(1, 30)]
    for kind, svg in drawn(many).items():
        root = ElementTree.fromstring(svg)
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        boxes = []
        for node in root.iter(f"{SVG}text"):
            text, style = node.text or "", node.attrib["style"]
            size = float(re.search(r"font-size: ([\d.]+)px", style).group(1))  # pyright: ignore[reportOptionalMemberAccess]
            if "rotate" in node.attrib.get("transform", ""):
                continue
            x, y, wide = float(node.attrib["x"]), float(node.attrib["y"]), 0.56 * size * len(text)
            left = x - {"end": wide, "middle": wide / 2}.get(re.sub(r".*text-anchor: (\w+).*", r"\1", style), 0)
            box = (left, y - 0.7 * size, left + wide, y)
            assert box[0] >= -1, (kind, text)
            assert box[1] >= 0, (kind, text)
            assert box[2] <= width + 1, (kind, text)
            assert box[3] <= height, (kind, text)
            boxes.append((box, text))
        for i, (a, one) in enumerate(boxes):
            for b, other in boxes[:i]:
                apart = a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]
                assert apart, (kind, one, other)


def test_the_forest_shows_each_difference_with_its_interval(runs):
    group = only(runs)
    svg = one(runs, "forest")
    root = ElementTree.fromstring(svg)
    marks = sorted(float(node.attrib["x"]) for node in root.iter(f"{SVG}use"))
    zero = [t for t in root.iter(f"{SVG}text") if t.text == "0"]
    assert len(marks) == 2
    middle = float(zero[0].attrib["x"])
    assert marks[0] < middle < marks[1], "worse left of zero, better right of it"
    deltas = sorted(c.delta_pts for line in group.lines if (c := line.comparison))
    assert (marks[1] - middle) / (middle - marks[0]) == pytest.approx(deltas[1] / -deltas[0], rel=0.01)
    assert any(re.fullmatch(r"\+\d\.\d\d +\[\+\d\.\d\d, \+\d\.\d\d\]", text) for text in texts(svg))


def test_the_plot_of_personas_has_a_dot_for_each(runs):
    svg = one(runs, "personas")
    paths = re.findall(r'd="((?:M [-\d. ]+ L [-\d. ]+)+)"[^>]*stroke-linecap: round', svg)
    assert sum(path.count("M") for path in paths) == 2 * len(BASE)
    assert "100% of 24 personas improved" in texts(svg)


def test_personas_stand_in_order_with_intervals_where_replies_are_at_hand(make, put, tmp_path):
    noise = np.random.default_rng(3).normal(0, 0.05, (2, len(BASE), 10))
    put("base", BASE[:, None] + noise[0])
    put("good", BASE[:, None] + np.linspace(-0.05, 0.15, len(BASE))[:, None] + noise[1])
    (panel,) = panels(only(all_runs(tmp_path / "runs")))
    assert list(panel.differences) == sorted(panel.differences)
    assert panel.ends
    assert all(low < value < high for value, (low, high) in zip(panel.differences, panel.ends, strict=True))
    assert panel.ends[0][1] < 15 < panel.ends[-1][1], "the best person gained 15 points"
    (plain,) = panels(only([make("base"), make("good", 0.03)]))
    assert plain.ends is None
    assert plain.differences == pytest.approx(sorted(100 * (0.03 + NOISE)), abs=1e-3)


def test_colours_are_those_of_the_adapters(make):
    runs = [
        make("base", method_options={"lora": {"rank": 8, "targets": ["default"]}}),
        make("prefix", 0.03, method_options={"prompt": {"tokens": 10}}),
        make("other", 0.02, method_options={"shared": {"rank": 3}}),
        make("none", 0.01, cost={"trainable_parameters": 0}),
    ]
    found = {p.name: p.family for p in points(only(runs), "fit_seconds")}
    assert found == {"base": "LoRA", "prefix": "soft prompt", "other": "other adapters", "none": "nothing trained"}
    svg = one(runs, "cost")
    assert {"● LoRA", "● soft prompt", "● other adapters", "● nothing trained"} <= set(texts(svg))
    assert all(colour in svg for colour in ("#3b82d6", "#2e9460", "#9a63d4"))


def test_learning_curves_are_drawn_where_they_are_at_hand(put, tmp_path):
    put("base", BASE)
    put("m", BASE + 0.03 + NOISE)
    assert "learning" not in {figure.kind for figure in figures(only(all_runs(tmp_path / "runs")))}
    run = all_runs(tmp_path / "runs")[1]
    adapters = {
        name: {"start_validation_loss": 3.0, "validation_loss": (2.0 + k, 1.0 + k)} for k, name in enumerate("ab")
    }
    write_learning(run.path, learning_of({"adapters": adapters}))
    figure = next(f for f in figures(only(all_runs(tmp_path / "runs"))) if f.kind == "learning")
    assert figure.alt == "Validation loss by epoch: m 3.000 to 1.500"
    svg = texts(draw([figure])[figure.file])
    assert {"m", "2 adapters", "epoch", "nats a token"} <= set(svg)
    assert "base" not in svg


def test_few_personas_have_dots_without_intervals(tmp_path, stored):
    runs = [stored(tmp_path, "base", BASE[:3]), stored(tmp_path, "m", BASE[:3] + 0.02)]
    assert any(re.fullmatch(r"\+2\.00", text) for text in texts(one(runs, "forest")))


def test_lower_is_better_turns_the_words_and_the_front(tmp_path, stored):
    def run(name: str, shift: float, **changes):
        made = stored(tmp_path, name, BASE + shift, metrics=["nll"], scores={"nll": 0.8}, **changes)
        entry = made.record.sums.metrics["similarity"].model_copy(update={"unit": "nats", "higher_is_better": False})
        sums = made.record.sums.model_copy(update={"metrics": {"nll": entry}})
        return StoredRun(made.path, made.record.amended(per_persona=sums))

    runs = [run("base", 0), run("good", -0.1), run("bad", 0.1)]
    svg = one(runs, "forest")
    assert {"← better", "worse →"} <= set(texts(svg))
    assert [p.name for p in points(only(runs), "fit_seconds") if p.on_front] == ["good"]


def test_the_front_is_what_nothing_beats(make):
    runs = [
        make("base", cost={"trainable_parameters": 1000}),
        make("cheap", -0.02, cost={"trainable_parameters": 0}),
        make("waste", -0.01, cost={"trainable_parameters": 5000}),
        make("dear", 0.05, cost={"trainable_parameters": 9000}),
        make("same", 0.05, cost={"trainable_parameters": 9000}, id="same"),
        make("trick", 0.06, cost={"trainable_parameters": 1}, control="global"),
    ]
    found = {p.name: p.on_front for p in points(only(runs), "trainable_parameters")}
    expected = {"base": True, "cheap": True, "waste": False, "dear": True, "same": True}
    assert found == {**expected, "trick (control: global)": False}, "a control is no candidate"


def test_costs_hold_what_a_method_stands_on(make):
    base = {"methods": ["base"], "trainable_parameters": 500, "fits": 1, "fit_seconds": 100.0, "steps": 1, "tokens": 1}
    runs = [
        make("base", cost={"fit_seconds": 100.0}),
        make("on_it", 0.02, cost={"fit_seconds": 7.0, "stands_on": base}, requires=["base"]),
        make("unknown", 0.03, cost={"fit_seconds": 7.0}, requires=["nowhere"]),
    ]
    found = {p.name: (p.cost, p.is_whole) for p in points(only(runs), "fit_seconds")}
    assert found == {"base": (100.0, True), "on_it": (107.0, True), "unknown": (7.0, False)}
    assert texts(one(runs, "cost")).count("unknown +") == 2
    table = render(board_of(runs)).partition("### Cost")[2].partition("###")[0]
    own, _, below = table.partition("The base of a method")
    assert re.search(r"\| on\\_it +\|.*\| 7 +\|", own), "its own seconds"
    assert re.search(r"\| on\\_it +\| base +\| 500 .*\| 100 +\|", below), "and apart what it stands on"


def test_empty_plots_are_left_out(make, tmp_path, stored):
    assert [f.kind for f in figures(only([make("base")]))] == []
    assert [f.kind for f in figures(only([make("a"), make("bb", 0.1)]))] == ["cost"]
    imported = [stored(tmp_path, name, BASE + i * NOISE, cost=None, trials=None,
                       imported={"name": "f.csv", "sha256": "0" * 64, "unit": "pt", "example_set": "all"})
                for i, name in enumerate(("base", "m"))]  # fmt: skip
    assert [f.kind for f in figures(only(imported))] == ["forest", "personas"]


def test_a_crowd_shows_its_first_methods_by_rank_and_says_so(make):
    runs = [make("base"), *(make(f"m{k:02d}", 0.001 * k, id=f"r{k}") for k in range(1, 21))]
    figure = next(f for f in figures(only(runs)) if f.kind == "personas")
    assert f"The first {MOST_PANELS} of 20 methods" in figure.caption
    shown = [text for text in texts(draw([figure])[figure.file]) if re.fullmatch(r"m\d\d", text)]
    assert shown == [f"m{k:02d}" for k in range(20, 20 - MOST_PANELS, -1)]


def test_sixty_methods_leave_a_plot_that_can_be_read(make):
    runs = [make("base"), *(make(f"m{k:03d}", 0.001 * k, id=f"r{k}") for k in range(1, 60))]
    for figure in figures(only(runs)):
        svg = texts(draw([figure])[figure.file])
        of_methods = {text for text in svg if re.fullmatch(r"m\d{3}", text)}
        assert 0 < len(of_methods) <= MOST_ROWS
        assert re.search(r"\d+ of (59|60) methods", figure.caption)
        if figure.kind == "cost":
            assert svg.count("base (baseline)") == 2, "it is the last by rank, and in both panels"


def test_close_labels_are_moved_apart_in_order():
    moved = apart([10, 10.5, 11, 200], 15, 0, 210)
    assert all(b - a >= 15 for a, b in itertools.pairwise(moved))
    assert moved[3] == 200
    assert apart([209, 210], 15, 0, 210) == [195, 210]


def test_plots_of_groups_that_are_gone_are_removed_and_nothing_else(make, tmp_path):
    output = tmp_path / "board" / "README.md"
    runs = [make("base"), make("good", 0.03)]
    other = [make("base", id="o1", hashes={"examples": "f" * 64}),
             make("m", 0.1, id="o2", hashes={"examples": "f" * 64})]  # fmt: skip
    write_board(board_of([*runs, *other]), output)
    plots = output.parent / "plots"
    before = set(plots.iterdir())
    assert len(before) == 6
    (plots / "mine.svg").write_text("<svg/>")
    (plots / "mine-0123abcd-forest.svg").write_text("<svg/>")
    write_board(board_of(runs), output)
    left = {path.name for path in plots.iterdir()}
    assert {"mine.svg", "mine-0123abcd-forest.svg"} <= left
    assert len(left) == 5
    text = output.read_text()
    for name in left - {"mine.svg", "mine-0123abcd-forest.svg"}:
        assert f"](plots/{name})" in text


def test_two_boards_in_one_folder_do_not_touch_each_other(make, tmp_path):
    write_board(board_of([make("base"), make("good", 0.03)]), tmp_path / "README.md")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    places = write_board(board_of([make("base"), make("bad", -0.03)]), tmp_path / "a b.md")
    assert (places.plots.name, places.page.name) == ("a b_plots", "a b.html")
    assert {path: path.read_bytes() for path in before} == before
    text = (tmp_path / "a b.md").read_text()
    assert "](a%20b_plots/" in text
    assert "[a b.html](a%20b.html)" in text


def test_a_file_that_says_the_same_is_left_alone(make, tmp_path):
    runs = [make("base"), make("good", 0.03)]
    write_board(board_of(runs), tmp_path / "README.md")
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()}
    changed = tmp_path / "README.md"
    changed.write_text("other")
    write_board(board_of(runs), changed)
    assert changed.read_text().startswith("# Leaderboard")
    left = [path for path, number in before.items() if path.stat().st_ino == number]
    assert len(left) == len(before) - 1


def test_a_drawing_that_fails_leaves_the_old_leaderboard_whole(make, tmp_path, monkeypatch):
    output = tmp_path / "README.md"
    write_board(board_of([make("base"), make("good", 0.03)]), output)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("harness.leaderboard.plots.draw", lambda figures: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_board(board_of([make("base"), make("bad", -0.03)]), output)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_matplotlib_is_loaded_only_to_draw():
    code = (
        "import sys, harness.leaderboard as board; board.write_board; "
        "board.render(board.board_of([])); print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
