"""The checks in processes of their own: what stays in modules is seen, and how a process ends is the driver's word."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from harness.testkit import check_method, check_names, isolated

HEAD = """
import os, signal
from dataclasses import dataclass
from harness import Message, MethodCard, hookimpl

@dataclass(frozen=True)
class Options:
    pass

@hookimpl
def card():
    return MethodCard("a test", Options)

def heard(study, persona):
    return study.dialogues(persona.id, "train")[0].messages[1].text

def saying(study, notes):
    return study.bare().with_messages(lambda p: (Message("system", notes.get(p.persona, "")), *p.messages[1:]))
"""
FIT = "@hookimpl\ndef fit(study):\n    "
KEPT = {
    "a cache without the data in its keys": (
        "FIRST = {}\n"
        f"{FIT}for p in study.personas:\n        FIRST.setdefault(p.id, heard(study, p))\n"
        "    return saying(study, FIRST)\n"
        # What is patched where the plugin is takes no check away.
        "import harness.testkit.checks as checks\nchecks.CHECKS.clear()\n"
    ),
    "a counter": f"COUNT = []\n{FIT}COUNT.append(1)\n    return saying(study, dict.fromkeys([p.id for p in "
    "study.personas], 'late' if len(COUNT) > 4 else 'early'))\n",
    "the order of a set": f"{FIT}return saying(study, {{p.id: ' '.join(set(heard(study, p) + 'abcdefgh')) "
    "for p in study.personas})\n",
}


@pytest.fixture
def check(tmp_path, monkeypatch):
    """check(source, seconds) -> the report; the folder of the checks must be gone."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))

    def run(source: str, seconds: float = 60.0):
        (tmp_path / "sample.py").write_text(HEAD + source)
        report = check_method("sample", [tmp_path / "sample.py"], seconds)
        assert not list((tmp_path / "tmp").iterdir())
        assert [result.name for result in report.results] == check_names()
        return report

    return run


@pytest.mark.slow
@pytest.mark.parametrize("how", [next(iter(KEPT)), *(pytest.param(h, marks=pytest.mark.attack) for h in [*KEPT][1:])])
def test_what_stays_in_a_process_is_seen_beside_a_fresh_one(check, how):
    report = check(KEPT[how])
    assert "fresh_process" in report.failed, report.text()
    if how != "a counter":  # which others may see, too
        assert report.failed == ("fresh_process",), report.text()
    assert "between a process that has fitted and replied before and a fresh one" in report.results[-1].reason


def test_a_plugin_that_ends_the_process_fails_the_check_under_way(check):
    report = check(FIT + "return study.bare()\n\nos._exit(0)\n")
    first, *others = report.results
    assert (first.name, first.status) == ("hooks", "failed")
    assert first.reason == "its process ended with exit code 0; a plugin returns or raises"
    assert {(other.status, other.reason) for other in others} == {("skipped", "the check has ended, see 'hooks'")}


def test_a_process_that_stops_answering_is_ended(check, monkeypatch):
    monkeypatch.setattr(isolated, "SECONDS_BESIDE", 2.0)
    report = check(FIT + "os.kill(os.getpid(), signal.SIGSTOP)\n    return study.bare()\n", 2.0)
    assert report.failed == ("fits",)
    assert "a hook has not ended after 2 s" in report.text()


@pytest.mark.attack
def test_what_happens_in_the_fresh_process_alone_is_told(check):
    fresh = "os.environ['PYTHONHASHSEED'] == '1'"
    report = check(FIT + f"return os._exit(5) if {fresh} else study.bare()\n")
    assert report.failed == ("fresh_process",)
    assert report.results[-1].reason.endswith("its process ended with exit code 5; a plugin returns or raises")


@pytest.mark.parametrize("field", [{"name": "other"}, {"status": "fine"}, {"reason": None}])
def test_a_message_that_is_no_result_is_refused(field):
    from harness.workers.channel import Message

    fields = {"name": "fits", "proves": "", "status": "ok", "reason": ""}
    assert isolated._result(Message("result", fields), "fits", "it fits").proves == "it fits"
    with pytest.raises(ValueError, match="status"):
        isolated._result(Message("result", {**fields, **field}), "fits", "it fits")


def test_the_driver_imports_no_plugin_and_no_torch():
    import subprocess
    import sys

    code = "import sys, harness.testkit.isolated; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]", done.stderr
