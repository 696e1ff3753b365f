"""The examples of a run on disk: texts kept or not, undefined scores, files of schema 1, broken files."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet
import pytest

from harness.contract.data import Example, Message, Prompt
from harness.errors import StoreError
from harness.runs.replies import read_replies, write_replies, write_scores

EXAMPLES = [
    Example(Prompt("d1#0", "anna", 0, (Message("system", "be kind"), Message("user", "Licht an"))), "It is on."),
    Example(Prompt("d2#0", "bert", 0, (Message("user", "off\u2028now"),)), ""),
]
SCORES = {"similarity": [0.25, float("nan")], "id": [1.0, 2.0]}  # a metric may be called as a column is


def test_a_row_has_prompt_reference_reply_and_every_column_of_the_metrics(tmp_path):
    write_replies(tmp_path, EXAMPLES, ["on", "off\ud800"], SCORES, texts=True)
    found = read_replies(tmp_path)
    assert found is not None
    first, second = found.rows([0, 1])
    assert (first.id, first.persona, first.reply) == ("d1#0", "anna", "on")
    assert (first.prompt, first.reference) == ("system: be kind\nuser: Licht an", "It is on.")
    assert (second.prompt, second.reference, second.reply) == ("user: off\u2028now", "", "off?")
    np.testing.assert_array_equal(found.scores("similarity"), [0.25, np.nan])
    np.testing.assert_array_equal(found.scores("id"), [1, 2])
    assert np.isnan(found.scores("never_scored")).all()
    assert found.rows([]) == []
    table = pyarrow.parquet.read_table(tmp_path / "replies.parquet")
    texts = ["id", "persona", "prompt", "prompt_hash", "reference", "reference_hash", "reply"]
    assert table.column_names == [*texts, "score_similarity", "score_id"]
    assert table["score_similarity"].null_count == 1


def test_without_texts_the_hashes_stay(tmp_path):
    for texts in (True, False):
        (tmp_path / str(texts)).mkdir()
        write_replies(tmp_path / str(texts), EXAMPLES, ["on", "off"], SCORES, texts=texts)
    with_texts, without = (read_replies(tmp_path / str(texts)) for texts in (True, False))
    assert with_texts
    assert without
    assert without.column("prompt") == without.column("reference") == [None, None]
    assert without.column("reply") == ["on", "off"]
    for name in ("prompt_hash", "reference_hash"):
        assert without.column(name) == with_texts.column(name)
        assert len(set(without.column(name))) == 2
    assert b"Licht an" not in (tmp_path / "False" / "replies.parquet").read_bytes()


def test_scores_alone_have_no_replies(tmp_path):
    write_scores(tmp_path, ["p/1", "q/1"], ["p", "q"], {"similarity": [0.5, 0.75]})
    found = read_replies(tmp_path)
    assert found
    assert found.column("reply") == found.column("prompt_hash") == [None, None]
    assert found.scores("similarity").tolist() == [0.5, 0.75]


def test_lines_of_schema_1_are_read(tmp_path):
    old = {"id": "d1#0", "persona": "anna", "prompt": "0f", "reference": "1e", "reply": "on\ud800", "similarity": None}
    (tmp_path / "scores.jsonl").write_text(json.dumps(old) + "\n" + json.dumps({**old, "similarity": 0.5}) + "\n")
    found = read_replies(tmp_path)
    assert found
    (row,) = found.rows([1])
    assert (row.prompt, row.prompt_hash, row.reference_hash, row.reply) == (None, "0f", "1e", "on?")
    np.testing.assert_array_equal(found.scores("similarity"), [np.nan, 0.5])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("scores.jsonl", '{"id": "a", "persona": "p"}\n{oops\n', r"scores\.jsonl:2: not a line of scores"),
        ("scores.jsonl", '{"id": "a"}\n', r"scores\.jsonl:1: not a line of scores"),
        ("replies.parquet", "oops", r"cannot read .*replies\.parquet"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(StoreError, match=words):
        read_replies(tmp_path)


def test_a_file_without_a_column_is_named(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a"]}), tmp_path / "replies.parquet")
    with pytest.raises(StoreError, match="no column 'persona'"):
        read_replies(tmp_path)


def test_sums_alone_are_no_fault(tmp_path):
    assert read_replies(tmp_path) is None
