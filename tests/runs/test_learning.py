"""Learning curves: what a fit's report becomes, in a run's folder and in `show`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.errors import StoreError
from harness.runs.learning import Learning, learning_of, read_learning, write_learning
from harness.runs.making import flags_of
from harness.runs.record import StillLearning
from harness.runs.stored import StoredRun
from harness.show import run_text


def report(*adapters: tuple[float | None, tuple[float, ...]]) -> dict:
    return {
        "adapters": {str(i): {"start_validation_loss": s, "validation_loss": v} for i, (s, v) in enumerate(adapters)}
    }


def test_an_adapter_that_has_stopped_stands_with_its_least_loss():
    found = learning_of(report((4.0, (2.0, 1.0, 1.5)), (4.0, (3.0,))))
    assert found
    assert list(found.epochs) == [0, 1, 2, 3]
    assert found.mean == (4.0, 2.5, 2.0, 2.25)
    assert found.training == (2, 2, 1, 1)
    assert found.low[1] == pytest.approx(2.1)
    assert found.high[1] == pytest.approx(2.9)


def test_training_loss_is_the_mean_of_those_that_still_train():
    two = report((4.0, (2.0, 1.0)), (4.0, (3.0,)))
    two["adapters"]["0"]["train_loss"], two["adapters"]["1"]["train_loss"] = (1.0, 0.5), (3.0,)
    found = learning_of(two)
    assert found
    assert found.train_loss == (2.0, 0.5)
    two["adapters"]["0"]["train_loss"] = (1.0, float("nan"))
    found = learning_of(two)
    assert found
    assert found.train_loss == (), "an epoch without a finite one"
    with pytest.raises(ValueError, match="train_loss"):
        Learning(first=0, adapters=1, mean=(1.0, 2.0), low=(1.0, 1.0), high=(2.0, 2.0), training=(1, 1),
                 train_loss=(1.0, 2.0))  # fmt: skip


@pytest.mark.parametrize(
    ("adapters", "fall"),
    [
        ([(None, (2.872, 2.702, 2.668))], 0.0126),  # three epochs of unified on judges
        ([(None, (3.038, 2.702, 2.643, 2.590, 2.595, 2.629))], None),  # eight were allowed: stopped after six
        ([(None, (2.0, 1.985))], None),
        ([(4.0, (3.0,))], 0.25),
        ([(None, (3.0,))], None),
        ([(4.0, (2.0, 1.0)), (4.0, (1.0,))], 0.3333),
        ([(None, ())], None),
    ],
)
def test_a_loss_that_still_falls_in_the_last_epoch_is_flagged(adapters, fall):
    plain = report(*adapters)
    for one in plain["adapters"].values():
        one |= {"status": "ok", "train_loss": ()}
    fitted: Any = SimpleNamespace(report=plain, adds_text=False)
    assert flags_of(fitted, ["x"], learning=learning_of(plain)) == ([] if fall is None else [StillLearning(fall=fall)])


def test_starting_values_take_part_only_where_all_have_them():
    found = learning_of(report((None, (2.0,)), (4.0, (3.0,))))
    assert found
    assert (found.first, found.mean) == (1, (2.5,))


def test_without_validation_there_is_no_curve(tmp_path):
    assert learning_of({}) is None
    assert learning_of(report((None, ()), (1.0, (float("nan"),)))) is None
    write_learning(tmp_path, learning_of(report((None, ()))))
    assert not list(tmp_path.iterdir())
    assert read_learning(tmp_path) is None


def test_it_is_written_and_read_again(tmp_path):
    write_learning(tmp_path, learning_of(report((None, (1 / 3, 0.25)))))
    found = read_learning(tmp_path)
    assert found == Learning(first=1, adapters=1, mean=(0.33333, 0.25), low=(0.33333, 0.25), high=(0.33333, 0.25),
                             training=(1, 1))  # fmt: skip


UNLIKE = '{"first": 1, "adapters": 1, "mean": [1], "low": [], "high": [], "training": []}'


@pytest.mark.parametrize("text", ["{}", "[]", "oops", UNLIKE])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "learning.json").write_text(text)
    with pytest.raises(StoreError, match=r"learning\.json"):
        read_learning(tmp_path)


def test_show_prints_it(tmp_path, stored):
    from harness.compare import view

    run = stored(tmp_path, "m", np.linspace(0.5, 0.9, 8))
    seen = view(run)
    assert "learning" not in run_text(run, seen, [], 0)
    run.path.mkdir()
    write_learning(run.path, learning_of(report((4.0, (2.0, 1.0)), (4.0, (3.0,)))))
    lines = run_text(StoredRun(run.path, run.record), seen, [], 0).splitlines()
    place = lines.index("learning, nats a token over 2 adapters:")
    assert lines[place + 3].split() == ["start", "4.0000", "4.0000", "to", "4.0000", "2"]
    assert lines[place + 5].split()[:2] == ["2", "2.0000"]
