"""What a reader meets first: titles that people understand, and a headline that says what the figures say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from harness.leaderboard import board_of, render
from harness.leaderboard.headline import counts, finding, headline
from harness.leaderboard.titles import titles

BASE = np.linspace(0.7, 0.9, 24)
NOISE = np.random.default_rng(1).normal(0, 0.01, len(BASE))


@pytest.fixture
def section(tmp_path, stored):
    """section(world, {method: shift}, **changes) -> the runs of a section with a baseline."""

    def make(world: str, shifts: dict[str, float], seeds: int = 1, facts=None, name: str = "toy", **changes):
        changes["benchmark"] = {"name": name, "options": {}, "facts": facts or {}, "sha256": ""}
        changes |= {"hashes": {"examples": world * 64}}
        shifts = {"base": 0.0, **shifts}
        return [
            stored(
                tmp_path, method, BASE + shift + (NOISE if shift else 0), seed=s, id=f"{method}-{world}-{s}", **changes
            )
            for method, shift in shifts.items()
            for s in range(seeds)
        ]

    return make


def test_titles_say_subject_personas_seeds_and_what_is_unusual(section):
    usual = {"signal": "1"}
    runs = [
        *section("a", {"m": 0.1}, seeds=3, facts=usual),
        *section("b", {"m": 0.1}, facts=usual),
        *section("c", {"m": 0.1}, facts={"signal": "0"}),
        *section("d", {"m": 0.1}, name="own", facts={"title": "Which tea", "people": "all"}),
    ]
    assert sorted(titles(board_of(runs).groups)) == [
        "Which tea, 24 people, 1 seed",
        "toy, 24 personas, 1 seed",
        "toy, 24 personas, 1 seed, signal 0",
        "toy, 24 personas, 3 seeds",
    ]


def test_sections_of_one_title_are_told_apart(section):
    facts = [*section("a", {"m": 0.1}, facts={"split": "x"}), *section("b", {"m": 0.1}, facts={"split": "y"})]
    assert sorted(titles(board_of(facts).groups)) == [
        "toy, 24 personas, 1 seed, split x",
        "toy, 24 personas, 1 seed, split y",
    ]
    nothing = [*section("a", {"m": 0.1}), *section("b", {"m": 0.1})]
    assert sorted(titles(board_of(nothing).groups)) == [
        "toy, 24 personas, 1 seed, no. 1",
        "toy, 24 personas, 1 seed, no. 2",
    ]


def test_the_headline_counts_candidates_alone_and_names_the_best(section, tmp_path, stored):
    runs = section("e", {"good": 0.03, "fine": 0.02, "bad": -0.03})
    runs.append(stored(tmp_path, "good", BASE + 0.09 + NOISE, control="global", hashes={"examples": "e" * 64},
                       benchmark=runs[0].record.benchmark, id="trick"))  # fmt: skip
    (group,) = board_of(runs).groups
    (sentence,) = finding(group)
    delta = next(line.comparison for line in group.lines if line.name == "good")
    assert delta
    assert sentence.startswith(
        f"Two of three methods beat base; the best, good, by {delta.delta_pts:.2f} pt of similarity"
    )
    assert re.search(r"\(95 % simultaneous interval \d\.\d\d to \d\.\d\d\)\.$", sentence)
    assert counts(group) == "2 of 3 methods better than base"


@pytest.mark.parametrize(
    ("shifts", "start"),
    [
        ({"m": 0.03}, "m beats base by "),
        ({"m": -0.03}, "m is worse than base by "),
        ({"a": -0.03, "b": -0.02}, "No method of 2 is shown to be better than base."),
        ({"a": 0.03, "b": 0.02}, "Both methods beat base; the best, a, by "),
    ],
)
def test_the_headline_in_other_cases(section, shifts, start):
    (group,) = board_of(section("e", shifts)).groups
    assert finding(group)[0].startswith(start)


def test_data_of_people_come_before_a_simulators(section):
    ceilings = [{"name": "oracle", "knows": "all", "scores": {"similarity": 0.95}}]
    simulated, real = section("a", {"m": 0.1}, seeds=2, ceilings=ceilings), section("b", {"m": 0.1})
    board = board_of([*simulated, *real])
    found = headline(board)
    assert found
    assert not board.groups[found.place].record.ceilings
    assert headline(board_of(simulated)) == headline(board_of(simulated[::-1]))
    assert headline(board_of([])) is None


def test_the_markdown_opens_with_the_headline_its_plot_and_the_contents(section):
    text = render(board_of([*section("a", {"m": 0.03}), *section("b", {"m": -0.03}, seeds=2)]))
    opening, _, rest = text.partition("## Contents")
    assert "beat" in opening or "worse" in opening
    assert re.search(r"!\[Difference from base.*\]\(plots/toy-\w{8}-forest\.svg\)", opening)
    contents = rest.partition("## 1. ")[0]
    assert re.findall(r"^\d\. (.*)", contents, re.M) == [
        "toy, 24 personas, 2 seeds: 0 of 1 method better than base",
        "toy, 24 personas, 1 seed: 1 of 1 method better than base",
    ]
