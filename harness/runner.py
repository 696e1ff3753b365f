"""START HERE: data, fit, predict, score, test against the baseline, store.

`Session` holds what the runs of one command share (data, backbone, scorer, store); `Session.run` makes or finds one
run, and what it requires on the way. What a method sees is `harness.study`; what two runs may be compared by is
`harness.comparison`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import backbone as backbones
from harness import facts, metrics, prompts
from harness.comparison import Family, comparison_rows, row_name
from harness.config import RunConfig
from harness.errors import ConfigError, HarnessError, PluginError, did_you_mean
from harness.metrics.similarity import Embedder, locate_scorer
from harness.plugins import Method, load_benchmark, load_method
from harness.progress import Advance, Progress
from harness.records import Dataset, Dialogue, Example, Persona
from harness.scoring import EMPTY_SHARE_FLAGGED, needs_embedder, overall, persona_sums, score_replies
from harness.sources import RUN_SOURCES, source_hash
from harness.statistics import ComparisonRow, ScoreRow
from harness.store import SCHEMA_VERSION, Store, StoredRun, canonical_hash, dump_json, link_tree, read_json
from harness.study import Control, Fitted, Study, choice_log_probs, numerics, reply_nll


@dataclass(frozen=True)
class Outcome:
    """What one command found out. `row` is None where the method is the baseline itself."""

    run: StoredRun
    baseline: StoredRun
    row: ComparisonRow | None
    baseline_row: ScoreRow
    ceilings: Sequence[Mapping[str, Any]]


class Session:
    """Everything that the runs of one command share."""

    def __init__(self, config: RunConfig, plugin_files: Sequence[str | Path], progress: Progress) -> None:
        self.config = config
        self.files = tuple(plugin_files)
        self.progress = progress
        self.store = Store(config.runs_dir)
        # Everything that can be wrong with names and data is found before anything slow begins.
        self.methods: dict[str, Method] = {}
        self.load(config.method)
        if config.baseline:
            self.load(config.baseline)
        self.benchmark = load_benchmark(config.benchmark, self.files)
        loaded = self.benchmark.load(config.benchmark_options)
        self.dataset = _with_config(loaded, config, self.benchmark.card.options)
        self.scope, self.examples = _asked(self.dataset, config)
        for name in metrics.expand(self.dataset.metrics):
            if "schema" in metrics.get(name).needs and not self.dataset.schema:
                raise ConfigError(f"metric '{name}' needs a device schema, and {self.dataset.name} has none")
        self.scorer = locate_scorer(_local_scorer(config.scorer)) if needs_embedder(self.dataset) else None
        self.backbone = _backbone(config)
        self.embedder = (
            Embedder(self.scorer, cache=self.store.cache / "embeddings", progress=self._embedding)
            if self.scorer
            else None
        )
        self._advance: Advance | None = None
        self.hashes = {
            "protocol": prompts.protocol_hash(self.dataset, prompts.template_text(self.backbone.tokenizer)),
            "examples": prompts.example_set_hash(self.examples),
            "split": prompts.split_hash(self.dataset),
            "backbone": self.backbone.fingerprint,
            "scorer": self.embedder.digest if self.embedder else "none",
        }
        self._fitted: dict[tuple[str, str], Fitted] = {}

    def twin(self, seed: int, persona: tuple[str, ...] = (), cluster: int | None = None) -> Session:
        """A session for another seed, or for some of the personas; data, backbone, scorer and store are shared.

        Fits stay apart: they come from the store, so that a long sweep does not hold all of them in memory.
        """
        other = copy.copy(self)
        other.config = replace(self.config, seed=seed, persona=persona, cluster=cluster)
        other.scope, other.examples = _asked(self.dataset, other.config)
        other.hashes = {**self.hashes, "examples": prompts.example_set_hash(other.examples)}
        other._fitted = {}
        return other

    # ---- one run ----

    def run_id(self, name: str, options: Any = None, control: Control | None = None) -> str:
        """The id under which that run is or will be stored; everything that decides on its scores is in it."""
        method = self.methods[name]
        options = method.card.options() if options is None else options
        digest = canonical_hash(self._identity(method, options, control))
        return f"{name}-{control + '-' if control else ''}{digest[:12]}"

    def run(self, name: str, options: Any = None, control: Control | None = None) -> StoredRun:
        """The complete run of a method under this session's configuration, from the store or made now."""
        method = self.methods[name]
        options = method.card.options() if options is None else options
        run_id = self.run_id(name, options, control)
        stored = self.store.run(run_id)
        if stored and stored.complete:
            return stored
        with self.store.lock(run_id):
            stored = self.store.run(run_id)
            if stored and stored.complete:  # another process was quicker
                return stored
            record = self._opening(run_id, method, options, control)
            self.store.write_run(
                run_id, lambda folder: dump_json({**record, "status": "incomplete"}, folder / "run.json")
            )
            try:
                return self._make(run_id, method, options, control, record)
            except Exception as error:
                failed = {**record, "status": "failed", "error": f"{type(error).__name__}: {error}"}
                self.store.write_run(run_id, lambda folder: dump_json(failed, folder / "run.json"))
                raise

    def _make(
        self, run_id: str, method: Method, options: Any, control: Control | None, record: dict[str, Any]
    ) -> StoredRun:
        study = self._study(method, options, control)
        started = time.perf_counter()
        fitted = self._fit(method, study, self._fit_key(method, options, control))
        fit_seconds = time.perf_counter() - started
        replies, predict_seconds = self._predict(method, study, fitted)
        self._check_backbone(method.name, "predict")  # the next run of this session stands on the same weights
        started = time.perf_counter()
        columns, cut = self._score(fitted, replies)
        score_seconds = time.perf_counter() - started
        sums = persona_sums(self.dataset, self.examples, columns)
        record |= {
            "status": "ok",
            "n_personas": len(sums["personas"]),
            "n_replies": len(self.examples),
            "scores": {m: overall(sums, m) for m in metrics.expand(self.dataset.metrics)},
            "cut_prompts": cut,
            "adds_text": fitted.adds_text,
            "cost": self._cost(fitted, fit_seconds, predict_seconds, score_seconds),
            "flags": _flags(fitted, replies),
            "ceilings": self.ceilings(),
            "base": fitted.backbone.fingerprint,  # what the adapters stand on
        }

        def fill(folder: Path) -> None:
            with (folder / "scores.jsonl").open("w", encoding="utf-8", newline="\n") as lines:
                for line in _score_lines(self.examples, replies, columns):
                    lines.write(line + "\n")
            dump_json(sums, folder / "personas.json")
            if fitted.folder:
                link_tree(fitted.folder, folder / "adapters")
            dump_json(record, folder / "run.json")

        return StoredRun(self.store.write_run(run_id, fill), record)

    def _fit(self, method: Method, study: Study, key: str) -> Fitted:
        if (method.name, key) not in self._fitted:
            fitted = method.fit(study)
            if not isinstance(fitted, Fitted):
                raise PluginError(f"method '{method.name}': fit returned {type(fitted).__name__}, not a harness.Fitted")
            self._check_backbone(method.name, "fit")
            self._fitted[method.name, key] = fitted
        return self._fitted[method.name, key]

    def _predict(self, method: Method, study: Study, fitted: Fitted) -> tuple[list[str], float]:
        """Replies in the order of the examples, asked for turn depth by turn depth."""
        started = time.perf_counter()
        replies: dict[int, str] = {}
        for depth in sorted({e.prompt.depth for e in self.examples}):
            places = [i for i, e in enumerate(self.examples) if e.prompt.depth == depth]
            given = method.predict(study, fitted, [self.examples[i].prompt for i in places])
            replies.update(zip(places, given, strict=True))
        return [replies[i] for i in range(len(self.examples))], time.perf_counter() - started

    def _score(self, fitted: Fitted, replies: Sequence[str]) -> tuple[dict[str, list[float]], int]:
        asked = [e.prompt for e in self.examples]
        references = [e.reference for e in self.examples]
        nll, cut = reply_nll(self.dataset.protocol, fitted, asked, references, self.progress)
        choices = None
        if self.dataset.protocol.choices:
            choices = choice_log_probs(self.dataset.protocol, fitted, asked, self.progress)
        with self.progress.task("score", 0, "texts") as self._advance:
            columns = score_replies(self.dataset, self.examples, replies, self.embedder, nll, choices)
        self._advance = None
        return columns, cut

    def _embedding(self, done: int, total: int) -> None:
        if self._advance is not None:
            self._advance.to(done, total)

    # ---- the pieces of a run ----

    def load(self, name: str, above: tuple[str, ...] = ()) -> None:
        """Make a method, and all that it requires, known to this session and its twins.

        Raises PluginError for a circle or an unknown name.
        """
        if name in above:
            raise PluginError(f"methods require each other in a circle: {' -> '.join((*above, name))}")
        if name not in self.methods:
            method = load_method(name, self.files)
            for required in method.card.requires:
                self.load(required, (*above, name))
            self.methods[name] = method

    def _study(self, method: Method, options: Any, control: Control | None) -> Study:
        personas = _fitted_for(self.dataset, self.scope, method.card.shares)
        ids = {p.id for p in personas}
        required = {}
        for name in method.card.requires:
            base = self.methods[name]
            defaults = base.card.options()
            required[name] = self._fit(base, self._study(base, defaults, None), self._fit_key(base, defaults, None))
        return Study(
            backbone=self.backbone,
            personas=personas,
            dialogues=[d for d in self.dataset.dialogues if d.split != "test" and d.persona in ids],
            protocol=self.dataset.protocol,
            options=options,
            seed=self.config.seed,
            required=required,
            store=self.store,
            progress=self.progress,
            control=control,
        )

    def _fit_key(self, method: Method, options: Any, control: Control | None) -> str:
        return canonical_hash([method.name, _plain(options), control, self.config.seed])

    def _identity(self, method: Method, options: Any, control: Control | None) -> dict[str, Any]:
        """Everything that decides on a run's scores."""
        chain = {name: self.methods[name].source.sha256 for name in _chain(method, self.methods)}
        return {
            "methods": chain,
            "options": _plain(options),
            "control": control,
            "seed": self.config.seed,
            "hashes": self.hashes,
            "numerics": numerics(self.backbone),
            "code": source_hash(RUN_SOURCES),
        }

    def _opening(self, run_id: str, method: Method, options: Any, control: Control | None) -> dict[str, Any]:
        config = {**self.config.as_dict(), "method": method.name, "control": control}
        for name in ("method_options", "benchmark_options", "runs_dir"):
            config.pop(name)  # options stand beside; where runs lie is no part of a run
        source = method.source
        return {
            "schema_version": SCHEMA_VERSION,
            "id": run_id,
            "method": method.name,
            "plugin": {
                "distribution": source.distribution,
                "version": source.version,
                "file": Path(source.file).name,
                "sha256": source.sha256,
            },
            "summary": method.card.summary,
            "requires": list(method.card.requires),
            "shares": method.card.shares,
            "trials": method.card.trials,
            "method_options": _plain(options),
            "changed": self._changed(method, options),
            "config": config,
            "seed": self.config.seed,
            "subset": len(self.scope) < len(self.dataset.personas),
            "benchmark": {
                "name": self.dataset.name,
                "options": _plain(self.config.benchmark_options),
                "facts": dict(self.dataset.facts),
                "sha256": self.benchmark.source.sha256,
            },
            "protocol": _plain(self.dataset.protocol),
            "metrics": list(metrics.expand(self.dataset.metrics)),
            "reference": _plain(self.dataset.reference) if self.dataset.reference else None,
            "hashes": self.hashes,
            "numerics": numerics(self.backbone),
            "versions": facts.versions(),
            "hardware": facts.hardware(self.backbone.device.type),
            "git": facts.git_state(Path(__file__).parent),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _changed(self, method: Method, options: Any) -> dict[str, Any]:
        """Options that are not their plugin's defaults, by dotted name, and changed protocol fields."""
        found = {
            "method": _differences(_plain(options), _plain(method.card.options())),
            "benchmark": _differences(
                _plain(self.config.benchmark_options),
                _plain(self.benchmark.card.options()),
                leave_out="personas",
            ),
            "protocol": _plain(dict(self.config.protocol)),
        }
        return {target: values for target, values in found.items() if values}

    def _cost(self, fitted: Fitted, fit: float, predict: float, score: float) -> dict[str, Any]:
        report = fitted.report
        bank = fitted.bank
        adapters = report.get("adapters", {}).values()
        return {
            "trainable_parameters": bank.trainable_per_adapter * len(bank) if bank else 0,
            "parameters_per_adapter": bank.trainable_per_adapter if bank else 0,
            "adapters": len(bank) if bank else 0,
            "stored_bytes": bank.stored_bytes if bank else 0,
            "fit_seconds": round(float(report.get("seconds", fit)), 2),
            "predict_seconds": round(predict, 2),
            "score_seconds": round(score, 2),
            "steps": sum(a["steps"] for a in adapters),
            "epochs": max((a["epochs"] for a in adapters), default=0),
            "tokens": report.get("tokens", 0),
            "peak_memory_bytes": facts.peak_memory_bytes(),
        }

    def ceilings(self) -> list[dict[str, Any]]:
        """Scores of the benchmark's oracles on this example set, computed once and cached; empty without oracles."""
        if self.dataset.ceilings is None:
            return []
        key = canonical_hash(
            [
                self.hashes["examples"],
                self.hashes["protocol"],
                self.hashes["scorer"],
                self.benchmark.source.sha256,
            ]
        )

        def make(folder: Path) -> None:
            rows = []
            assert self.dataset.ceilings is not None
            with self.progress.task("score the oracles", 0, "texts") as self._advance:
                for ceiling in self.dataset.ceilings():
                    replies = [ceiling.replies[e.prompt.id] for e in self.examples]
                    columns = score_replies(self.dataset, self.examples, replies, self.embedder)
                    sums = persona_sums(self.dataset, self.examples, columns)
                    scores = {m: overall(sums, m) for m in sums["metrics"]}
                    rows.append({"name": ceiling.name, "knows": ceiling.knows, "scores": scores})
            self._advance = None
            dump_json(rows, folder / "ceilings.json")

        return read_json(self.store.cached("ceilings", key, make) / "ceilings.json")

    def _check_backbone(self, name: str, hook: str) -> None:
        now = backbones.fingerprint(self.backbone.model, self.backbone.tokenizer)
        if now != self.backbone.fingerprint:
            raise PluginError(
                f"method '{name}' changed the frozen backbone's weights in {hook}; train adapters instead"
            )


def open_session(config: RunConfig, plugin_files: Sequence[str | Path], progress: Progress) -> Session:
    """A session with torch set as the configuration says; what every command that makes runs begins with."""
    import torch

    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return Session(config, plugin_files, progress)


def execute(config: RunConfig, plugin_files: Sequence[str | Path], progress: Progress) -> Outcome:
    """The command `run`: the method, then the baseline if there is no such run yet, then the test."""
    session = open_session(config, plugin_files, progress)
    return judge(session, session.run(config.method, config.method_options, config.control))


def judge(session: Session, run: StoredRun) -> Outcome:
    """Compare a run with its session's baseline, which is made on the way if there is none."""
    config = session.config
    baseline = run
    if config.baseline and (config.baseline != config.method or config.control):
        baseline = session.run(config.baseline)
    is_baseline = baseline.id == run.id
    families = [] if is_baseline else [Family(row_name(run.record), (run,))]
    own, rows = comparison_rows(Family(row_name(baseline.record), (baseline,)), families)
    return Outcome(run, baseline, rows[0] if rows else None, own, run.record.get("ceilings", []))


# ---- small steps ----


def _with_config(dataset: Dataset, config: RunConfig, options: type) -> Dataset:
    """The data set with the run's protocol changes, and the first N personas where it cannot be made smaller."""
    if config.protocol:
        dataset = replace(dataset, protocol=replace(dataset.protocol, **config.protocol))
    can_shrink = any(f.name == "personas" for f in dataclasses.fields(options))
    if isinstance(config.personas, int) and not can_shrink and config.personas < len(dataset.personas):
        personas: tuple[Persona, ...] = dataset.personas[: config.personas]
        kept = {p.id for p in personas}
        dialogues: tuple[Dialogue, ...] = tuple(d for d in dataset.dialogues if d.persona in kept)
        dataset = replace(dataset, personas=personas, dialogues=dialogues)
    return dataset


def _asked(dataset: Dataset, config: RunConfig) -> tuple[frozenset[str], list[Example]]:
    """The personas that are fitted and scored, and their test examples. Raises HarnessError if there are none."""
    scope = _scope(dataset, config)
    asked = [e for e in prompts.examples(dataset, "test") if e.prompt.persona in scope]
    if not asked:
        raise HarnessError(f"{dataset.name} has no test replies for the chosen personas; check its splits")
    return scope, asked


def _scope(dataset: Dataset, config: RunConfig) -> frozenset[str]:
    """Ids of the personas that are fitted and scored. Raises ConfigError for an unknown persona or cluster."""
    known = {p.id: p for p in dataset.personas}
    if config.persona:
        unknown = [p for p in config.persona if p not in known]
        if unknown:
            raise ConfigError(f"--persona: there is no persona '{unknown[0]}'; {did_you_mean(unknown[0], known)}")
        return frozenset(config.persona)
    if config.cluster is not None:
        clusters = {p.cluster for p in dataset.personas if p.cluster is not None}
        if config.cluster not in clusters:
            raise ConfigError(f"--cluster: there is no cluster {config.cluster}; known: {sorted(clusters)}")
        return frozenset(p.id for p in dataset.personas if p.cluster == config.cluster)
    return frozenset(known)


def _fitted_for(dataset: Dataset, scope: frozenset[str], shares: str) -> list[Persona]:
    """Personas whose data a method may use: the chosen ones, their clusters', or everybody's, by what it shares."""
    if shares == "all":
        return list(dataset.personas)
    if shares == "cluster":
        clusters = {p.cluster for p in dataset.personas if p.id in scope}
        return [p for p in dataset.personas if p.id in scope or (p.cluster is not None and p.cluster in clusters)]
    return [p for p in dataset.personas if p.id in scope]


def _chain(method: Method, methods: Mapping[str, Method]) -> list[str]:
    """A method and all that it requires, deepest last."""
    found = [method.name]
    for name in method.card.requires:
        found += _chain(methods[name], methods)
    return list(dict.fromkeys(found))


def _backbone(config: RunConfig) -> backbones.Backbone:
    device = config.device
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    return backbones.load(config.backbone, device=device, dtype=config.dtype)


def _local_scorer(scorer: str) -> str | None:
    """A folder given by the user; None means the one scorer, wherever it is found."""
    return scorer if Path(scorer).expanduser().is_dir() else None


def _plain(value: Any) -> Any:
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    return json.loads(json.dumps(plain, default=str))


def _differences(given: Mapping[str, Any], default: Mapping[str, Any], leave_out: str = "") -> dict[str, Any]:
    """Dotted name -> value, where two nested mappings differ."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": v for inner, v in _differences(value, default.get(name, {})).items()}
        elif name != leave_out and value != default.get(name):
            found[name] = value
    return found


def _flags(fitted: Fitted, replies: Sequence[str]) -> list[str]:
    flags = []
    empty = sum(not r.strip() for r in replies) / len(replies)
    if empty > EMPTY_SHARE_FLAGGED:
        flags.append(f"{empty:.0%} empty replies")
    states = fitted.report.get("adapters", {})
    for status in ("diverged", "no data"):
        if count := sum(state["status"] == status for state in states.values()):
            flags.append(f"{count} of {len(states)} adapters: {status}")
    if fitted.report.get("rewaved"):
        flags.append("rewaved")
    if fitted.adds_text:
        flags.append("adds text to the prompt")
    return flags


def _score_lines(
    examples: Sequence[Example], replies: Sequence[str], columns: Mapping[str, Sequence[float]]
) -> list[str]:
    """scores.jsonl: one JSON object per example."""
    lines = []
    for i, example in enumerate(examples):
        values = {name: (None if v[i] != v[i] else v[i]) for name, v in columns.items()}
        line = {
            "id": example.prompt.id,
            "persona": example.prompt.persona,
            "prompt": canonical_hash([[m.role, m.text] for m in example.prompt.messages])[:16],
            "reference": canonical_hash(example.reference)[:16],
            "reply": replies[i],
            **values,
        }
        lines.append(json.dumps(line, ensure_ascii=False, allow_nan=False))
    return lines
