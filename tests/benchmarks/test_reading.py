"""Splits by order, and the reading of JSON lines whose faults are named."""

from __future__ import annotations

import pytest

from harness import DataError
from harness.benchmarks.reading import Faults, cut, read_messages, read_objects, shuffled, split_names


@pytest.mark.parametrize(
    ("number", "parts", "sizes"),
    [
        (50, (30, 10, 10), (30, 10, 10)),
        (50, (0.6, 0.2, 0.2), (30, 10, 10)),
        (10, (30, 10, 10), (6, 2, 2)),
        (7, (0.6, 0.2, 0.2), (5, 1, 1)),
        (3, (0.98, 0.01, 0.01), (1, 1, 1)),
        (2, (0.6, 0.2, 0.2), (1, 0, 1)),
        (1, (1, 100, 100), (1, 0, 0)),
        (3, (1, 100, 100), (1, 1, 1)),
        (0, (0.6, 0.2, 0.2), (0, 0, 0)),
    ],
)
def test_cut(number, parts, sizes):
    assert cut(number, parts) == sizes


def test_cut_always_adds_up_and_keeps_something_to_train_on():
    for number in range(1, 60):
        for parts in ((30, 10, 10), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8), (1, 1, 1)):
            sizes = cut(number, parts)
            assert sum(sizes) == number
            assert min(sizes) >= 0
            assert sizes[0] >= 1
    assert split_names(4, (0.5, 0.25, 0.25)) == ["train", "train", "validation", "test"]


def test_shuffle_depends_on_the_seed_not_on_the_order_given():
    people = [f"p{i}" for i in range(30)]
    assert shuffled(people, 1) == shuffled(people[::-1], 1)
    assert shuffled(people, 1) != shuffled(people, 2)
    without = shuffled(people[1:], 1)
    assert without == [name for name in shuffled(people, 1) if name != "p0"]


def test_reads_objects_with_line_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"b": "\xe2\x80\xa8"}')
    faults = Faults()
    assert read_objects(path, faults) == [(1, {"a": 1}), (3, {"b": "\u2028"})]
    faults.stop_if_any()


def test_all_faults_are_named_ten_of_them_shown(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n[1]\n{"a": \n"text"\n\xff\n' + b"null\n" * 20)
    faults = Faults()
    read_objects(path, faults)
    with pytest.raises(DataError) as caught:
        faults.stop_if_any()
    message = str(caught.value)
    assert f"{path}, line 2: holds a list" in message
    assert "line 3: not JSON" in message
    assert "line 4: holds text" in message
    assert "line 5: not UTF-8 (byte 0xff" in message
    assert message.count("\n") == 10
    assert "and 14 more" in message


def test_missing_and_empty_files_are_named(tmp_path):
    (tmp_path / "ratings.jsonl").write_text("\n \n")
    with pytest.raises(DataError, match=r"did you mean 'ratings\.jsonl'"):
        read_objects(tmp_path / "rating.jsonl", Faults())
    with pytest.raises(DataError, match="empty"):
        read_objects(tmp_path / "ratings.jsonl", Faults())
    with pytest.raises(DataError, match="cannot be read"):
        read_objects(tmp_path, Faults())


def test_deep_nesting_is_a_fault_not_a_crash(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 100_000)
    faults = Faults()
    read_objects(path, faults)
    assert len(faults.found) == 1


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([], "at least one"),
        ("hello", "should be a list"),
        (["hello"], "message 0 is text"),
        ([{"role": "user"}], "message 0 has no 'text'"),
        ([{"text": "a"}], "message 0 has no 'role'"),
        ([{"role": "asistant", "text": "a"}], "did you mean 'assistant'"),
        ([{"role": "system", "text": "a"}], "option `system`"),
        ([{"role": "user", "text": ""}], "empty"),
        ([{"role": "user", "text": None}], "is null"),
        ([{"role": "user", "text": "\ud800"}], "surrogate"),
        ([{"role": ["user"], "text": "a"}], "has the role"),
    ],
)
def test_faulty_messages(messages, fault):
    with pytest.raises(ValueError, match=fault):
        read_messages(messages)


def test_content_is_another_word_for_text():
    (message,) = read_messages([{"role": "user", "content": "a"}])
    assert message.text == "a"
