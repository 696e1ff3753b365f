"""Several methods x seeds in one go: runs made one after another on shared data, then one joint comparison.

`Workshop` makes runs (of a sweep, or of a plan's phases), from the store where they are complete; a run that fails is
noted and the others go on. What is asked for is `harness.sweeps.sweep_file`'s, the text `harness.sweeps.sweep_text`'s.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.compare import Family, comparison_rows
from harness.config import RunConfig
from harness.errors import HarnessError, StoreError
from harness.progress import Progress, duration
from harness.runner import Session, open_session
from harness.runs import Ceiling, StoredRun
from harness.statistics import ComparisonRow, ScoreRow
from harness.sweeps.sweep_file import Entry, Sweep


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose replies are scored: everybody's, some personas', or one cluster's."""

    persona: tuple[str, ...] = ()
    cluster: int | None = None

    @property
    def everybody(self) -> bool:
        return not self.persona and self.cluster is None


@dataclass(frozen=True, slots=True)
class Order:
    """A run to be made."""

    entry: Entry
    seed: int
    scope: Scope


@dataclass(frozen=True, slots=True)
class Made:
    """What became of an order: the complete run, or why there is none. `stored`: nothing had to be made."""

    order: Order
    run: StoredRun | None
    stored: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the joint table. No family: all its runs failed. No comparison: it is the baseline, or has none."""

    entry: Entry
    family: Family | None
    score: ScoreRow | None
    failed: tuple[Made, ...]

    @property
    def comparison(self) -> ComparisonRow | None:
        return self.score if isinstance(self.score, ComparisonRow) else None


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """A finished sweep: the rows in the file's order, the baseline's own last if the file does not list it."""

    sweep: Sweep
    rows: tuple[Row, ...]
    made: tuple[Made, ...]
    ceilings: Sequence[Ceiling]

    @property
    def failed(self) -> bool:
        return any(made.run is None for made in self.made)

    @property
    def compared(self) -> list[tuple[StoredRun, ComparisonRow | None]]:
        """Every complete run with the comparison of its row."""
        return [(run, row.comparison) for row in self.rows if row.family for run in row.family.runs]


@dataclass
class Workshop:
    """Makes runs on sessions that share data, backbone, scorer and, within a seed and scope, what was fitted."""

    shared: RunConfig
    files: Sequence[str | Path]
    progress: Progress
    entries: Sequence[Entry]
    _root: Session | None = None
    _sessions: dict[tuple[int, Scope], Session] = field(default_factory=dict)
    _seconds: list[float] = field(default_factory=list)

    def session(self, seed: int, scope: Scope) -> Session:
        """The session of a seed and scope. Raises HarnessError for a persona or cluster that is not there."""
        if self._root is None:
            self._root = open_session(self.shared, self.files, self.progress)
            self.take(self.entries)
        if (seed, scope) not in self._sessions:
            self._sessions[seed, scope] = self._root.twin(seed, scope.persona, scope.cluster)
        return self._sessions[seed, scope]

    def close(self) -> None:
        """End the processes of methods, and let go of other machines; what is asked for afterwards begins anew."""
        for session in self._sessions.values():
            session.close()
        if self._root is not None:  # it alone has opened the places where shards are computed
            self._root.close()
        self._root = None
        self._sessions.clear()

    def take(self, entries: Sequence[Entry]) -> None:
        """Make these entries in place of those before; what is open stays so."""
        self.entries = entries
        if self._root is not None:
            for entry in entries:
                self._root.load(entry.config.recipe)
            self._root.check_required([entry.config.recipe for entry in entries])

    def stored(self, order: Order) -> tuple[str, StoredRun | None]:
        """The id that the run has or will have, and the run as it is stored now, complete or not."""
        session = self.session(order.seed, order.scope)
        run_id = session.run_id(order.entry.config.recipe)
        return run_id, session.stored(run_id)

    def make(self, order: Order) -> Made:
        """The run from the store or made now; an error of the method ends this run alone.

        Raises StoreError: where nothing can be written, no other run would fare better.
        """
        _, before = self.stored(order)
        stored = before if before and before.complete else None  # whole: its files have just been read
        session = self.session(order.seed, order.scope)
        for other in self._sessions.values():
            if other is not session:  # processes that wait hold a backbone each
                other.close()
        started = time.perf_counter()
        try:
            run = stored or session.run(order.entry.config.recipe)
        except StoreError:
            raise
        except Exception as error:  # a plugin may raise anything
            self.progress.note(f"{order.entry.label}, seed {order.seed}, failed: {_one_line(error)}")
            # What failed half-way may have left hooks or changed weights in the model that all sessions share.
            self.close()
            return Made(order, None, error=_one_line(error))
        self._seconds.append(_cost_seconds(run) if stored else time.perf_counter() - started)
        return Made(order, run, stored is not None)

    def make_all(self, orders: Sequence[Order]) -> list[Made]:
        """All of them in order, telling which of how many it is and about how long the rest will take."""
        # This opens every session: whatever is wrong with names and data is found before the first run.
        waiting = [not (run and run.complete) for _, run in map(self.stored, orders)]
        made = []
        with self.progress.task("runs", len(orders), "runs") as advance:
            for place, order in enumerate(orders):
                left = self._left(sum(waiting[place:]))
                what = f"{order.entry.label}, seed {order.seed}"
                state = left if waiting[place] else "; stored"
                self.progress.note(f"run {place + 1} of {len(orders)}: {what}{state}")
                advance.to(place, len(orders), what)
                made.append(self.make(order))
            advance.to(len(orders), len(orders))
        return made

    def _left(self, runs: int) -> str:
        """The estimate: as many runs as are left, each as long as those known so far took on average."""
        if not self._seconds or not runs:
            return ""
        return f"; about {duration(runs * sum(self._seconds) / len(self._seconds))} left"


def orders(sweep: Sweep) -> list[Order]:
    """Every run of a sweep, seed by seed, so that the first seed's table is there first; the baseline leads."""
    others = [entry for entry in sweep.entries if entry is not sweep.baseline]
    scope = Scope(sweep.shared.persona, sweep.shared.cluster)
    return [Order(entry, seed, scope) for seed in sweep.seeds for entry in (sweep.baseline, *others)]


def run_sweep(sweep: Sweep, workshop: Workshop) -> SweepOutcome:
    """Make what is missing, then compare all with the baseline jointly."""
    made = workshop.make_all(orders(sweep))
    listed = sweep.entries if sweep.baseline in sweep.entries else (*sweep.entries, sweep.baseline)
    rows = joint_rows(sweep.baseline, listed, made)
    ceilings = next((item.run.record.ceilings for item in made if item.run), ())
    return SweepOutcome(sweep, rows, tuple(made), ceilings)


def joint_rows(baseline: Entry, entries: Sequence[Entry], made: Sequence[Made]) -> tuple[Row, ...]:
    """One row an entry, all tested jointly against the baseline; seeds are one family a method.

    Without a single complete run of the baseline there is no comparison, and rows carry their own scores alone.
    """
    found = {entry.label: family(entry, made) for entry in entries}
    others = [f for label, f in found.items() if f and label != baseline.label]
    scores: dict[str, ScoreRow] = {}
    base = family(baseline, made)
    if base:
        own, compared = comparison_rows(base, others)
        scores = {baseline.label: own} | {f.name: row for f, row in zip(others, compared, strict=True)}
    else:
        scores = {f.name: comparison_rows(f, [])[0] for f in others}
    return tuple(
        Row(
            entry,
            found[entry.label],
            scores.get(entry.label),
            tuple(m for m in made if m.run is None and m.order.entry is entry),
        )
        for entry in entries
    )


def family(entry: Entry, made: Sequence[Made]) -> Family | None:
    """An entry's complete runs, seeds ascending, under its label; None if there are none."""
    runs = [item.run for item in made if item.run and item.order.entry is entry]
    runs.sort(key=lambda run: run.record.seed)
    return Family(entry.label, tuple(runs)) if runs else None


def _cost_seconds(run: StoredRun) -> float:
    cost = run.record.cost
    return cost.fit_seconds + cost.predict_seconds + cost.score_seconds if cost else 0.0


def _one_line(error: Exception) -> str:
    kind = "" if isinstance(error, HarnessError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())
