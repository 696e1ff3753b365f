"""Benchmarks of real people: original releases, samples, who takes part, splits by item. The files are made here."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness import ConfigError, DataError, Example, Likelihood, Message, MetricBatch, Prompt
from harness.benchmarks import convincing, edgewise, jokes, lamp, offensiveness, released
from harness.benchmarks.answers import items_fact, read_answers
from harness.model import split_examples
from harness.scoring.registry import score_columns

SHARED = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not beside the project")


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


# ---- who takes part, and splits by item ----


def rated(people=6, items=30, **more):
    return [
        {"persona_id": f"p{p}", "item": f"i{i}", "prompt": f"joke {i}", "reply": str((i + p) % 5 + 1), **more}
        for p in range(people)
        for i in range(items)
    ]


def test_no_test_item_was_trained_on_by_anybody(tmp_path):
    path = write_lines(tmp_path / "r.jsonl", rated())
    data = jokes.load(jokes.JokesOptions(data=path, at_least=10, most=None))
    of = {split: {d.item for d in data.dialogues if d.split == split} for split in ("train", "validation", "test")}
    assert {split: len(items) for split, items in of.items()} == {"train": 15, "validation": 5, "test": 10}
    assert not of["test"] & (of["train"] | of["validation"])
    assert data.facts["items"] == "disjoint"
    assert data.facts["split"] == "by item, 30/10/20, seed 0"
    assert data == jokes.load(jokes.JokesOptions(data=path, at_least=10, most=None))
    other = jokes.load(jokes.JokesOptions(data=path, at_least=10, most=None, split_seed=1))
    assert {d.item for d in other.dialogues if d.split == "test"} != of["test"]


def test_most_takes_the_first_of_each_split(tmp_path):
    path = write_lines(tmp_path / "r.jsonl", rated())
    data = jokes.load(jokes.JokesOptions(data=path, at_least=12, most=12))
    for person in data.personas:
        own = [d for d in data.dialogues if d.persona == person.id]
        assert [sum(d.split == s for d in own) for s in ("train", "validation", "test")] == [6, 2, 4]
        numbers = [int(d.item[1:]) for d in own]
        assert numbers == sorted(numbers)


def test_most_holds_where_answers_say_their_split(tmp_path):
    lines = [{**line, "split": ("train", "validation", "test")[place % 3]} for place, line in enumerate(rated())]
    path = write_lines(tmp_path / "r.jsonl", lines)
    data = jokes.load(jokes.JokesOptions(data=path, at_least=6, most=6, splits="3/1/2"))
    for person in data.personas:
        own = [d for d in data.dialogues if d.persona == person.id]
        assert [sum(d.split == s for d in own) for s in ("train", "validation", "test")] == [3, 1, 2]
        assert all(int(d.item[1:]) % 3 == ("train", "validation", "test").index(d.split) for d in own)


def test_people_with_too_little_data_are_left_out_and_named(tmp_path):
    lines = rated(people=4) + [line for line in rated(people=9, items=3) if line["persona_id"] > "p3"]
    data = jokes.load(jokes.JokesOptions(data=write_lines(tmp_path / "r.jsonl", lines), at_least=10, most=None))
    assert [p.id for p in data.personas] == ["p0", "p1", "p2", "p3"]
    assert data.facts["left out"].startswith("5 of 9 with fewer than 10 answers, or none in a split: p4, p5")
    drawn = jokes.load(jokes.JokesOptions(data=str(tmp_path / "r.jsonl"), at_least=10, most=None, people=2))
    assert drawn.facts["people"] == "2 of 4 who qualify"
    with pytest.raises(DataError, match="none of 9 people has 50 answers"):
        jokes.load(jokes.JokesOptions(data=str(tmp_path / "r.jsonl"), at_least=50, most=None))


def test_answers_that_say_their_split_stay_there(tmp_path):
    lines = [{**line, "split": ("train", "validation", "test")[place % 3]} for place, line in enumerate(rated())]
    path = write_lines(tmp_path / "r.jsonl", lines)
    data = offensiveness.load(offensiveness.OffensivenessOptions(data=path, at_least=5))
    assert data.facts["split"] == "as given"
    assert [d.split for d in data.dialogues[:3]] == ["train", "validation", "test"]
    assert data.facts["items"] == "disjoint"  # 30 is a multiple of 3
    shared = [{**line, "item": "one"} for line in lines]
    data = offensiveness.load(
        offensiveness.OffensivenessOptions(data=write_lines(tmp_path / "s.jsonl", shared), at_least=5)
    )
    assert data.facts["items"] == items_fact(data.dialogues) == "1 of 1 test items were trained on"
    del lines[4]["split"]
    with pytest.raises(DataError, match="give it to all or to none"):
        offensiveness.load(offensiveness.OffensivenessOptions(data=write_lines(tmp_path / "t.jsonl", lines)))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"persona_id": "a", "prompt": "?", "reply": "9"}, "the reply '9' is none of the choices"),
        ({"persona_id": "a", "prompt": "?"}, "'reply' is null"),
        ({"persona_id": "a", "prompt": "?", "reply": "1", "split": "dev"}, "'split' is 'dev'"),
    ],
)
def test_a_faulty_line_is_named(tmp_path, line, fault):
    path = write_lines(tmp_path / "r.jsonl", [*rated(1, 2), line])
    with pytest.raises(DataError, match=f"line 3: .*{fault}"):
        read_answers(Path(path), jokes.SCALE)


def test_options_and_places_that_make_no_sense(tmp_path):
    path = write_lines(tmp_path / "r.jsonl", rated())
    with pytest.raises(ConfigError, match="people=0"):
        jokes.load(jokes.JokesOptions(data=path, people=0))
    with pytest.raises(ConfigError, match="three positive numbers"):
        jokes.load(jokes.JokesOptions(data=path, splits="3/1"))
    with pytest.raises(DataError, match="no such file or folder"):
        jokes.load(jokes.JokesOptions(data=str(tmp_path / "nothing")))


# ---- UKPConvArg1 ----

PAIR = """<annotatedArgumentPair><id>{id}</id>
<arg1><stance>Yes &amp; no</stance><text>{first}</text><id>1</id></arg1>
<arg2><stance>Yes</stance><text>second
argument</text><id>2</id></arg2>
<debateMetaData><title>A debate?</title></debateMetaData>
<mTurkAssignments>{votes}</mTurkAssignments></annotatedArgumentPair>"""
VOTE = "<mTurkAssignment><turkID>{judge}</turkID><value>{value}</value><reason>{reason}</reason></mTurkAssignment>"


@pytest.fixture
def debates(tmp_path):
    """Two XML files, 12 pairs, 5 judges who vote on all of them."""
    folder = tmp_path / "UKPConvArg1-full-XML"
    folder.mkdir()
    for file in range(2):
        pairs = ""
        for number in range(6):
            votes = "".join(
                VOTE.format(judge=f"J{j}", value=("a1", "a2", "equal")[(number + j) % 3], reason=f"because  {j}")
                for j in range(5)
            )
            pairs += PAIR.format(id=f"{file}_{number}", first="first argument", votes=votes)
        pairs += PAIR.format(id="long", first="word " * 71, votes=VOTE.format(judge="J0", value="a1", reason="x"))
        pairs += PAIR.format(id="mute", first="short", votes=VOTE.format(judge="J0", value="a1", reason=""))
        (folder / f"debate{file}.xml").write_text(f'<?xml version="1.0"?>\n<list>{pairs}</list>', encoding="utf-8")
    return folder


def test_judgements_of_the_xml_release(debates):
    data = convincing.load(convincing.ConvincingOptions(data=str(debates), at_least=12, most=None))
    assert [p.id for p in data.personas] == [f"J{j}" for j in range(5)]
    assert len(data.dialogues) == 60
    first = data.dialogues[0]
    assert first.messages[0].text == (
        "Debate: A debate? Side: Yes & no\nFirst argument: first argument\nSecond argument: second argument\n"
        "Which argument is more convincing, and why?"
    )
    assert first.messages[1].text == "First. because 0"
    assert first.item == "0_0"
    assert data.metrics[0] == "nll"
    assert data.facts["items"] == "disjoint"
    chosen = convincing.load(convincing.ConvincingOptions(data=str(debates), at_least=12, decides="reason_similarity"))
    assert chosen.metrics[:2] == ("reason_similarity", "nll")


def test_xml_that_is_none_or_declares_entities_is_refused(tmp_path):
    for text, fault in (
        ("<list>", "not XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><list/>', "entities"),
        ("<a/>", "no judgements"),
    ):
        (tmp_path / "x.xml").write_text(text)
        with pytest.raises(DataError, match=fault):
            convincing.load(convincing.ConvincingOptions(data=str(tmp_path)))


def test_choice_and_reason_are_told_apart():
    for reply, choice, reason in (
        ("First. A1 is clear.", "First", "A1 is clear."),
        ("equal: neither", "Equal", "neither"),
        ("Firstly, no", "", "Firstly, no"),
        ("Second", "Second", ""),
        ("", "", ""),
    ):
        assert (convincing.choice_of(reply), convincing.reason_of(reply)) == (choice, reason)


def test_choice_and_reason_have_likelihoods_of_their_own(debates):
    """A token a character but for the last, which ends the turn: its nats are its place."""
    data = convincing.load(convincing.ConvincingOptions(data=str(debates), at_least=12))
    assert {"choice_nll", "reason_nll"} < set(data.metrics)
    references = ["First. b", "who knows", "Equal"]
    prompt = Prompt("p#0", "J0", 0, (Message("user", "?"),))
    ends = [np.arange(1, len(text) + 2) for text in references]
    batch = MetricBatch(data, [Example(prompt, text) for text in references], [""] * 3)
    known = replace(batch, likelihoods=[Likelihood(own.astype(float), own) for own in ends])
    found = score_columns(["choice_nll", "reason_nll"], known)
    assert found["choice_nll"] == pytest.approx([28.0, math.nan, 15.0], nan_ok=True)
    assert found["reason_nll"] == [8.5, 5.5, 6.0]
    assert np.isnan([*score_columns(["choice_nll", "reason_nll"], batch).values()]).all()


# ---- POPQUORN ----

HEAD = "instance_id,user_id,text,offensiveness,gender,race,age,occupation,education"


def write_ratings(folder, rows):
    with (folder / "raw_data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD.split(","))
        writer.writerows(rows)


def test_ratings_of_the_csv_release(tmp_path):
    rows = [
        [i, u, f'He said "{i}",\nand more', f"{(i + u) % 5 + 1}.0", "Woman", "White", "50-54", "", "College degree"]
        for u in range(3)
        for i in range(40)
    ]
    rows.append([99, 7, "x" * 700, "1.0", "Man", "Black", "18-24", "Student", "Other"])
    write_ratings(tmp_path, rows)
    for place in (tmp_path, tmp_path / "raw_data.csv"):
        data = offensiveness.load(offensiveness.OffensivenessOptions(data=str(place)))
        assert [p.id for p in data.personas] == ["rater_000", "rater_001", "rater_002"]
        assert data.personas[0].description == "Woman, White, 50-54, College degree"
        assert data.dialogues[0].messages[0].text.endswith('He said "0",\nand more')
        assert data.dialogues[1].messages[1].text == "2"
        assert data.facts["left out"].endswith("rater_007")
        assert data.protocol.decision == "median"
    assert len(offensiveness.read_ratings(tmp_path)[-1].prompt) == len(offensiveness.QUESTION) + 1 + 600


def test_another_table_and_a_rating_that_is_none_are_named(tmp_path):
    write_ratings(tmp_path, [[1, 0, "text", "6.0", *[""] * 5], [2, 0, "", "1.0", *[""] * 5]])
    with pytest.raises(DataError, match=r"(?s)line 2: the reply '6'.*line 3: 'text' is empty"):
        offensiveness.read_ratings(tmp_path)
    (tmp_path / "raw_data.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column instance_id, offensiveness, text, user_id"):
        offensiveness.read_ratings(tmp_path)


# ---- Jester ----


@pytest.fixture
def jester(tmp_path):
    """The matrix as a CSV, and a page for each of 12 jokes."""
    rows = [[11, *[round(-9.5 + (7 * u + 3 * j) % 20, 2) if j != u else 99 for j in range(12)]] for u in range(4)]
    (tmp_path / "jester-data-1.csv").write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    texts = tmp_path / "jokes"
    texts.mkdir()
    for j in range(1, 13):
        page = f"<html><body><!--begin of joke -->\nJoke <b>{j}</b> &amp; more\n<!--end of joke --></body></html>"
        (texts / f"init{j}.html").write_text(page)
    return tmp_path


def test_ratings_of_the_matrix(jester):
    data = jokes.load(jokes.JokesOptions(data=str(jester), at_least=11, most=None))
    assert [p.id for p in data.personas] == [f"laugher_0000{u}" for u in range(4)]
    assert len(data.dialogues) == 44  # a joke each was not rated
    joke = next(d for d in data.dialogues if d.persona == "laugher_00001" and d.item == "joke_3")
    assert joke.messages[0].text == f"{jokes.QUESTION}\nJoke 3 & more"
    assert joke.messages[1].text == jokes.step_of(-9.5 + (7 + 6) % 20)


def test_an_excel_sheet_reads_as_the_csv_does(jester, tmp_path_factory):
    xlwt = pytest.importorskip("xlwt", reason="writes .xls files; not needed to read them")
    book = xlwt.Workbook()
    sheet = book.add_sheet("jester")
    for r, line in enumerate((jester / "jester-data-1.csv").read_text().splitlines()):
        for c, cell in enumerate(line.split(",")):
            sheet.write(r, c, float(cell))
    folder = tmp_path_factory.mktemp("xls")
    book.save(str(folder / "jester-data-1.xls"))
    assert jokes.read_matrix(folder, str(jester / "jokes")) == jokes.read_matrix(jester)


def test_steps_have_equal_width():
    assert [jokes.step_of(x) for x in (-10, -6.01, -6, -2, 1.99, 2, 6, 10)] == ["1", "1", "2", "3", "3", "4", "5", "5"]


def test_a_matrix_with_names_and_a_table_of_jokes(tmp_path):
    (tmp_path / "ratings.csv").write_text(",j1,j2,j3\nu5,NA,1.5,-10\nu9,,10,0\n")
    (tmp_path / "joke_texts.csv").write_text('JokeId,JokeText\n1,"one, and"\n2,second joke\n3,third joke\n')
    found = jokes.read_matrix(tmp_path)
    assert [(a.persona, a.item, a.reply) for a in found] == [
        ("u5", "joke_2", "3"), ("u5", "joke_3", "1"), ("u9", "joke_2", "5"), ("u9", "joke_3", "3"),
    ]  # fmt: skip
    assert found[0].prompt.endswith("second joke")


def test_faults_of_a_matrix_are_named(jester, tmp_path):
    path = jester / "jester-data-1.csv"
    text = path.read_text()
    path.write_text(text.replace("99", "12.5", 1))
    with pytest.raises(DataError, match=r"row 1: the rating 12.5 does not lie in -10 to 10"):
        jokes.read_matrix(jester)
    path.write_text(text + "11,funny" + ",1" * 11 + "\n")
    with pytest.raises(DataError, match="row 5: 'funny' is no rating"):
        jokes.read_matrix(jester)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "m.csv").write_text(text)
    with pytest.raises(DataError, match="the jokes' texts are not here"):
        jokes.read_matrix(tmp_path / "alone")
    (tmp_path / "alone" / "m.csv").rename(tmp_path / "alone" / "m.xls")
    with pytest.raises(DataError, match=r"m\.xls: cannot be read as an Excel sheet"):
        jokes.read_matrix(tmp_path / "alone", str(jester / "jokes"))


# ---- LaMP and LongLaMP ----


def lamp_folder(folder, task, asked, entry, outputs, people=3, entries=5):
    questions = [
        {"id": f"{p}0", "input": asked(p), "profile": [{"id": f"{p}{e}", **entry(p, e)} for e in range(entries)]}
        for p in range(people)
    ]
    golds = [{"id": f"{p}0", "output": outputs[p % len(outputs)]} for p in range(people)]
    (folder / "dev_questions.json").write_text(json.dumps(questions))
    (folder / "dev_outputs.json").write_text(json.dumps({"task": task, "golds": golds}))
    return str(folder)


def test_lamp_tags_from_profiles(tmp_path):
    place = lamp_folder(
        tmp_path, "LaMP_2",
        lambda p: f"Which tag? tags: [comedy, classic] description: film {p}",
        lambda p, e: {"description": f"plot {p}{e}", "tag": ("comedy", "classic")[e % 2]},
        ["comedy", "classic"],
    )  # fmt: skip
    data = lamp.load(lamp.LampOptions(data=place))
    assert data.name == "LaMP_2"
    assert data.protocol.choices == ("classic", "comedy")
    assert data.metrics == ("accuracy", "macro_f1", "nll")
    own = [d for d in data.dialogues if d.persona == "00"]
    assert [d.split for d in own] == ["train"] * 4 + ["validation", "test"]
    assert own[1].messages[0].text == "Which tag? tags: [comedy, classic] description: plot 01"
    assert own[1].messages[1].text == "classic"
    (example,) = [e for e in split_examples(data, "test") if e.prompt.persona == "10"]
    assert (example.prompt.messages[-1].text[-6:], example.reference) == ("film 1", "classic")


def test_lamp_scores_and_texts(tmp_path):
    scores = lamp_folder(
        tmp_path, "LaMP_3", lambda p: f"What is the score? review: good {p}",
        lambda p, e: {"text": f"fine {e}", "score": str(e % 5 + 1)}, ["5"],
    )  # fmt: skip
    data = lamp.load(lamp.LampOptions(data=scores, at_least=5))
    assert (data.protocol.choices, data.metrics[0], data.protocol.decision) == (tuple("12345"), "mae", "median")
    with pytest.raises(DataError, match="nobody's profile has 6 entries"):
        lamp.load(lamp.LampOptions(data=scores, at_least=6))
    news = lamp_folder(
        tmp_path, "LaMP_4", lambda p: f"Generate a headline for the following article: news {p}",
        lambda p, e: {"text": f"body {e}", "title": f"Title {e}"}, ["A title"],
    )  # fmt: skip
    data = lamp.load(lamp.LampOptions(data=news, most=4))
    assert data.metrics == ("rouge_1", "rouge_l", "similarity", "nll")
    assert data.dialogues[0].messages[0].text == "Generate a headline for the following article: body 1"


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_longlamp_rows(tmp_path, kind):
    rows = [
        {"input": "Generate an abstract for the title: T", "output": "An abstract.",
         "profile": [{"id": str(e), "title": f"t{e}", "abstract": f"a{e}"} for e in range(4)]}
        for _ in range(2)
    ]  # fmt: skip
    path = tmp_path / f"abstracts.{kind}"
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    data = lamp.load(lamp.LampOptions(data=str(path), task="LongLaMP_abstract"))
    assert [p.id for p in data.personas] == ["person_00000", "person_00001"]
    assert data.dialogues[0].messages[0].text == "Generate an abstract for the title: t0"
    with pytest.raises(DataError, match="the task '' is not known; --set task=NAME"):
        lamp.load(lamp.LampOptions(data=str(path)))


def test_faults_of_lamp_are_named(tmp_path):
    with pytest.raises(DataError, match="give LaMP's folder"):
        lamp.load(lamp.LampOptions())
    place = lamp_folder(tmp_path, "LaMP_9", lambda p: "?", lambda p, e: {}, ["x"])
    with pytest.raises(DataError, match="the task 'LaMP_9' is not known"):
        lamp.load(lamp.LampOptions(data=place))
    (tmp_path / "dev_outputs.json").write_text(json.dumps({"task": "LaMP_3", "golds": []}))
    with pytest.raises(DataError, match="the question '00' has no output"):
        lamp.load(lamp.LampOptions(data=place))
    (tmp_path / "dev_outputs.json").write_text("[1")
    with pytest.raises(DataError, match=r"dev_outputs\.json: not JSON"):
        lamp.load(lamp.LampOptions(data=place))


# ---- edgewise's sample ----


def sample(path, people=20):
    turns = [{"role": role, "text": f"{role} {n}"} for n in range(4) for role in ("user", "assistant")]
    lines = [
        {"persona_id": f"persona_{p:03d}", "dialogue_idx": 7, "messages": [*turns, turns[0]]} for p in range(people)
    ]
    return write_lines(path, lines)


def test_a_sample_is_split_by_person_with_its_given_clusters(tmp_path):
    path = sample(tmp_path / "sample.jsonl")
    clusters = tmp_path / "given.json"
    clusters.write_text(json.dumps({"cluster_map": {f"persona_{p:03d}": p % 3 for p in range(20)}}))
    data = edgewise.load(edgewise.EdgewiseOptions(data=path, clusters=str(clusters)))
    assert [p.cluster for p in data.personas[:4]] == [0, 1, 2, 0]
    people = {split: {d.persona for d in data.dialogues if d.split == split} for split in ("train", "test")}
    assert len(people["train"]) == 12
    assert len(people["test"]) == 4
    assert not people["train"] & people["test"]
    counts = {
        preset: len(split_examples(edgewise.load(edgewise.EdgewiseOptions(data=path, preset=preset)), "test"))
        for preset in ("all_turns", "from_third_turn", "last_turn")
    }
    assert counts == {"all_turns": 16, "from_third_turn": 8, "last_turn": 4}
    with pytest.raises(DataError, match="no such file of clusters"):
        edgewise.load(edgewise.EdgewiseOptions(data=path, clusters=str(tmp_path / "none.json")))


# ---- fetched releases ----


def test_a_release_is_fetched_once_and_checked_by_digest(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    archive = tmp_path / "release.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("repo/data/wanted/a.xml", "<a/>")
        file.writestr("repo/data/wanted/../../../../escaped.xml", "<b/>")
        file.writestr("repo/other.xml", "<c/>")
    release = released.Release("thing", archive.as_uri(), "wanted")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"has the SHA-256 {digest}, not 00; nothing was kept"):
        released.located("", release, "00")
    place = Path(released.located("", release, digest))
    assert sorted(file.name for file in place.iterdir()) == ["a.xml", "escaped.xml"]
    assert not list(tmp_path.rglob("other.xml"))
    assert all(file.parent == place for file in tmp_path.rglob("escaped.xml"))
    held = archive.read_bytes()
    archive.unlink()
    assert released.located("", release, "") == str(place)  # from the cache
    archive.write_bytes(held + b"more")
    shutil.rmtree(place)
    with pytest.raises(DataError, match=rf"not {digest}; nothing was kept; if you trust the new file.*sha256="):
        released.located("", release, "")
    assert released.located("given", release, "") == "given"
    gone = released.Release("gone", (tmp_path / "none.csv").as_uri())
    with pytest.raises(DataError, match=r"gone cannot be fetched .* give its folder: --set data=DIR"):
        released.located("", gone, "")


def test_a_release_that_is_interrupted_or_damaged_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    archive = tmp_path / "release.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("a", "b"):
            file.writestr(f"repo/{name}.xml", f"<{name}/>" * 100)
    release, whole = released.Release("thing", archive.as_uri()), archive.read_bytes()
    read, asked = zipfile.ZipFile.read, []

    def interrupted(self, name, *more):
        asked.append(name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return read(self, name, *more)

    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipFile, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            released.located("", release, "")
    place = Path(released.located("", release, ""))
    assert sorted(file.name for file in place.iterdir()) == ["a.xml", "b.xml"]
    shutil.rmtree(place.parent)
    archive.write_bytes(whole.replace(b"<a/><a/>", b"<a/><x/>"))
    with pytest.raises(DataError, match="is a damaged zip file"):
        released.located("", release, "")
    assert not list((tmp_path / "cache").rglob("*.xml"))


# ---- the real samples, where they are at hand ----


@real
def test_the_samples_at_hand():
    laughs = jokes.load(jokes.JokesOptions(data=str(SHARED / "real_jokes.jsonl")))
    assert (len(laughs.personas), laughs.facts["split"], laughs.facts["items"]) == (100, "as given", "disjoint")
    judges = convincing.load(convincing.ConvincingOptions(data=str(SHARED / "real_reasons.jsonl")))
    assert (len(judges.personas), judges.facts["items"]) == (60, "disjoint")
    assert all(convincing.choice_of(d.messages[1].text) for d in judges.dialogues)
    raters = offensiveness.load(offensiveness.OffensivenessOptions(data=str(SHARED / "real_ratings.jsonl")))
    assert (len(raters.personas), raters.facts["items"]) == (60, "disjoint")
    homes = edgewise.load(
        edgewise.EdgewiseOptions(
            data=str(SHARED / "edgewise_sample.jsonl"), clusters=str(SHARED / "edgewise_clusters.json")
        )
    )
    assert len({p.cluster for p in homes.personas}) == 5
