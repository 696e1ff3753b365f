"""`harness bench scale` in its smallest size: stores are made, measured, removed; people fitted; targets told."""

from __future__ import annotations

import json
import tempfile

import pytest

from harness.bench import report, scale
from harness.config.run_config import help_examples

SMALL = ["--people", "300,1100", "--set", "dialogues=2,1,1", "--threads", "1", "--quiet"]


def test_stores_are_measured_and_removed_and_people_fitted(harness, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    page = tmp_path / "page.md"
    code, out, err = harness("bench", "scale", *SMALL, "--fit", "2,4", "--json", "--output", page)
    found = json.loads(out)
    assert code == (0 if all(one["met"] for one in found["targets"]) else 2), err
    few, many = found["stores"]
    assert (few["people"], many["people"], few["compared"], many["compared"]) == (300, 1100, 300, 1100)
    assert (few["in_parquet"], many["in_parquet"]) == (False, True)
    assert all(row["adapter_bytes_a_person"] > 4 * scale.TOKENS * found["settings"]["width"] for row in (few, many))
    assert 8 < many["result_bytes_a_person"] < few["result_bytes_a_person"]
    assert all(row["compare_peak_bytes"] > row["list_peak_bytes"] > 1e7 for row in (few, many))
    assert [fit["people"] for fit in found["fits"]] == [2, 4]
    assert all(fit["tokens"] > 0 and fit["people_per_second"] > 0 for fit in found["fits"])
    assert len(found["targets"]) == 6
    assert not list((tmp_path / "scratch").glob("harness-scale-*"))
    text = page.read_text()
    assert text.startswith("<!-- begin: bench scale -->\n`harness bench")
    assert "1,100" in text


def row(people=10, **changes):
    figures = {"open_seconds": 0.01, "compare_seconds": 9.0, "compare_peak_bytes": 1e9}
    return {"people": people, **figures, **changes}


def test_a_target_that_is_missed_is_named():
    assert scale.missed({"targets": scale._targets([row()])}) == []
    targets = scale._targets([row(), row(1_000_000, compare_seconds=301.0, open_seconds=0.1)])
    assert scale.missed({"targets": targets}) == [
        "open one person's adapter (1,000,000 people): 0.1, target < 0.1",
        "compare 5 methods, seconds (1,000,000 people): 301, target < 300",
    ]
    heading = report.heading("x", {"repeats": 1}, "cpu")
    table = {**heading, "stores": [], "fits": [], "fit_slope": None, "targets": targets}
    assert "Targets missed: open one person's adapter of 1,000,000 people; compare" in report.scale_text(table)


def test_the_slope_is_one_where_seconds_grow_as_people():
    assert scale._slope([{"people": n, "seconds": 0.1 * n} for n in (256, 1024, 4096)]) == pytest.approx(1.0)
    assert scale._slope([{"people": n, "seconds": 0.1 * n**0.5} for n in (256, 1024)]) == pytest.approx(0.5)
    assert scale._slope([{"people": 256, "seconds": 2.0}]) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--people", "many"], "--people many: write numbers"),
        (["--fit", "0"], "--fit 0: write numbers"),
        (["--people", "99999999999", "--fit", ""], "name fewer --people"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(harness, arguments, words):
    code, _, err = harness("bench", "scale", *arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert words in err


def test_a_command_that_fails_is_named(tmp_path, another_harness):
    with pytest.raises(scale.HarnessError, match=r"`harness compare` failed \(exit code 2\): .*no runs folder"):
        scale._command(["compare", "a", "b"], tmp_path / "none", 1)


def test_help_has_its_example(harness):
    code, out, _ = harness("bench", "scale", "--help")
    assert code == 0
    assert help_examples()["bench-scale"] in " ".join(out.split("Example:")[1].split())
