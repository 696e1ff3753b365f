"""Yardsticks against figures computed by hand, and what a method must be told when it does not beat the base rate."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness import Dataset, Dialogue, Message, Persona, Protocol
from harness.benchmarks import yardsticks
from harness.benchmarks.convincing import choice_of
from harness.compare import Family
from harness.compare.base_rate import against_base_rates
from harness.leaderboard import board_of, render
from harness.leaderboard.figures import figures, rungs
from harness.leaderboard.plots import draw
from harness.model import split_examples
from harness.runs import Yardstick
from harness.show import base_rate_lines, yardstick_lines


class Letters:
    """Embeds a text by its letters: [n, 26] unit vectors."""

    def embed(self, texts):
        counts = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], dtype=np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def dataset(answers, choices=(), decision: Any = "mode"):
    """answers: {(person, item): reply}; items i0, i1 .. train, v0 .. validation, t0 .. test."""
    names: dict[str, Any] = {"i": "train", "v": "validation", "t": "test"}
    dialogues = tuple(
        Dialogue(
            f"{p}/{item}",
            p,
            names[item[0]],
            (Message("user", f"about {item}?"), Message("assistant", reply)),
            item=item,
        )
        for (p, item), reply in answers.items()
    )
    people = tuple(Persona(p) for p in dict.fromkeys(p for p, _ in answers))
    return Dataset("d", people, dialogues, Protocol(choices=tuple(choices), decision=decision), ("mae",))


def ratings(seed=0, people=12, items=12, spread=1.2):
    generator = np.random.default_rng(seed)
    person, item = spread * generator.normal(size=people), generator.normal(size=items)
    names = [f"i{n}" if n < items - 5 else f"v{n}" if n < items - 3 else f"t{n}" for n in range(items)]
    return {
        (f"p{p}", names[i]): str(int(np.clip(round(3 + person[p] + item[i] + 0.4 * generator.normal()), 1, 5)))
        for p in range(people)
        for i in range(items)
    }


def by_name(found):
    return {one.name: one for one in found}


def test_ratings_by_hand():
    answers = ratings()
    found = by_name(yardsticks.rating_yardsticks(dataset(answers, "12345", decision="median"), None))
    assert list(found) == [
        "everybody's constant", "the person's base rate", "the item's consensus", "consensus and person",
        "matrix factorisation",
    ]  # fmt: skip
    train = {key: int(reply) for key, reply in answers.items() if key[1][0] == "i"}
    every = statistics.median_low(train.values())
    assert set(found["everybody's constant"].replies.values()) == {str(every)}
    for (person, item), _ in answers.items():
        if item[0] != "t":
            continue
        prompt = f"{person}/{item}#0"
        own = statistics.median_low([value for (p, _), value in train.items() if p == person])
        assert found["the person's base rate"].replies[prompt] == str(own)
        others = [int(reply) for (p, i), reply in answers.items() if i == item and p != person]
        assert found["the item's consensus"].replies[prompt] == str(statistics.median_low(others))
    assert [one.name for one in found.values() if one.oracle] == list(found)[2:]
    assert [one.name for one in found.values() if one.base_rate] == ["the person's base rate"]


def errors(found, answers):
    wanted = {f"{p}/{i}#0": float(reply) for (p, i), reply in answers.items() if i[0] == "t"}
    return {name: np.mean([abs(float(one.replies[k]) - v) for k, v in wanted.items()]) for name, one in found.items()}


def test_oracles_that_know_person_and_item_are_better_where_both_matter():
    answers = ratings(people=30, items=40)
    found = errors(by_name(yardsticks.rating_yardsticks(dataset(answers, "12345"), None)), answers)
    best = max(found["consensus and person"], found["matrix factorisation"])
    assert best < min(found["the person's base rate"], found["the item's consensus"]) < found["everybody's constant"]


def test_no_yardstick_sees_the_persons_own_test_answer():
    """Whatever a person answers in the test, the predictions for that person stay the same."""
    answers = ratings(people=8)
    changed = {
        (p, i): ("5" if reply != "5" else "1") if p == "p3" and i[0] == "t" else reply
        for (p, i), reply in answers.items()
    }
    for find, choices in ((yardsticks.rating_yardsticks, "12345"), (yardsticks.choice_yardsticks, "12345")):
        before, after = (by_name(find(dataset(a, choices), None)) for a in (answers, changed))
        for name, one in before.items():
            own = {k: v for k, v in one.replies.items() if k.startswith("p3/")}
            assert own == {k: v for k, v in after[name].replies.items() if k.startswith("p3/")}, name


def test_choices_by_hand_and_ties_by_everybody():
    answers = {
        ("a", "i0"): "yes", ("a", "i1"): "no", ("a", "v0"): "no", ("a", "t0"): "no",
        ("b", "i0"): "no", ("b", "i1"): "no", ("b", "v0"): "yes", ("b", "t0"): "yes",
        ("c", "i0"): "yes", ("c", "i1"): "yes", ("c", "i2"): "no", ("c", "v0"): "yes", ("c", "t0"): "yes",
    }  # fmt: skip
    found = by_name(yardsticks.choice_yardsticks(dataset(answers, ("yes", "no")), None))
    train = Counter(reply for (_, item), reply in answers.items() if item[0] == "i")
    assert train == {"yes": 3, "no": 4}
    assert set(found["everybody's constant"].replies.values()) == {"no"}
    assert found["the person's base rate"].replies == {"a/t0#0": "no", "b/t0#0": "no", "c/t0#0": "yes"}
    assert found["the item's consensus"].replies == {"a/t0#0": "yes", "b/t0#0": "no", "c/t0#0": "no"}  # b: a tie


def test_free_text_by_hand():
    answers = {
        ("a", "i0"): "aaab", ("a", "i1"): "aaac", ("a", "i2"): "zzz", ("a", "t9"): "x",
        ("b", "i0"): "bbb", ("b", "i1"): "bbbb", ("b", "i2"): "bbc", ("b", "t9"): "x",
    }  # fmt: skip
    data = dataset(answers)
    asked = {"a/i1": "tttt about this"}
    data = replace(
        data,
        dialogues=tuple(
            replace(
                d, messages=(Message("user", asked.get(d.id, "tttt" if d.split == "test" else "qq")), d.messages[1])
            )
            for d in data.dialogues
        ),
    )
    found = by_name(yardsticks.text_yardsticks(data, Letters()))
    assert found["the person's typical reply"].replies["b/t9#0"] in ("bbb", "bbbb")
    assert found["the person's typical reply"].replies["a/t9#0"] in ("aaab", "aaac")
    assert found["the nearest earlier reply"].replies["a/t9#0"] == "aaac"
    assert found["the person's typical reply"].base_rate


def test_a_choice_is_worded_as_the_person_words_it():
    answers = {
        ("a", "i0"): "First. short", ("a", "i1"): "First. short", ("a", "i2"): "Equal. hm", ("a", "t0"): "First. x",
        ("b", "i0"): "Second. it is long", ("b", "i1"): "Second. it is long", ("b", "i2"): "First. why",
        ("b", "t0"): "First. y",
    }  # fmt: skip
    found = by_name(yardsticks.worded_choice_yardsticks(choice_of, dataset(answers), Letters()))
    assert found["the person's base rate"].replies == {"a/t0#0": "First. short", "b/t0#0": "Second. it is long"}
    assert set(found) >= {"the person's typical reply", "the nearest earlier reply", "matrix factorisation"}
    assert all(choice_of(reply) for one in found.values() for reply in one.replies.values())


def test_items_that_nobody_shares_leave_everybodys_constant():
    answers = {(p, f"{kind}{p}{n}"): str(n % 5 + 1) for p in "abc" for kind in "ivt" for n in range(4)}
    data = dataset(answers, "12345")
    found = by_name(yardsticks.rating_yardsticks(data, None))
    assert found["the item's consensus"].replies == found["everybody's constant"].replies
    assert "0 of 12 test answers" in found["the item's consensus"].knows
    assert set(found["matrix factorisation"].replies) == {e.prompt.id for e in split_examples(data, "test")}


# ---- methods against the base rate ----


def with_base_rate(run, shift):
    """The run with a yardstick whose every persona is `shift` away from the run's own sum."""
    sums = run.record.sums
    entry = sums.metrics["similarity"]
    moved = entry.model_copy(update={"sum": tuple(x + shift * n for x, n in zip(entry.sum, entry.n, strict=True))})
    own = sums.model_copy(update={"metrics": {**sums.metrics, "similarity": moved}})
    one = Yardstick(name="the base rate", knows="itself", base_rate=True, scores={"similarity": 0.5}, per_persona=own)
    return replace(run, head=run.record.amended(yardsticks=(one,)))


@pytest.mark.parametrize(("shift", "words"), [(-0.1, "m beats the base rate"), (0.1, "m does not beat the base rate")])
def test_a_method_is_said_to_beat_the_base_rate_or_not(put, shift, words):
    scores = [[0.5 + 0.01 * ((p * 7 + i) % 5) for i in range(4)] for p in range(12)]
    run = with_base_rate(put("m", scores), shift)
    (against,) = against_base_rates([Family("m", (run,))])
    assert against.rows[0].delta_pts == pytest.approx(-100 * shift)
    (line,) = base_rate_lines([Family("m", (run,))])
    assert line.startswith(words)
    assert yardstick_lines(run.record)[0]["yardstick"] == "the base rate"


def test_yardsticks_are_printed_and_plotted_on_the_leaderboard(put):
    scores = [[0.5 + 0.01 * ((p * 7 + i) % 5) for i in range(4)] for p in range(12)]
    runs = [with_base_rate(put(name, scores), 0.1) for name in ("unified", "m")]
    board = board_of(runs)
    (group,) = board.groups
    assert [(rung.name, rung.kind) for rung in rungs(group)][-1] == ("the base rate", "base rate")
    page = render(board)
    assert "### Yardsticks" in page
    assert "m does not beat the base rate, by similarity" in page
    (figure,) = [figure for figure in figures(group) if figure.kind == "yardsticks"]
    assert "the base rate 50.00" in figure.alt
    assert "the base rate" in draw([figure])[figure.file]
    assert not rungs(board_of([put("unified", scores), put("m", scores)]).groups[0])
