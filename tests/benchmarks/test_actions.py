"""Counts of settings: pooled before dividing, undefined where there is nothing to divide."""

from __future__ import annotations

import math

import numpy as np

from harness import statistics
from harness.benchmarks.devices import DEVICES
from harness.benchmarks.devices.actions import Counts, count_actions


def counts(reply: str, reference: str, kind: str) -> Counts:
    return count_actions(reply, reference, DEVICES)[kind]  # pyright: ignore[reportArgumentType]


def test_no_numbers_leave_precision_undefined_not_zero_and_not_one():
    nothing = counts("Of course.", "You are welcome.", "numeric")
    assert nothing == Counts(0, 0, 0)
    assert math.isnan(statistics.precision(np.array(nothing)))
    assert math.isnan(statistics.recall(np.array(nothing)))
    assert math.isnan(statistics.f1(np.array(nothing)))


def test_no_device_leaves_device_precision_undefined():
    missed = counts("Of course.", "The TV volume is 30.", "device")
    assert missed == Counts(0, 0, 1)
    assert math.isnan(statistics.precision(np.array(missed)))
    assert statistics.recall(np.array(missed)) == 0
    assert statistics.f1(np.array(missed)) == 0


def test_fan_speed_1_for_2_is_wrong():
    assert counts("AC fan speed 1.", "AC fan speed 2.", "numeric") == Counts(0, 1, 1)
    assert counts("AC fan speed 1.", "AC fan speed 2.", "parameter") == Counts(1, 0, 0)


def test_booleans_are_right_or_wrong_with_no_tolerance():
    assert counts("Security disarmed.", "Security armed.", "categorical") == Counts(0, 1, 1)
    assert counts("Security armed.", "Security armed.", "categorical") == Counts(1, 0, 0)
    assert counts("Security armed.", "Security armed.", "numeric") == Counts(0, 0, 0)


def test_the_same_number_for_another_parameter_is_no_hit():
    assert counts("TV volume 40.", "TV brightness 40.", "numeric") == Counts(0, 1, 1)


def test_sums_before_dividing():
    replies = [
        ("TV volume 30 and brightness 40.", "TV volume 30 and brightness 50."),
        ("Of course.", "Certainly."),
        ("AC to 22 degrees.", "AC to 22 degrees with fan speed 1."),
    ]
    pooled = np.array([counts(reply, reference, "numeric") for reply, reference in replies]).sum(axis=0)
    assert tuple(pooled) == Counts(tp=2, fp=1, fn=2)
    assert statistics.precision(pooled) == 2 / 3
    assert statistics.recall(pooled) == 1 / 2
    assert statistics.f1(pooled) == 4 / 7
