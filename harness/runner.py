"""START HERE: data, fit, predict, score, test against the baseline, store.

`Session` holds what the runs of one command share (data, backbone, scorer, store); `Session.run` makes or finds one
run, and what it requires on the way. What a method sees is `harness.study`; how replies are scored is
`harness.scoring.evaluation`; what two runs may be compared by is `harness.compare.guard`.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.compare import Family, comparison_rows
from harness.config import Recipe, RunConfig, device_of, held_out, scope_of, with_config
from harness.contract import (
    Method,
    changes,
    extensions_of,
    in_words,
    load_benchmark,
    load_method,
    load_with_required,
    plain,
)
from harness.engines import engine_for
from harness.errors import ConfigError, HarnessError, StoreError, did_you_mean
from harness.model import (
    example_set_hash,
    load_backbone,
    people_hash,
    protocol_hash,
    split_examples,
    split_hash,
    template_text,
)
from harness.progress import Progress
from harness.runs import (
    Ceiling,
    RunRecord,
    StoredRun,
    Unseen,
    Yardstick,
    cost_of,
    flags_of,
    learning_of,
    opening,
    read_run,
    write_learning,
    write_replies,
    write_run,
    write_served,
)
from harness.scoring import Evaluation, metric_sources
from harness.statistics import ComparisonRow, ScoreRow
from harness.store import Store, canonical_hash, copy_sealed, numerics, plugin_hash, source_hash
from harness.workers import (
    Answer,
    BackboneJob,
    Given,
    LocalWorker,
    RemoteWorker,
    chain_of,
    kinds_of,
    open_places,
    options_of,
    read_card,
    trusted_files,
)

SCORING = "harness.scoring.evaluation"  # the module whose code, with all that it imports, makes scores of replies


@dataclass(frozen=True)
class Outcome:
    """What one command found out. `row` is None where the method is the baseline itself."""

    run: StoredRun
    baseline: StoredRun
    row: ComparisonRow | None
    baseline_row: ScoreRow
    ceilings: Sequence[Ceiling]

    @property
    def compared(self) -> list[tuple[StoredRun, ComparisonRow | None]]:
        """Both runs, each with its comparison."""
        return [(self.run, self.row), (self.baseline, None)]

    @property
    def verdict(self) -> str:
        """The sentence that a paper may quote."""
        return self.row.verdict if self.row else "this is the baseline"


class Session:
    """Everything that the runs of one command share."""

    def __init__(self, config: RunConfig, plugin_files: Sequence[str | Path], progress: Progress) -> None:
        self.config = config
        self.files = files = tuple(plugin_files)
        self.progress = progress
        self.store = Store(config.runs_dir, progress.warn)
        # Everything that can be wrong with names and data is found before anything slow begins.
        self.methods: dict[str, Method] = {}
        self.load(config.recipe)
        if config.baseline:
            self.load(config.plain(config.baseline))
        self.benchmark = load_benchmark(config.benchmark, trusted_files(files) if config.isolate else files)
        loaded = self.benchmark.load(config.benchmark_options)
        self.dataset = with_config(loaded, config, self.benchmark.card.options)
        self._choose()
        self.store.clear_abandoned()
        self.places, self._opened_places = open_places(config, self.store, progress, self._job), True
        self.evaluation = Evaluation(self.dataset, config.scorer, self.store, progress, self.places.shards.elsewhere)
        self.backbone = load_backbone(**_loading(config), note=progress.note)
        self.hashes = {
            "protocol": protocol_hash(self.dataset, template_text(self.backbone.tokenizer)),
            "examples": example_set_hash(self.examples),
            "split": split_hash(self.dataset),
            "backbone": self.backbone.fingerprint,
            "scorer": self.evaluation.scorer_digest,
        }
        self.people = people_hash(self.dataset)  # no part of what is comparable, and part of what decides on scores
        self._start()

    def load(self, recipe: Recipe) -> None:
        """Make a method, and all that it requires, known to this session and its twins."""
        load = read_card if self.config.isolate else load_method
        self.methods |= load_with_required(recipe.method, self.files, recipe.options, recipe.others, load=load)

    def check_required(self, recipes: Sequence[Recipe]) -> None:
        """Raises ConfigError for options of a method that nothing here stands on."""
        used = {name for recipe in recipes for name in self._chain(recipe)}
        for recipe in recipes:
            if idle := sorted(set(recipe.others) - used):
                raise ConfigError(
                    f"options of '{idle[0]}' are given, and neither '{recipe.method}' nor what it is compared with "
                    f"stands on it; {did_you_mean(idle[0], used)}"
                )

    def twin(self, seed: int, persona: tuple[str, ...] = (), cluster: int | None = None) -> Session:
        """A session for another seed, or for some of the personas; data, backbone, scorer and store are shared.

        Fits stay apart: they come from the store, so that a long sweep does not hold all of them in memory.
        """
        other = copy.copy(self)
        other.config, other._opened_places = replace(self.config, seed=seed, persona=persona, cluster=cluster), False
        other._choose()
        other.hashes = {**self.hashes, "examples": example_set_hash(other.examples)}
        other._start()
        return other

    def among(self, personas: Collection[str]) -> Session:
        """A session in a world of these personas alone; backbone, scorer and store are shared."""
        other = copy.copy(self)
        people = tuple(p for p in self.dataset.personas if p.id in personas)
        dialogues = tuple(d for d in self.dataset.dialogues if d.persona in personas)
        other.dataset, other._opened_places = replace(self.dataset, personas=people, dialogues=dialogues), False
        other.people = people_hash(other.dataset)
        other._choose()
        other._start()
        return other

    def _choose(self) -> None:
        """Whose replies are asked for, and which of them stand in the table."""
        self.scope = scope_of(self.dataset, self.config)
        self.held_out = held_out(self.dataset) & self.scope
        self.examples = [e for e in split_examples(self.dataset, "test") if e.prompt.persona in self.scope]
        self.seen = [i for i, e in enumerate(self.examples) if e.prompt.persona not in self.held_out]
        self.unseen = [i for i, e in enumerate(self.examples) if e.prompt.persona in self.held_out]
        if not self.seen:
            why = "they are held out" if self.unseen else "check its splits"
            raise HarnessError(f"{self.dataset.name} has no test replies for the chosen personas; {why}")

    def _start(self) -> None:
        """Where methods fit and reply: in this process, or each in one of its own."""
        config = self.config
        given = Given(
            self.methods, self.dataset, self.scope, self.backbone, self.store, self.progress, config.seed,
            config.scorer, self.places,
        )  # fmt: skip
        self.local = LocalWorker(given)
        self.worker: LocalWorker | RemoteWorker = self.local
        if config.isolate:
            self.worker = RemoteWorker(given, self._job(), self.files, config.threads)

    def close(self) -> None:
        """End the processes of methods; the session that has opened them lets go of other machines, too."""
        self.worker.close()
        if self._opened_places and self.places.executor is not None:
            self.places.executor.close()

    def _job(self) -> BackboneJob:
        """The backbone, as other processes and machines load it."""
        return BackboneJob.of(_loading(self.config), self.backbone.fingerprint)

    # ---- one run ----

    def run_id(self, recipe: Recipe) -> str:
        """The id under which that run is or will be stored; everything that decides on its scores is in it."""
        digest = canonical_hash(self.identity(recipe))
        return f"{recipe.method}-{recipe.control + '-' if recipe.control else ''}{digest[:12]}"

    def stored(self, run_id: str) -> StoredRun | None:
        """The run of that id as it lies in the store, complete or not; None if there is none, or a damaged one."""
        try:
            stored = read_run(self.store.root / run_id)
            fault = stored.damage() if stored and stored.complete else ""
        except StoreError as error:
            stored, fault = None, str(error)
        if fault:
            self.store.note(f"{fault}; the run is made again")
        return None if fault else stored

    def run(self, recipe: Recipe) -> StoredRun:
        """The complete run of a method under this session's configuration, from the store or made now."""
        run_id = self.run_id(recipe)
        stored = self.stored(run_id)
        if stored and stored.complete:
            return stored
        with self.store.lock(run_id):
            stored = self.stored(run_id)
            if stored and stored.complete:  # another process was quicker
                return stored
            record = opening(
                run_id, self.config, recipe, self._chain(recipe), self.benchmark, self.dataset, self.backbone,
                self.hashes, self._needed_files(recipe), len(self.scope) < len(self.dataset.personas),
            )  # fmt: skip
            write_run(self.store, record)
            try:
                return self._make(recipe, record)
            except Exception as error:
                failed = record.amended(status="failed", error=f"{type(error).__name__}: {error}")
                write_run(self.store, failed)
                raise

    def _make(self, recipe: Recipe, record: RunRecord) -> StoredRun:
        with self.worker.answer(recipe, [e.prompt for e in self.examples]) as answer:
            return self._scored(record, answer)

    def _scored(self, record: RunRecord, answer: Answer) -> StoredRun:
        predicted, facts = answer.predicted, answer.facts
        started = time.perf_counter()
        columns = self.evaluation.columns(self.examples, predicted)
        score_seconds = time.perf_counter() - started
        sums = self.evaluation.sums(self.examples, self.seen, columns)
        learning = learning_of(facts.report)
        record = record.amended(
            status="ok",
            n_personas=len(sums.personas),
            n_replies=len(self.seen),
            scores=self.evaluation.figures(sums),
            per_persona=sums,
            unseen=self._unseen(columns),
            notes=plain(answer.notes),
            cut_prompts=predicted.cut,
            adds_text=facts.adds_text,
            cost=cost_of(facts, answer.seconds, score_seconds, answer.memory_bytes),
            ceilings=self.ceilings(),
            yardsticks=self.yardsticks(),
            flags=flags_of(facts, predicted.replies, self._changed(answer), learning),
            base=facts.base,
            numerics={**record.numerics, **answer.engines},
        )

        def fill(folder: Path) -> None:
            write_replies(folder, self.examples, predicted.replies, columns, self.config.texts)
            write_learning(folder, learning)
            if facts.folder:
                copy_sealed(facts.folder, folder / "adapters")
                write_served(folder, facts.served)

        return write_run(self.store, record, fill)

    def _changed(self, answer: Answer) -> tuple[str, ...]:
        """What the plugins that a run needs have left changed in their processes up to now."""
        kinds = ("metric",) if self.config.isolate else ("metric", "adapter")
        files = {found.source.file for kind in kinds for found in extensions_of(kind)}
        own = in_words(changes(among=files | {self.benchmark.source.file}))
        return tuple(dict.fromkeys([*answer.changed, *own]))

    def _unseen(self, columns: Mapping[str, Sequence[float]]) -> Unseen | None:
        """Scores with personas that were held out of all training; None without any."""
        if not self.unseen:
            return None
        sums = self.evaluation.sums(self.examples, self.unseen, columns)
        return Unseen(
            n_personas=len(sums.personas),
            n_replies=len(self.unseen),
            scores=self.evaluation.figures(sums),
            per_persona=sums,
        )

    # ---- the pieces of a run ----

    def _needed_files(self, recipe: Recipe) -> list[str | Path]:
        """The loose files but for those of methods that neither this one nor the baseline needs."""
        needed = set(self._chain(recipe))
        if self.config.baseline:
            needed |= set(self._chain(self.config.plain(self.config.baseline)))
        others = {other.source.file for name, other in self.methods.items() if name not in needed}
        return [file for file in self.files if str(Path(file).expanduser().resolve()) not in others]

    def _chain(self, recipe: Recipe) -> dict[str, tuple[Method, Any]]:
        return chain_of(self.methods, recipe)

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        """Everything that decides on a run's scores."""
        sources = {name: method.source for name, (method, _) in self._chain(recipe).items()}
        return {
            "methods": {name: plugin_hash(source) for name, source in sources.items()},
            "options": options_of(self._chain(recipe)),
            "control": recipe.control,
            "tuning": recipe.tuning,
            "seed": self.config.seed,
            **({"shard_people": self.config.shard_people} if self._is_cut() else {}),
            "hashes": self.hashes,
            "people": self.people,
            "numerics": numerics(self.backbone, engine_for(self.backbone)[0].name),
            "code": source_hash("harness.study", SCORING),
            "benchmark": plugin_hash(self.benchmark.source),  # its schema is in no other hash
            "metrics": metric_sources(self.evaluation.names),
            "adapters": kinds_of(self._chain(recipe)),
        }

    def _is_cut(self) -> bool:
        """Whether there are more people than one shard holds; else its size decides on nothing."""
        return len(self.dataset.personas) > self.config.shard_people

    def ceilings(self) -> list[Ceiling]:
        """Scores of the benchmark's oracles on this example set, computed once and cached; empty without oracles."""
        found = self.evaluation.oracles([self.examples[i] for i in self.seen], self._observed)
        return [Ceiling.model_validate(one) for one in found]

    def yardsticks(self) -> list[Yardstick]:
        """Scores of the benchmark's simple predictors on this example set, in the same way."""
        found = self.evaluation.yardsticks([self.examples[i] for i in self.seen], self._observed)
        return [Yardstick.model_validate(one) for one in found]

    @property
    def _observed(self) -> list[str]:
        """What oracles and yardsticks follow from."""
        data = [self.hashes[name] for name in ("examples", "protocol", "split", "scorer")]
        code = [source_hash(SCORING), plugin_hash(self.benchmark.source), *metric_sources(self.evaluation.names)]
        return [*data, self.people, *code]


def open_session(config: RunConfig, plugin_files: Sequence[str | Path], progress: Progress) -> Session:
    """A session with torch set as the configuration says; what every command that makes runs begins with."""
    from harness.model import set_repeatable

    set_repeatable(config.threads)
    return Session(config, plugin_files, progress)


def execute(config: RunConfig, plugin_files: Sequence[str | Path], progress: Progress) -> Outcome:
    """The command `run`: the method, then the baseline if there is no such run yet, then the test."""
    with contextlib.closing(open_session(config, plugin_files, progress)) as session:
        session.check_required(config.compared)
        return judge(session, session.run(config.recipe))


def judge(session: Session, run: StoredRun) -> Outcome:
    """Compare a run with its session's baseline, which is made on the way if there is none."""
    _, *others = session.config.compared
    baseline = session.run(others[0]) if others else run
    is_baseline = baseline.id == run.id
    families = [] if is_baseline else [Family(run.record.row_name, (run,))]
    own, rows = comparison_rows(Family(baseline.record.row_name, (baseline,)), families)
    return Outcome(run, baseline, rows[0] if rows else None, own, run.record.ceilings)


# ---- small steps ----


def _loading(config: RunConfig) -> dict[str, Any]:
    """The arguments of `load_backbone`."""
    return {
        "name": config.backbone,
        "device": device_of(config.device),
        "dtype": config.dtype,
        "engine": config.engine,
        "attention": config.attn_implementation,
        "load_in": config.load_in,
        "chat_template": config.chat_template,
    }
