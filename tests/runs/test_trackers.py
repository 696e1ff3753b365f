"""Experiment trackers: what a stored run tells them, what happens where one fails, and what each real one has kept."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from harness.runs import trackers
from harness.runs.learning import Learning
from harness.runs.stored import write_run
from harness.store import dump_json
from harness.store.disk import Store

PROJECT = trackers.PROJECT
CURVE = Learning(first=0, adapters=3, mean=(2.0, 1.5), low=(1.0, 0.5), high=(3.0, 2.5), training=(3, 2),
                 train_loss=(1.25,))  # fmt: skip


@pytest.fixture
def runs(tmp_path, stored):
    """The folder of two runs, "m" a little better than "base", with learning curves."""
    for method, scores in (("m", np.linspace(0.5, 0.9, 8)), ("base", np.linspace(0.4, 0.7, 8))):
        record = stored(tmp_path, method, scores, flags=[{"kind": "adds_text"}], method_options={"a": {"b": 3}}).record
        write_run(Store(tmp_path), record, lambda folder: dump_json(CURVE.model_dump(), folder / "learning.json"))
    return tmp_path


@pytest.fixture
def fake(monkeypatch):
    """A tracker called `fake` that notes what it is told; `fake.trouble` is raised by its method `params`."""
    module = ModuleType("harness.runs.to_fake")
    told: list[tuple] = []

    class Run:
        def open(self, name: str, created: str, folder: Path) -> None:
            print("words on stdout")
            told.append(("open", name, folder))

        def params(self, values, tags) -> None:
            if fake.trouble:
                raise fake.trouble
            told.append(("params", values, tags))

        def metrics(self, values, epoch=None) -> None:
            told.append(("metrics", epoch, values))

        def close(self) -> None:
            told.append(("close",))

    class fake:  # noqa: N801 (it is used as a value)
        trouble: BaseException | None = None
        calls = told

    module.Run = Run  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(trackers.TRACKERS, "fake", "json")
    return fake


def test_a_tracker_is_told_all_of_a_run_in_order(harness, runs, fake):
    code, out, err = harness("runs", "log", "m", "--to", "fake", "--baseline", "base", "--runs-dir", runs)
    assert (code, out) == (0, ""), err
    assert [call[0] for call in fake.calls] == ["open", "params", "metrics", "metrics", "metrics", "close"]
    assert fake.calls[0][1:] == ("m-x-0", runs / "trackers")
    _, values, tags = fake.calls[1]
    assert (values["method"], values["method.a.b"], values["seed"], values["protocol.turns"]) == ("m", 3, 0, "all")
    assert (tags["status"], tags["flags"], tags["baseline"]) == ("ok", "adds text to the prompt", "base")
    assert "base" in tags["verdict"]
    assert [call[1] for call in fake.calls[2:5]] == [0, 1, None]
    assert fake.calls[3][2] == {
        "learning/validation_loss": 1.5, "learning/validation_loss_p10": 0.5,
        "learning/validation_loss_p90": 2.5, "learning/adapters_in_training": 2.0, "learning/train_loss": 1.25,
    }  # fmt: skip
    figures = fake.calls[4][2]
    assert figures["score/similarity"] == pytest.approx(70)
    assert figures["comparison/difference"] == pytest.approx(15)
    assert figures["comparison/ci95_low"] < 15 < figures["comparison/ci95_high"]
    assert 0 < figures["comparison/p"] < 1
    assert figures["score/similarity_se"] > 0
    assert figures["cost/trainable_parameters"] == 10


def test_without_a_baseline_or_a_complete_run_there_is_only_what_is_known(harness, runs, fake, stored):
    record = stored(runs, "broken", np.full(8, 0.5), status="failed", error="why", per_persona=None).record
    write_run(Store(runs), record)
    assert harness("runs", "log", "broken", "--to", "fake", "--runs-dir", runs)[0] == 0
    assert fake.calls[1][2]["status"] == "failed"
    assert fake.calls[2] == ("metrics", None, {})


def test_a_record_that_cannot_be_read_takes_nothings_place(harness, runs, fake):
    (runs / "m-x-0" / "run.json").write_text("{")
    code, out, err = harness("runs", "log", "base", "m", "--to", "fake", "--runs-dir", runs)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "run.json" in err
    assert "nothing is sent" in err
    assert fake.calls == []


@pytest.mark.parametrize("trouble", [RuntimeError("no\nnetwork"), SystemExit(3)])
def test_a_tracker_that_fails_is_one_line_and_is_closed(harness, runs, fake, trouble):
    fake.trouble = trouble
    code, _, err = harness("runs", "log", "m", "base", "--to", "fake", "--runs-dir", runs, "-q")
    assert code == 2
    assert err.count("\n") == 1
    assert f"fake has failed ({type(trouble).__name__}" in err
    assert "harness runs log m-x-0 --to fake" in err
    assert f"pip install '{PROJECT}[fake]'" in err
    assert [call[0] for call in fake.calls] == ["open", "close"], "it gets no more runs"


@pytest.mark.parametrize("command", [["run", "--log"], ["sweep", "quick", "--log"], ["tune", "quick", "--log"]])
def test_a_tracker_that_is_missing_is_found_before_anything_else(harness, tmp_path, monkeypatch, command):
    monkeypatch.setitem(trackers.TRACKERS, "wandb", "no_such_package")
    code, out, err = harness(*command, "tensorboard,wandb" if importlib.util.find_spec("tensorboard") else "wandb",
                             "--runs-dir", tmp_path / "runs")  # fmt: skip
    assert (code, out) == (2, "")
    assert err == f"harness: wandb is not installed; pip install '{PROJECT}[wandb]' installs it\n"
    assert not (tmp_path / "runs").exists()
    assert "did you mean 'mlflow'?" in harness("runs", "log", "x", "--to", "mlfow", "--runs-dir", tmp_path)[2]


@pytest.mark.slow
def test_a_sweep_is_logged_when_it_is_done_and_again_when_it_is_found(sweep_lab, fake):
    sweep_lab.method("low", 0.2)
    sweep_lab.method("high", 0.8)
    text = "baseline: low\nmethods: [low, high]\nseeds: [0]\n"
    _, plain = sweep_lab.json(text)
    code, logged = sweep_lab.json(text, "--log", "fake", "--log-dir", str(sweep_lab.folder / "logs"))
    assert (code, logged["rows"]) == (0, plain["rows"]), "the same ids and scores"
    opened = [call[1] for call in fake.calls if call[0] == "open"]
    assert [name.split("-")[0] for name in opened] == ["low", "high"]
    tags = [call[2] for call in fake.calls if call[0] == "params"]
    assert ["baseline" in one for one in tags] == [False, True]
    fake.trouble = OSError("disk full")
    code, out, err = sweep_lab.call(text, "--log", "fake", "--quiet")
    assert (code, err.count("\n")) == (0, 1)
    assert "high" in out
    assert sweep_lab.fits("low") == ["0"]


# ---- what real trackers have kept ----


def needs(package: str):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"pip install '.[{package}]' installs it")


def log(harness, runs: Path, name: str) -> None:
    """Twice: what is sent again takes the first one's place."""
    for _ in range(2):
        code, out, err = harness("runs", "log", "m", "--to", name, "--baseline", "base", "--runs-dir", runs)
        assert (code, out) == (0, ""), err
        assert err == f"1 run is in {name}; their files on this machine: {runs / 'trackers'}\n"


@needs("tensorboard")
def test_tensorboard_keeps_event_files(harness, runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(harness, runs, "tensorboard")
    found = EventAccumulator(str(runs / "trackers/tensorboard/m-x-0"))
    found.Reload()
    curve = found.Scalars("learning/validation_loss")
    assert [(event.step, event.value) for event in curve] == [(0, 2.0), (1, 1.5)]
    assert found.Scalars("comparison/difference")[0].value == pytest.approx(15)
    assert "config/text_summary" in found.Tags()["tensors"]
    assert "_hparams_/session_start_info" in found.summary_metadata


@needs("mlflow")
def test_mlflow_keeps_a_database(harness, runs, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log(harness, runs, "mlflow")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{runs / 'trackers/mlflow/mlflow.db'}")
    experiment = client.get_experiment_by_name(PROJECT)
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params["method.a.b"]) == ("m-x-0", "FINISHED", "3")
    assert run.data.metrics["comparison/difference"] == pytest.approx(15)
    assert run.data.tags["verdict kind"]
    curve = client.get_metric_history(run.info.run_id, "learning/validation_loss")
    assert sorted((point.step, point.value) for point in curve) == [(0, 2.0), (1, 1.5)]


@needs("wandb")
def test_wandb_keeps_a_folder_for_later(harness, runs, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    log(harness, runs, "wandb")
    folder, *_ = sorted((runs / "trackers/wandb").glob("offline-run-*-m-x-0"))
    content = (folder / "run-m-x-0.wandb").read_bytes()
    for word in (b"score/similarity", b"comparison/difference", b"learning/validation_loss", b"status: ok"):
        assert word in content


@needs("trackio")
def test_trackio_keeps_a_database(runs):
    """In a process of its own: it takes its folder when it is imported."""
    import os
    import subprocess

    code = (
        "import contextlib, json, sys\nfrom harness.cli import main\n"
        "for _ in range(2):\n    with contextlib.suppress(SystemExit): main(sys.argv[1:])\n"
        f"import trackio\n(run,) = trackio.Api().runs({PROJECT!r})\n"
        f"logs = trackio.SQLiteStorage.get_logs({PROJECT!r}, run.name)\n"
        "print(json.dumps([run.name, run.config['method.a.b'], run.config['tag.status'], logs]))\n"
    )
    words = ["runs", "log", "m", "--to", "trackio", "--baseline", "base", "--runs-dir", str(runs)]
    unset = {name: value for name, value in os.environ.items() if not name.startswith("TRACKIO_")}
    done = subprocess.run([sys.executable, "-c", code, *words], env=unset, capture_output=True, text=True, check=True)
    name, option, status, logs = json.loads(done.stdout.splitlines()[-1])
    assert (name, option, status) == ("m-x-0", 3, "ok")
    assert [one.get("learning/validation_loss") for one in logs] == [2.0, 1.5, None]
    assert logs[-1]["comparison/difference"] == pytest.approx(15)
    assert list((runs / "trackers/trackio").iterdir())
