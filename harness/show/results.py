"""What Python gets back: a run, a run with its verdict, a comparison. Each prints, shows itself in a notebook, plots.

Text and tables are those of the commands. `to_pandas` needs pandas, which `pip install` brings with the extra `pandas`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.compare import Family, Joint, View, as_json, samples, view, view_if_any
from harness.errors import HarnessError, StoreError
from harness.runs import RunRecord, StoredRun
from harness.show.drawn import joint_figure, persona_figure
from harness.show.exported import joint_rows
from harness.show.layout import as_html
from harness.show.printing import outcome_blocks, outcome_json, outcome_text, shown
from harness.show.stored_text import joint_blocks, joint_text, run_blocks, run_text
from harness.statistics import ComparisonRow, ScoreRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from harness.runner import Outcome


def frame(rows: Any) -> DataFrame:
    """Rows, or columns by name, as a data frame. Raises HarnessError without pandas."""
    try:
        from pandas import DataFrame
    except ImportError as error:
        words = "to_pandas needs pandas: pip install 'peft-personalisation-harness[pandas]'"
        raise HarnessError(words) from error
    return DataFrame(rows)


class Run:
    """A stored run. Attributes give what was recorded; nothing is computed before it is asked for."""

    def __init__(self, stored: StoredRun) -> None:
        self.stored = stored

    @property
    def id(self) -> str:
        return self.stored.id

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.stored.path

    @property
    def record(self) -> RunRecord:
        """All of run.json, typed."""
        return self.stored.record

    @property
    def method(self) -> str:
        """As a table names it: with its control and what was changed below it."""
        return self.record.row_name

    @property
    def metric(self) -> str:
        """The one that decides."""
        return self.record.metric

    @property
    def score(self) -> float | None:
        """By the metric that decides, in its unit (points where it is a share); None for a run without an end."""
        return self.scores.get(self.metric) if self.stored.complete else None

    @property
    def scores(self) -> dict[str, float | None]:
        """Metric -> mean over replies, in its unit; empty for a run without an end."""
        if not self.stored.complete:
            return {}
        return {name: shown(self.record, name, self.record.scores.get(name)) for name in self.record.metrics}

    def view(self, metric: str | None = None) -> View:
        """Personas and clusters under a metric, by default the one that decides; in its unit."""
        return view(self.stored, metric)

    def to_pandas(self) -> DataFrame:
        """The replies, one row each, under the columns of replies.parquet. Raises StoreError where none are stored."""
        replies = self.stored.replies()
        if replies is None:
            raise StoreError(f"{self.id} stores no replies, only sums by persona")
        return frame(replies.columns())

    def plot(self, metric: str | None = None) -> Figure:
        """Every persona's score with its 95 % interval, in the order of the scores."""
        return persona_figure(self.view(metric))

    def __str__(self) -> str:
        if not self.stored.complete:
            return run_text(self.stored, None, (), 3)
        seen = view_if_any(self.stored)
        return run_text(self.stored, seen, samples(self.stored, 5, seen.metric if seen else self.metric), 3)

    def __repr__(self) -> str:
        return f"<Run {self.id}: {self.stored.head.status}>"

    def _repr_html_(self) -> str:
        return as_html(run_blocks(self.stored))


class Comparison:
    """Methods against one baseline, tested together."""

    def __init__(self, joint: Joint) -> None:
        self.joint = joint

    @property
    def metric(self) -> str:
        return self.joint.metric

    @property
    def rows(self) -> tuple[ComparisonRow, ...]:
        """A row for each method, in the order in which they were named."""
        return self.joint.rows

    @property
    def baseline(self) -> ScoreRow:
        """The baseline's own scores."""
        return self.joint.own

    @property
    def verdicts(self) -> dict[str, str]:
        """Method -> better, worse, equivalent or inconclusive."""
        return {row.method: row.verdict_kind for row in self.rows}

    def to_pandas(self) -> DataFrame:
        """A row for each method, the baseline last, with full figures."""
        return frame(joint_rows(self.joint))

    def as_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return as_json(self.joint)

    def plot(self) -> Figure:
        """The forest plot: differences with their intervals."""
        return joint_figure(self.joint)

    def __str__(self) -> str:
        return joint_text(self.joint)

    def __repr__(self) -> str:
        words = ", ".join(f"{name} {kind}" for name, kind in self.verdicts.items())
        return f"<Comparison with {self.baseline.method} by {self.metric}: {words}>"

    def _repr_html_(self) -> str:
        return as_html(joint_blocks(self.joint))


@dataclass(frozen=True, repr=False)
class Result:
    """What `harness.run` found out: the run, its baseline's run, and the test of the two."""

    outcome: Outcome

    @cached_property
    def run(self) -> Run:
        return Run(self.outcome.run)

    @cached_property
    def baseline(self) -> Run:
        return Run(self.outcome.baseline)

    @property
    def row(self) -> ComparisonRow | None:
        """The difference with intervals, p-values and flags; None where the method is the baseline itself."""
        return self.outcome.row

    @property
    def verdict(self) -> str:
        """The sentence that a paper may quote."""
        return self.outcome.verdict

    @property
    def comparison(self) -> Comparison | None:
        """The same test as a table of one method; None where the method is the baseline itself."""
        if self.row is None:
            return None
        run, baseline = self.outcome.run, self.outcome.baseline
        base, own = (Family(one.record.row_name, (one,)) for one in (baseline, run))
        row = self.row
        return Comparison(
            Joint(run.record.metric, row.estimand, base, self.outcome.baseline_row, (own,), (row,), (), {})
        )

    def to_pandas(self) -> DataFrame:
        """The run's replies, one row each."""
        return self.run.to_pandas()

    def as_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return outcome_json(self.outcome)

    def plot(self) -> Figure:
        """The difference from the baseline; of the baseline itself its personas' scores."""
        return self.comparison.plot() if self.comparison else self.run.plot()

    def __str__(self) -> str:
        return outcome_text(self.outcome)

    def __repr__(self) -> str:
        return f"<Result of {self.run.id}: {self.verdict}>"

    def _repr_html_(self) -> str:
        return as_html(outcome_blocks(self.outcome))
