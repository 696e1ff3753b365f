"""Closed sets of replies as users write them."""

from __future__ import annotations

import pytest

from harness import ConfigError
from harness.benchmarks.choices import as_numbers, parse_choices


@pytest.mark.parametrize(
    ("written", "choices"),
    [
        ("1..5", ("1", "2", "3", "4", "5")),
        (" -1 .. 1 ", ("-1", "0", "1")),
        ("yes, no", ("yes", "no")),
        (("b", "a"), ("b", "a")),
        ("10,9,-1.5", ("-1.5", "9", "10")),  # a median needs them in order
        ([3, 1], ("1", "3")),
        ("", ()),
        ((), ()),
    ],
)
def test_parses(written, choices):
    assert parse_choices(written) == choices


@pytest.mark.parametrize("written", ["5..1", "1..1", "0..100000", "a,b,a", "only", "a,,b"])
def test_refuses(written):
    with pytest.raises(ConfigError):
        parse_choices(written)


def test_numbers_or_none():
    assert as_numbers(("1", "2.5")) == (1, 2.5)
    assert as_numbers(("1", "two")) is None
    assert as_numbers(("1", "inf")) is None
    assert as_numbers(()) is None
