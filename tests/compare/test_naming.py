"""What rows are called: short, distinct, by what differs, never by a hash."""

from __future__ import annotations

import pytest

from harness.compare import short_names

BASE = [0.5, 0.6, 0.7]
TUNING = {"study": "s.yaml", "id": "f" * 64, "trials": 3, "sampler": "", "pruner": "", "space": {}, "personas": 2,
          "apart": True}  # fmt: skip


@pytest.fixture
def named(tmp_path, stored):
    """named({field: value}, ...) -> the names of one method's runs with these fields."""

    def names(*changes, method: str = "m") -> list[str]:
        runs = [stored(tmp_path, method, BASE, id=f"r{k}", **fields) for k, fields in enumerate(changes)]
        return short_names([run.head for run in runs])

    return names


def test_one_configuration_has_the_methods_name(named):
    assert named({"method_options": {"tokens": 5}, "tuning": TUNING}) == ["m"]


def test_a_control_is_always_named(named):
    assert named({}, {"control": "global"}) == ["m", "m (control: global)"]
    options = [{"control": "global", "method_options": {"k": k}} for k in (1, 2)]
    assert named(*options) == ["m (control: global, k=1)", "m (control: global, k=2)"]


def test_options_are_told_by_the_shortest_end_that_is_clear(named):
    def options(tokens: int, own: int, shared: int) -> dict:
        return {"method_options": {"prompt": {"tokens": tokens}, "own": {"rate": own}, "shared": {"rate": shared}}}

    assert named(options(10, 1, 1), options(20, 1, 1)) == ["m (tokens=10)", "m (tokens=20)"]
    assert named(options(9, 1, 3), options(9, 2, 4)) == [
        "m (own.rate=1, shared.rate=3)",
        "m (own.rate=2, shared.rate=4)",
    ]


def test_options_of_what_a_row_stands_on_are_told_with_its_name(named):
    three, eight = (
        {"method_options": {"train": {"epochs": 5}}, "requires": ("base",), "changed": {"base": {"train.epochs": k}}}
        for k in (3, 8)
    )
    assert named(three, eight) == ["m (base.epochs=3)", "m (base.epochs=8)"]
    assert named(three, {**eight, "changed": {}}) == ["m (base.epochs=3)", "m"]


def test_an_option_that_one_record_does_not_know_is_told_only_where_nothing_else_differs(named):
    assert named({"method_options": {"k": 1}}, {"method_options": {"k": 2, "new": 0}}) == ["m (k=1)", "m (k=2)"]
    assert named({"method_options": {"k": 1}}, {"method_options": {"k": 1, "new": 0}}) == ["m", "m (new=0)"]


def test_tuned_ones_are_told_from_those_that_are_not(named):
    tuned = {"method_options": {"k": 2}, "tuning": TUNING}
    assert named({"method_options": {"k": 1}}, tuned) == ["m (not tuned)", "m (tuned, 3 trials)"]


def test_last_come_the_version_the_day_and_a_number(named):
    source = {"distribution": "x", "file": "m.py", "sha256": "0"}
    one, two = ({"plugin": {**source, "version": version}} for version in ("1", "2"))
    assert named(one, two) == ["m (version 1)", "m (version 2)"]
    days = [{"created": f"2026-01-0{day}T10:00:00+00:00"} for day in (1, 2)]
    assert named(*days) == ["m (made 2026-01-01)", "m (made 2026-01-02)"]
    moments = [{"created": f"2026-01-01T10:00:0{second}+00:00"} for second in (1, 2)]
    assert named(*moments) == ["m (made 2026-01-01 10:00:01)", "m (made 2026-01-01 10:00:02)"]
    assert named({}, {}) == ["m (1)", "m (2)"]
