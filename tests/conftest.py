"""Fixtures that several test files share: small random models, so that no test needs a download."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.contract.data import Example, Message, Prompt
from harness.runs.record import RunRecord
from harness.runs.replies import write_replies
from harness.runs.stored import StoredRun, described, write_run
from harness.scoring.similarity import Embedder
from harness.store.disk import Store

TINY_VOCABULARY = 64


def pytest_configure() -> None:
    """The environment of tests and of the processes that they start. Scripts that import this file keep their own."""
    # Most tests look at what a run does, and start no process for each of its methods; tests/workers/ does, by flags.
    os.environ.setdefault("HARNESS_ISOLATE", "false")

    # Tests run side by side, so each has one thread. A test of threads asks for two. Threads that wait leave the cores
    # to other tests. Torch reads both when it is loaded.
    os.environ["HARNESS_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session", autouse=True)
def embedded_once():
    """Every text is embedded once in this process, whatever store asks for it, by a scorer that is loaded once.

    Stores of different tests hold the same worlds. A vector does not depend on the company of its text: that is what
    tests/scoring/test_similarity.py watches, with the functions as they are (`__wrapped__`).
    """
    forward, load = Embedder._forward, Embedder._load
    vectors: dict[tuple[object, ...], np.ndarray] = {}
    models: dict[tuple[str, str], tuple[object, object]] = {}

    @functools.wraps(forward)
    def remembered(self: Embedder, ids: list[list[int]]) -> np.ndarray:
        keys = [(self.digest, self.device, *row) for row in ids]
        new = {key: row for key, row in zip(keys, ids, strict=True) if key not in vectors}
        if new:
            vectors.update(zip(new, forward(self, list(new.values())), strict=True))
        return np.stack([vectors[key] for key in keys])

    @functools.wraps(load)
    def loaded(self: Embedder) -> None:
        key = (self.digest, self.device)
        if key not in models:
            load(self)
            models[key] = self._model, self._tokenizer
        self._model, self._tokenizer = models[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Embedder, "_forward", remembered)
        patch.setattr(Embedder, "_load", loaded)
        yield


@contextlib.contextmanager
def few_epochs(most: int = 3) -> Iterator[None]:
    """While open, fits make so many epochs at most: for what shows after the first steps, or not at all.

    Not fits that may keep their start: in few epochs an adapter could stay there, and show nothing.
    """
    from harness.training import Fitter

    plan = Fitter._plan

    def shorter(self, backbone, grouping, train):
        epochs = train.epochs if train.keep_start else min(train.epochs, most)
        return plan(self, backbone, grouping, dataclasses.replace(train, epochs=epochs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fitter, "_plan", shorter)
        yield


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A word-level tokenizer with <pad>, <eos> and words w0, w1, ...; ids below TINY_VOCABULARY."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>"] + [f"w{i}" for i in range(TINY_VOCABULARY - 3)]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template="{{ messages }}",
    )


@pytest.fixture(scope="session")
def make_backbone(tiny_tokenizer):
    """make_backbone(dtype="float64", architecture="qwen2", seed=0, **config) -> a fresh random Backbone."""
    from harness.testkit import random_backbone

    def make(dtype: str = "float64", architecture: str = "qwen2", seed: int = 0, **overrides):
        return random_backbone(tiny_tokenizer, architecture=architecture, dtype=dtype, seed=seed, **overrides)

    return make


@pytest.fixture(scope="session")
def cache_of():
    """cache_of(bank, row) -> the cache that keys and values as a prefix begin with, or None; from tensors alone."""
    from transformers import DynamicCache

    def make(bank, row: int):
        if not bank.cached_tokens:
            return None
        cache = DynamicCache()
        for layer in range(bank.tensors["key"].shape[1]):
            cache.update(bank.tensors["key"][row, layer][None], bank.tensors["value"][row, layer][None], layer)
        return cache

    return make


HASHES = {"protocol": "p" * 64, "examples": "e" * 64, "split": "s" * 64, "backbone": "b" * 64, "scorer": "c" * 64}


def stored(
    folder: Path,
    method: str,
    means,
    *,
    seed: int = 0,
    hashes=None,
    n: int = 10,
    control=None,
    clusters=None,
    personas=None,
    **changes,
) -> StoredRun:
    """A run with per-persona mean similarity `means` (0-1), n replies each; `changes`: fields, parts of cost."""
    means = np.asarray(means, dtype=float)
    sums = {"unit": "pt", "higher_is_better": True, "sum": [float(s * n) for s in means], "n": [n] * len(means)}
    fields = {
        "id": f"{method}-{control or 'x'}-{seed}",
        "method": method,
        "status": "ok",
        "plugin": {"distribution": "x", "version": "1", "file": f"{method}.py", "sha256": "0"},
        "shares": "persona",
        "trials": 1,
        "validation": "early_stopping",
        "config": {
            "method": method, "benchmark": "toy", "baseline": "base", "backbone": "none", "personas": None,
            "persona": [], "cluster": None, "seed": seed, "control": control, "threads": 2,
        },
        "seed": seed,
        "benchmark": {"name": "toy", "options": {}, "facts": {}, "sha256": "0"},
        "protocol": {"system": "", "turns": "all"},
        "metrics": ["similarity"],
        "hashes": {**HASHES, **(hashes or {})},
        "numerics": {"threads": "2", "dtype": "float32"},
        "versions": {"python": "3.11"},
        "hardware": {"processor": "cpu", "cores": 2},
        "created": "2026-01-01T00:00:00+00:00",
        "n_personas": len(means),
        "n_replies": n * len(means),
        "scores": {"similarity": float(means.mean())},
        "cost": {
            "trainable_parameters": 10, "parameters_per_adapter": 1, "adapters": 10, "stored_bytes": 40, "fits": 1,
            "fit_seconds": 1.0, "predict_seconds": 1.0, "score_seconds": 1.0, "steps": 1, "epochs": 1, "tokens": 100,
            "peak_memory_bytes": 1,
        },
        "per_persona": {
            "personas": personas or [f"p{i:03d}" for i in range(len(means))],
            "clusters": clusters,
            "replies": [n] * len(means),
            "metrics": {"similarity": sums},
        },
    }  # fmt: skip
    if changes.get("cost"):
        changes["cost"] = {**fields["cost"], **changes["cost"]}
    record = described(RunRecord.model_validate({**fields, **changes}))
    return StoredRun(folder / record.id, record)


@pytest.fixture(name="stored")
def stored_fixture():
    """stored(tmp_path, method, scores, ...) -> a StoredRun made of numbers, for tests that run no model."""
    return stored


def written(folder: Path, method: str, scores, *, texts=("ask", "right", "scored"), **changes) -> StoredRun:
    """As `stored`, with scores [G] or [G, n], written to `folder` with all its examples.

    Two replies make a dialogue, so `n` should be even. texts: how prompts, references and replies begin; a reply
    ends with its score.
    """
    scores = np.asarray(scores, dtype=float)
    replies = scores if scores.ndim == 2 else np.repeat(scores[:, None], changes.get("n", 10), axis=1)
    changes = {"clusters": [i % 2 for i in range(len(replies))], **changes, "n": replies.shape[1]}
    run = stored(folder, method, replies.mean(1), **changes)

    examples = [
        Example(
            Prompt(f"{persona}/d{i // 2}#{i % 2}", persona, i % 2, (Message("user", f"{texts[0]} {i}"),)),
            f"{texts[1]} {i}",
        )
        for persona in run.record.sums.personas
        for i in range(replies.shape[1])
    ]
    values = [float(value) for value in replies.ravel()]
    said = [f"{texts[2]} {value:.3f}" for value in values]

    def fill(folder: Path) -> None:
        write_replies(folder, examples, said, {run.record.metric: values}, texts=True)

    return write_run(Store(folder), run.record, fill)


@pytest.fixture
def put(tmp_path):
    """put(method, scores, ...) -> the run, as `written` to tmp_path/runs."""
    return functools.partial(written, tmp_path / "runs")


@contextlib.contextmanager
def _changed_sums(run: StoredRun):
    path = run.path / "run.json"
    value = json.loads(path.read_text())
    yield value["per_persona"]
    path.write_text(json.dumps(value))


@pytest.fixture
def changed_sums():
    """`with changed_sums(run) as sums:` - the sums per persona in a run's run.json, written back at the end."""
    return _changed_sums


@pytest.fixture
def harness(capsys):
    """harness(*arguments) -> (exit code, stdout, stderr), in this process."""
    from harness.cli import main

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        on_interrupt = signal.getsignal(signal.SIGINT)
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        signal.signal(signal.SIGINT, on_interrupt)  # an interrupted command ignores what follows, and
        atexit.unregister(os._exit)  # ends its process at once
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


GUESSER = '''
"""Knows the right reply to some prompts; says in a file when it is fitted."""
import hashlib, pathlib, re
from dataclasses import dataclass
from harness import MethodCard, hookimpl

@dataclass(frozen=True)
class Options:
    right: float = {right}
    shift: int = 0

@hookimpl
def card():
    return MethodCard("guesses", Options, shares="persona")

@hookimpl
def fit(study):
    log = pathlib.Path(__file__).with_suffix(".log")
    with log.open("a") as lines:
        lines.write(f"{{study.seed}}\\n")
    {trouble}
    return study.bare()

@hookimpl
def predict(study, prompts):
    def reply(prompt):
        key = f"{{prompt.id}} {{study.seed}} {{study.options.shift}}"
        luck = int(hashlib.sha256(key.encode()).hexdigest()[:6], 16) / 16**6
        number = re.findall(r"\\d+", prompt.messages[-1].text)[-1]
        return f"it is {{number}}" if luck < study.options.right else "no"
    return [reply(p) for p in prompts]
'''


class SweepLab:
    """Guessing methods in loose files, a small file of data, and the command line in this process."""

    stops_once = """if not log.with_suffix(".stopped").exists():
        log.with_suffix(".stopped").touch()
        raise KeyboardInterrupt"""

    def __init__(self, folder: Path, capsys) -> None:
        self.folder, self.capsys, self.plugins = folder, capsys, []
        lines = [
            {"persona_id": f"p{p}", "prompt": f"say {p * 7 + i}", "reply": f"it is {p * 7 + i}"}
            for p in range(7)
            for i in range(25)
        ]
        (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
        self.runs = folder / "runs"

    def method(self, name: str, right: float = 0.5, trouble: str = "") -> None:
        path = self.folder / f"{name}.py"
        path.write_text(GUESSER.format(right=right, trouble=trouble))
        self.plugins.append(path)

    def fits(self, name: str) -> list[str]:
        log = self.folder / f"{name}.log"
        return log.read_text().split() if log.exists() else []

    def write(self, text: str) -> Path:
        options = f"data: {self.folder / 'data.jsonl'}, metrics: exact_match, splits: '1/1/23'"
        head = f"benchmark: jsonl\nset: {{{options}}}\n"
        path = self.folder / "sweep.yaml"
        path.write_text(head + text)
        return path

    def call(self, text: str, *flags: str) -> tuple[int, str, str]:
        plugins = [word for path in self.plugins for word in ("--plugin", str(path))]
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["sweep", str(self.write(text)), "--runs-dir", str(self.runs), *plugins, *flags])
        out, err = self.capsys.readouterr()
        return int(ended.value.code or 0), out, err

    def json(self, text: str, *flags: str) -> tuple[int, dict]:
        code, out, err = self.call(text, "--json", "--quiet", *flags)
        assert out, err
        return code, json.loads(out)


@pytest.fixture
def sweep_lab(tmp_path, capsys):
    """A SweepLab in a folder of its own."""
    return SweepLab(tmp_path, capsys)
