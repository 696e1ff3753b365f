"""The benchmark for a user's own data: both kinds of line, splits, metrics by option, every fault named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from harness import ConfigError, DataError
from harness.benchmarks import jsonl
from harness.benchmarks.jsonl import JsonlOptions
from harness.model import prompts

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def write(tmp_path):
    def write_lines(lines, name="mine.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return str(path)

    return write_lines


def ratings(people=4, each=10):
    return [
        {
            "persona_id": f"p{p}",
            "description": f"person {p}",
            "prompt": f"How is {i}?",
            "reply": str(i % 5 + 1),
        }
        for i in range(each)
        for p in range(people)
    ]


def test_prompt_and_reply_lines(write):
    data = jsonl.load(JsonlOptions(data=write(ratings()), choices="1..5"))
    assert data.name == "mine"
    assert [persona.id for persona in data.personas] == ["p0", "p1", "p2", "p3"]
    assert data.personas[2].description == "person 2"
    assert data.protocol.choices == ("1", "2", "3", "4", "5")
    assert data.protocol.decision == "median"
    assert data.metrics == ("mae", "accuracy", "nll")
    assert data.facts["dialogues"] == "24/8/8"
    tests = prompts.split_examples(data, "test")
    assert {example.prompt.id for example in tests} == {f"p{p}/{i}#0" for p in range(4) for i in (8, 9)}


def test_splits_go_by_file_order_within_the_persona(write):
    data = jsonl.load(JsonlOptions(data=write(ratings()), splits="5/2/3"))
    of_p1 = [dialogue for dialogue in data.dialogues if dialogue.persona == "p1"]
    assert [dialogue.split for dialogue in of_p1] == ["train"] * 5 + ["validation"] * 2 + ["test"] * 3
    assert [dialogue.messages[0].text for dialogue in of_p1] == [f"How is {i}?" for i in range(10)]


def test_splits_by_persona_never_share_a_person(write):
    path = write(ratings(people=20))
    data = jsonl.load(JsonlOptions(data=path, split="persona"))
    people = {split: {d.persona for d in data.dialogues if d.split == split} for split in ("train", "test")}
    assert not people["train"] & people["test"]
    assert Counter(d.split for d in data.dialogues) == {"train": 120, "validation": 40, "test": 40}
    assert data == jsonl.load(JsonlOptions(data=path, split="persona"))
    other = jsonl.load(JsonlOptions(data=path, split="persona", split_seed=1))
    assert {d.persona for d in other.dialogues if d.split == "test"} != people["test"]


def test_dialogue_lines(write):
    lines = [
        {
            "persona_id": 7,
            "dialogue_idx": i,
            "context": {"hour": 8, "weather": "sunny", "empty": None},
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "text": "Hello"},
                {"role": "user", "text": "Bye"},
                {"role": "assistant", "text": "So long"},
                {"role": "user", "text": "Still there?"},
            ],
        }
        for i in (40, 3, 8)
    ]
    data = jsonl.load(JsonlOptions(data=write(lines), system="Be kind.", turns="last"))
    assert data.metrics == ("similarity",)
    assert [dialogue.id for dialogue in data.dialogues] == ["7/40", "7/3", "7/8"]
    assert data.dialogues[0].context == (("hour", "8"), ("weather", "sunny"))
    (example,) = prompts.split_examples(data, "test")
    assert example.reference == "So long"
    assert example.prompt.messages[0].text == "Be kind.\nContext: hour: 8; weather: sunny"


def test_word_choices_and_numbers_as_json_numbers(write):
    lines = [{"persona_id": "a", "prompt": "?", "reply": reply} for reply in ("yes", " no ", "no")]
    data = jsonl.load(JsonlOptions(data=write(lines), choices=("yes", "no")))
    assert data.metrics == ("accuracy", "nll")
    assert data.protocol.decision == "mode"
    assert data.dialogues[1].messages[1].text == "no"
    numbers = [{"persona_id": "a", "prompt": "?", "reply": reply} for reply in (1, 2, 3)]
    assert jsonl.load(JsonlOptions(data=write(numbers), choices="1..3")).dialogues[2].messages[1].text == "3"


def test_limit_takes_the_first_people_before_splitting(write):
    data = jsonl.load(JsonlOptions(data=write(ratings(people=9)), split="persona", limit_personas=5))
    assert [persona.id for persona in data.personas] == ["p0", "p1", "p2", "p3", "p4"]
    assert {dialogue.split for dialogue in data.dialogues} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"prompt": "?", "reply": "1"}, "no 'persona_id'"),
        ({"persona_id": "a", "prompt": "?"}, "no 'reply'"),
        ({"persona_id": "a", "promt": "?"}, "needs 'prompt' and 'reply', or 'messages'"),
        ({"persona_id": "a", "prompt": "?", "reply": "6"}, "the reply '6' is none of the choices 1, 2, 3"),
        ({"persona_id": "a", "prompt": "?", "reply": ""}, "'reply' is empty"),
        ({"persona_id": "", "prompt": "?", "reply": "1"}, "'persona_id' is empty"),
        ({"persona_id": None, "prompt": "?", "reply": "1"}, "'persona_id' is null"),
        ({"persona_id": "a", "prompt": ["?"], "reply": "1"}, "'prompt' is a list"),
        ({"persona_id": "a", "messages": [{"role": "bot", "text": "1"}]}, "message 0 has the role 'bot'"),
        ({"persona_id": "a", "messages": [{"role": "user", "text": "1"}], "reply": "1"}, "has both"),
        ({"persona_id": "a", "prompt": "?", "reply": "1", "context": "sunny"}, "'context' is text"),
        ({"persona_id": "p0", "prompt": "?", "reply": "1", "dialogue_idx": 0}, "'p0/0' is already on line 1"),
        ({"persona_id": "p0", "prompt": "?", "reply": "1", "description": "new"}, "another description"),
        ({"persona_id": "p0", "prompt": "?", "reply": "1", "description": ["new"]}, "is a list"),
    ],
)
def test_a_faulty_line_is_named(write, line, fault):
    path = write([*ratings(), line])
    with pytest.raises(DataError) as caught:
        jsonl.load(JsonlOptions(data=path, choices="1..5"))
    assert f"{path}, line 41: " in str(caught.value)
    assert fault in str(caught.value)


def test_faults_come_together(write):
    bad = {"persona_id": "a"}
    with pytest.raises(DataError, match=r"(?s)line 1: .*line 2: .*line 10: .*and 5 more"):
        jsonl.load(JsonlOptions(data=write([bad] * 15)))


def test_one_line_each_needs_another_split(write):
    lines = [{"persona_id": f"p{i}", "prompt": "?", "reply": "yes"} for i in range(9)]
    with pytest.raises(DataError, match="split=persona"):
        jsonl.load(JsonlOptions(data=write(lines)))
    assert jsonl.load(JsonlOptions(data=write(lines), split="persona")).facts["dialogues"] == "5/2/2"


def test_dialogues_without_a_reply_are_refused(write):
    lines = [{"persona_id": "a", "messages": [{"role": "user", "text": "?"}]}] * 5
    with pytest.raises(DataError, match="no assistant message answers"):
        jsonl.load(JsonlOptions(data=write(lines)))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"data": ""}, "--set data=FILE"),
        ({"splits": "60/40"}, "30/10/10"),
        ({"splits": "a/b/c"}, "30/10/10"),
        ({"splits": "1/0/1"}, "30/10/10"),
        ({"metrics": ("acuracy",)}, "did you mean 'accuracy'"),
        ({"metrics": ("device_f1",)}, "needs a schema"),
        ({"metrics": ("mae",)}, "choices=1..5"),
        ({"choices": "5..1"}, "smaller to a larger"),
    ],
)
def test_faulty_options(write, options, fault):
    with pytest.raises(ConfigError, match=fault):
        jsonl.load(JsonlOptions(**{"data": write(ratings()), **options}))


def test_metrics_by_option(write):
    options = JsonlOptions(data=write(ratings()), choices="1..5", metrics=("accuracy", "exact_match"))
    assert jsonl.load(options).metrics == ("accuracy", "exact_match")


def test_the_card_says_what_it_takes():
    assert jsonl.card().options is JsonlOptions
    JsonlOptions()  # every field has a default


def test_real_ratings():
    path = SHARED / "real_ratings.jsonl"
    if not path.exists():
        pytest.skip(f"the real ratings {path} are not here")
    data = jsonl.load(JsonlOptions(data=str(path), choices="1..5", splits="30/10/10"))
    assert len(data.personas) == 60
    assert data.facts["dialogues"] == "1800/600/600"
    sizes = Counter((dialogue.persona, dialogue.split) for dialogue in data.dialogues)
    assert {sizes[persona.id, "test"] for persona in data.personas} == {10}
    assert all(persona.description for persona in data.personas)
    assert len(prompts.split_examples(data, "test")) == 600


def test_real_dialogues():
    path = SHARED / "edgewise_sample.jsonl"
    if not path.exists():
        pytest.skip(f"the real dialogues {path} are not here")
    data = jsonl.load(JsonlOptions(data=str(path), split="persona"))
    assert len(data.personas) == 200
    assert data.facts["dialogues"] == "120/40/40"
    assert data.dialogues[0].id == "persona_000/40"
    with pytest.raises(DataError, match="split=persona"):
        jsonl.load(JsonlOptions(data=str(path)))


def test_fields_may_be_called_otherwise(write):
    lines = [{"user": "a", "question": f"q{i}", "answer": "yes", "topic": f"t{i}", "prompt": "7"} for i in range(5)]
    fields = jsonl.Fields(persona_id="user", prompt="question", reply="answer", item="topic")
    data = jsonl.load(JsonlOptions(data=write(lines), fields=fields))
    assert data.dialogues[0].messages[0].text == "q0"
    assert [d.item for d in data.dialogues] == [f"t{i}" for i in range(5)]
    with pytest.raises(DataError, match="line 1: no 'persona_id'"):
        jsonl.load(JsonlOptions(data=write(lines)))


def test_lines_that_say_their_split_stay_there_unless_order_is_asked(write):
    lines = [{**line, "split": ("test", "validation", "train")[i % 3]} for i, line in enumerate(ratings(1, 9))]
    path = write(lines)
    data = jsonl.load(JsonlOptions(data=path, choices="1..5"))
    assert [d.split for d in data.dialogues] == ["test", "validation", "train"] * 3
    assert data.facts["split"] == "as given"
    ordered = jsonl.load(JsonlOptions(data=path, choices="1..5", split="order"))
    assert [d.split for d in ordered.dialogues[:5]] == ["train"] * 5
    with pytest.raises(DataError, match=r"split=given needs a field 'split' in every line"):
        jsonl.load(JsonlOptions(data=write(ratings()), split="given"))
    with pytest.raises(DataError, match=r"line 1: 'split' is 'dev'"):
        jsonl.load(JsonlOptions(data=write([{**ratings()[0], "split": "dev"}])))


def test_split_by_item_trains_on_no_test_item(write):
    lines = [{**line, "item": line["prompt"]} for line in ratings(people=6, each=20)]
    data = jsonl.load(JsonlOptions(data=write(lines), choices="1..5", split="item"))
    of = {split: {d.item for d in data.dialogues if d.split == split} for split in ("train", "validation", "test")}
    assert (len(of["train"]), len(of["validation"]), len(of["test"])) == (12, 4, 4)
    assert not of["test"] & (of["train"] | of["validation"])
    assert data.facts["items"] == "disjoint"
    plain = jsonl.load(JsonlOptions(data=write(lines), choices="1..5", split="order"))
    assert plain.facts["items"] == "disjoint"  # everybody answered in the same order
    with pytest.raises(DataError, match=r"split=item needs a field 'item' in every line"):
        jsonl.load(JsonlOptions(data=write(ratings()), split="item"))


def test_people_with_few_lines_are_left_out_and_named(write):
    lines = [*ratings(3, 10), *[{"persona_id": "few", "prompt": "?", "reply": "1"}] * 2]
    data = jsonl.load(JsonlOptions(data=write(lines), at_least=3))
    assert [p.id for p in data.personas] == ["p0", "p1", "p2"]
    assert data.facts["left out"] == "1 of 4 with fewer than 3 lines: few"
    assert len(jsonl.load(JsonlOptions(data=write(lines))).personas) == 4
    with pytest.raises(DataError, match="no person has 11 lines"):
        jsonl.load(JsonlOptions(data=write(lines), at_least=11))


@pytest.mark.parametrize(
    ("choices", "metrics", "fault"),
    [("1..5", ("macro_f1", "rmse"), ""), ("yes,no", ("macro_f1",), ""), ((), ("rouge_1", "rouge_l"), ""),
     ((), ("macro_f1",), "needs a closed set"), ("yes,no", ("rmse",), "needs numbers")],
)  # fmt: skip
def test_more_metrics_by_option(write, choices, metrics, fault):
    lines = [{"persona_id": "a", "prompt": "?", "reply": {"1..5": "1", "yes,no": "yes"}.get(str(choices), "text")}] * 5
    options = JsonlOptions(data=write(lines), choices=choices, metrics=metrics)
    if fault:
        with pytest.raises(ConfigError, match=fault):
            jsonl.load(options)
    else:
        assert jsonl.load(options).metrics == metrics
