"""Plans: faults with file and line, gates that pass and fail, fallbacks in order, few personas, bands."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from harness.cli import main
from harness.contract.options import fill
from harness.contract.plugins import load_benchmark, load_plugin
from harness.errors import ConfigError
from harness.sweeps.plan import place_in_bands
from harness.sweeps.plan_file import Band, load_plan
from harness.sweeps.sweep_file import open_reader

BANDS = (Band(83, 85, "good"), Band(85, 87, "excellent"))


def options_of(kind, name):
    return load_plugin(kind, name).card.options


FAULTY = """persona: persona_000
phases:
  - name: one
    persona: persona_000
    cluster: 1
    method: persona_prefx
    gates:
      - {beats: unifid}
      - {reference: high}
      - {beats: unified, reference: 3}
      - beat: unified
  - {method: persona_prefix, gates: [], if_failed: maybe, gate: x}
  - gates: [{reference: 82}]
  - persona_prefix
  - {method: zero_shot, gates: [{reference: 1}], published: [{score: 69.2}]}
fallbacks:
  - set: {tokns: 20}
  - hierarchical_prefx
bands:
  - {from: 85, to: 83, name: good}
  - {from: 90, to: 95, name: great}
  - {from: 95, name: huge}
phase: 3
"""


def test_every_fault_comes_at_once_with_file_and_line(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(FAULTY)
    with pytest.raises(ConfigError) as caught:
        load_plan(open_reader(path, options_of), {})
    faults = str(caught.value).splitlines()
    for line, words in (
        (1, "'persona' belongs to a phase"),
        (5, "give persona or cluster, not both"),
        (6, "did you mean 'persona_prefix'?"),
        (8, "did you mean 'unified'?"),
        (9, "reference = high"),
        (10, "a gate is {beats: METHOD} or"),
        (11, "a gate is {beats: METHOD} or"),
        (12, "'gates' must be a list"),
        (12, "if_failed = maybe"),
        (12, "unknown key 'gate' of a phase; did you mean 'gates'?"),
        (13, "a phase needs a method"),
        (14, "a phase is a mapping of"),
        (15, "a published number is {score: NUMBER, source: TEXT}"),
        (17, "did you mean 'tokens'?"),
        (18, "did you mean 'hierarchical_prefix'?"),
        (20, "the band 'good' ends at 83, where it begins (85) or before"),
        (21, "'great' must begin where 'good' ends (83)"),
        (22, "a band is {from: NUMBER, to: NUMBER, name: TEXT}"),
        (23, "unknown key 'phase' of a plan; did you mean 'phases'?"),
    ):
        assert any(f"p.yaml:{line}: " in fault and words in fault for fault in faults), (line, words, faults)


def test_the_shipped_plan_has_its_phases_fallbacks_and_gates():
    plan = load_plan(open_reader("seed_plan", options_of), {})
    assert [(p.persona, p.cluster) for p in plan.phases] == [(("persona_000",), None), ((), None), ((), 4), ((), None)]
    # The second fallback is how a prefix begins anyway, so that it is what was tried already.
    assert [entry.label for entry in plan.phases[1].candidates] == [
        "persona_prefix", "persona_prefix tokens=20", "hierarchical_prefix", "retrieval",
    ]  # fmt: skip
    assert [entry.label for entry in plan.phases[3].candidates][:2] == ["cluster_prefix", "cluster_prefix tokens=20"]
    assert [gate.name for gate in plan.phases[1].gates] == ["beats unified", "above 82.14"]
    assert plan.phases[0].published[0].score == 69.2
    assert plan.bands == BANDS


@pytest.mark.parametrize(
    ("points", "band", "words"),
    [
        (82.99, None, "below the plan's bands (the lowest, good, begins at 83)"),
        (83.0, "good", "good (the plan's band from 83 to 85)"),
        (84.99, "good", "good"),
        (85.0, "excellent", "excellent (the plan's band from 85 to 87)"),
        (87.0, "excellent", "excellent"),
        (87.01, None, "above the plan's bands (the highest, excellent, ends at 87)"),
    ],
)
def test_the_text_at_each_band(points, band, words):
    name, text = place_in_bands(BANDS, points)
    assert name == band
    assert words in text


PLAN = """baseline: plain
phases:
  - name: one
    persona: p0
    method: middling
    gates: [{beats: plain}]
    published: [{score: 69.2, source: somewhere}]
  - name: all
    method: middling
    gates: [{beats: plain}, {reference: 70, source: a paper}]
fallbacks:
  - {method: middling, set: {shift: 3}, label: shifted}
  - sharp
  - never
bands: [{from: 80, to: 85, name: good}, {from: 85, to: 99, name: excellent}]
"""


@pytest.mark.slow
def test_phases_gates_and_fallbacks_until_one_passes(sweep_lab):
    sweep_lab.method("plain", 0.3)
    sweep_lab.method("middling", 0.6)
    sweep_lab.method("sharp", 0.9)
    sweep_lab.method("never", 1.0)
    code, found = sweep_lab.json(PLAN)
    assert code == 0
    one, everybody = found["phases"]
    # One persona: plain means are compared, and it says so.
    (gate,) = one["tries"][0]["gates"]
    assert (one["status"], one["winner"], gate["passed"], gate["tested"], gate["p"]) == (
        "passed", "middling", True, False, None,
    )  # fmt: skip
    assert "1 persona (fewer than 6): descriptive, nothing is tested" in gate["text"]
    assert gate["delta_pts"] == pytest.approx(gate["comparison"]["delta_pts"])
    assert gate["delta_pts"] > 0
    # Everybody: the first two beat the baseline and stay below 70; the third passes both; the fourth is not tried.
    assert [t["label"] for t in everybody["tries"]] == ["middling", "shifted", "sharp"]
    assert [[g["passed"] for g in t["gates"]] for t in everybody["tries"]] == [[True, False], [True, False], [True] * 2]
    assert all(g["tested"] and g["p"] is not None for t in everybody["tries"] for g in t["gates"])
    assert [t["gates"][0]["comparison"]["family_size"] for t in everybody["tries"]] == [1, 2, 3]
    assert (everybody["winner"], everybody["not_tried"]) == ("sharp", ["never"])
    assert sweep_lab.fits("never") == []
    score = everybody["tries"][2]["score"]
    assert found["ending"]["band"] == "excellent"
    assert found["ending"]["verdict"]
    assert 85 < score < 99

    _, out, _ = sweep_lab.call(PLAN, "--quiet")
    for words in (
        "phase 1 of 2: one (p0; 1 persona, 23 replies)",
        "published beside it: 69.20 (somewhere); measured elsewhere, not tested",
        "not passed: above 70:",
        "it is not evidence of beating the published system",
        "tried next: shifted",
        "tested jointly with the 2 tried before",
        "passed by sharp",
        f"sharp scores {score:.2f}: excellent (the plan's band from 85 to 99)",
    ):
        assert words in out, (words, out)
    assert sweep_lab.fits("sharp") == ["0"], "the second time everything came from the store"


@pytest.mark.slow
def test_where_nothing_passes_the_plan_stops_and_the_baseline_stays_the_choice(sweep_lab):
    sweep_lab.method("plain", 0.5)
    sweep_lab.method("weak", 0.2)
    sweep_lab.method("broken", 0.9, "raise ValueError('no')")
    text = """baseline: plain
phases:
  - {name: first, method: weak, gates: [{beats: plain}]}
  - {name: second, method: weak, gates: [{beats: plain}]}
fallbacks: [broken, plain]
bands: [{from: 80, to: 85, name: good}]
"""
    code, found = sweep_lab.json(text)
    assert code == 2, "a run failed"
    first, second = found["phases"]
    assert [t["label"] for t in first["tries"]] == ["weak", "broken", "plain"]
    assert first["tries"][1]["runs"][0]["error"] == "method 'broken', fit: broken.py:21: ValueError: no"
    assert first["tries"][2]["gates"][0]["text"] == "this is plain itself"
    assert first["status"] == "not passed"
    assert (second["status"], second["why"]) == ("not reached", "not reached: nothing passed 'first'")
    assert found["ending"]["text"].startswith("plain is kept")
    assert found["ending"]["band"] is None
    code, found = sweep_lab.json(
        text.replace(
            "gates: [{beats: plain}]}\n  - {name: s", "gates: [{beats: plain}], if_failed: go on}\n  - {name: s"
        )
    )
    assert [phase["status"] for phase in found["phases"]] == ["not passed", "not passed"]


@pytest.mark.slow
def test_with_few_personas_there_is_no_verdict_at_the_end(sweep_lab):
    sweep_lab.method("plain", 0.3)
    sweep_lab.method("sharp", 0.9)
    text = "baseline: plain\nphases:\n  - {method: sharp, gates: [{beats: plain}, {reference: 50}]}\n"
    code, found = sweep_lab.json(text, "--personas", "5")
    assert code == 0
    assert found["phases"][0]["status"] == "passed"
    assert not any(gate["tested"] for gate in found["phases"][0]["tries"][0]["gates"])
    assert found["ending"]["text"].startswith("no verdict: sharp scores ")
    assert not found["ending"]["verdict"]
    _, found = sweep_lab.json(text.replace("reference: 50", "reference: 99.9"), "--personas", "5")
    assert found["ending"]["text"].startswith("no verdict: 5 personas (fewer than 6)")


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_found_before_the_first_run(sweep_lab):
    sweep_lab.method("plain", 0.3)
    text = "baseline: plain\nphases:\n  - {method: plain, gates: [{reference: 1}]}\n"
    code, _, err = sweep_lab.call(text + "  - {cluster: 4, method: plain, gates: [{reference: 1}]}\n", "--quiet")
    assert code == 2
    assert "there is no cluster 4" in err
    assert sweep_lab.fits("plain") == []
    code, out, _ = sweep_lab.call(text, "--dry-run", "--quiet")
    assert code == 0
    assert "1 runs: 0 stored, 1 to make" in out


PARROT = """
from dataclasses import dataclass
from harness import MethodCard, hookimpl

@dataclass(frozen=True)
class Options:
    pass

@hookimpl
def card():
    return MethodCard("says what was said", Options, shares="persona")

@hookimpl
def fit(study):
    return study.bare()

@hookimpl
def predict(study, prompts):
    return [p.messages[-1].text for p in prompts]
"""


@pytest.mark.slow
def test_a_phase_about_a_cluster_is_scored_on_its_personas_alone(tmp_path, capsys):
    benchmark = load_benchmark("smarthome")
    options = fill(benchmark.card.options(), {"personas": 8, "dialogues": (3, 1, 1)})
    sizes = Counter(persona.cluster for persona in benchmark.load(options).personas)
    ((cluster, size),) = sizes.most_common(1)
    assert size < 8
    (tmp_path / "parrot.py").write_text(PARROT)
    (tmp_path / "plan.yaml").write_text(
        f"""personas: 8
baseline: parrot
set: {{dialogues: [3, 1, 1]}}
phases:
  - {{name: some, cluster: {cluster}, method: parrot, gates: [{{reference: 1}}]}}
  - {{name: all, method: parrot, gates: [{{reference: 1}}, {{reference: 99.9}}]}}
"""
    )
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(tmp_path / "plan.yaml"), "--plugin", str(tmp_path / "parrot.py"), "--json", "--quiet",
              "--runs-dir", str(tmp_path / "runs")])  # fmt: skip
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    some, everybody = json.loads(out)["phases"]
    assert [some["tries"][0]["n_personas"], everybody["tries"][0]["n_personas"]] == [size, 8]
    assert some["tries"][0]["gates"][0]["tested"] == (size >= 6)
    assert [gate["passed"] for gate in everybody["tries"][0]["gates"]] == [True, False]
    assert everybody["tries"][0]["gates"][1]["tested"]
