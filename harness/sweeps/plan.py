"""A plan's phases: a method must pass the gates, else the fallbacks are tried; at the end the band of the best score.

Gates are decided on the same comparison as a sweep's table. With fewer than 6 personas nothing is tested: a gate then
compares plain means and says so, and there is no verdict at the end. Runs are made by `harness.sweeps.sweep.Workshop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness import show
from harness.compare import ESTIMAND, Family, comparison_rows
from harness.errors import HarnessError
from harness.runs import StoredRun
from harness.scoring import metric_named
from harness.statistics import FEWEST_FOR_VERDICT, ComparisonRow, ScoreRow, reference_test
from harness.sweeps.plan_file import Band, Gate, Phase, Plan
from harness.sweeps.sweep import Made, Order, Scope, Workshop, family
from harness.sweeps.sweep_file import Entry

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class GateResult:
    """Whether a gate was passed, on what grounds. `tested`: by a test; else plain means were compared.

    delta_pts   candidate minus what the gate compares with
    """

    gate: Gate
    passed: bool
    tested: bool
    text: str
    delta_pts: float | None = None
    p: float | None = None
    row: ComparisonRow | None = None


@dataclass(frozen=True, slots=True)
class Try:
    """One candidate of a phase with its score and gates; no score if none of its runs is complete."""

    entry: Entry
    made: tuple[Made, ...]
    score: ScoreRow | None
    gates: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        return bool(self.gates) and all(gate.passed for gate in self.gates)


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What a phase tried, in order; empty if it was not reached (`why`)."""

    phase: Phase
    tries: tuple[Try, ...]
    opponents: tuple[Made, ...] = ()
    why: str = ""

    @property
    def winner(self) -> Try | None:
        return next((one for one in self.tries if one.passed), None)


@dataclass(frozen=True, slots=True)
class Ending:
    """The plan's last word. `band` only where a method passed for everybody and its score lies in one."""

    text: str
    method: str | None = None
    score: float | None = None
    band: str | None = None
    verdict: bool = False


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    plan: Plan
    phases: tuple[PhaseResult, ...]
    ending: Ending

    @property
    def made(self) -> list[Made]:
        """Every run that was asked for; one that two phases need is there twice."""
        return [m for result in self.phases for m in (*result.opponents, *(m for t in result.tries for m in t.made))]

    @property
    def failed(self) -> bool:
        return any(made.run is None for made in self.made)

    @property
    def compared(self) -> list[tuple[StoredRun, ComparisonRow | None]]:
        """Every complete run, once, with the last comparison that a gate made of it."""
        rows = {
            made.run.id: gate.row
            for result in self.phases
            for one in result.tries
            for gate in one.gates
            for made in one.made
            if made.run and gate.row
        }
        runs = {made.run.id: made.run for made in self.made if made.run}
        return [(run, rows.get(name)) for name, run in runs.items()]


def run_plan(plan: Plan, workshop: Workshop) -> PlanOutcome:
    """Phase after phase. Raises HarnessError before the first run for a persona or cluster that is not there."""
    for phase in plan.phases:
        workshop.session(plan.seeds[0], scope_of(phase))
    _check_bands(plan, workshop)
    results: list[PhaseResult] = []
    stopped = ""
    for number, phase in enumerate(plan.phases, 1):
        if stopped:
            results.append(PhaseResult(phase, (), why=f"not reached: {stopped}"))
            continue
        workshop.progress.note(f"phase {number} of {len(plan.phases)}: {phase.name}")
        result = _run_phase(plan, phase, workshop)
        results.append(result)
        if result.winner is None and phase.if_failed == "stop":
            stopped = f"nothing passed '{phase.name}'"
    return PlanOutcome(plan, tuple(results), ending(plan, results))


def scope_of(phase: Phase) -> Scope:
    return Scope(phase.persona, phase.cluster)


def plan_orders(plan: Plan) -> list[tuple[str, Order]]:
    """(phase, run) for every run that may be needed, fallbacks included."""
    found = []
    for phase in plan.phases:
        entries = [gate.beats for gate in phase.gates if gate.beats] + list(phase.candidates)
        found += [(phase.name, Order(entry, seed, scope_of(phase))) for entry in entries for seed in plan.seeds]
    return found


def _run_phase(plan: Plan, phase: Phase, workshop: Workshop) -> PhaseResult:
    scope = scope_of(phase)
    opponents: dict[str, tuple[Entry, list[Made]]] = {}
    for gate in phase.gates:
        if gate.beats and gate.beats.label not in opponents:
            asked = [Order(gate.beats, seed, scope) for seed in plan.seeds]
            opponents[gate.beats.label] = gate.beats, workshop.make_all(asked)
    bases = {label: family(entry, made) for label, (entry, made) in opponents.items()}
    tries: list[Try] = []
    families: list[Family] = []
    for place, entry in enumerate(phase.candidates):
        made = workshop.make_all([Order(entry, seed, scope) for seed in plan.seeds])
        if (own := family(entry, made)) is None:
            tries.append(Try(entry, tuple(made), None, ()))
        else:
            families.append(own)
            score = comparison_rows(own, [])[0]
            tries.append(Try(entry, tuple(made), score, tuple(_judge(g, families, score, bases) for g in phase.gates)))
        if tries[-1].passed:
            workshop.progress.note(f"passed: {entry.label}")
            break
        following = phase.candidates[place + 1 : place + 2]
        workshop.progress.note(
            f"not passed: {entry.label}; " + (f"next: {following[0].label}" if following else "nothing left to try")
        )
    return PhaseResult(phase, tuple(tries), tuple(m for _, made in opponents.values() for m in made))


def _judge(gate: Gate, tried: Sequence[Family], score: ScoreRow, bases: dict[str, Family | None]) -> GateResult:
    """A gate for the last of the families tried so far in its phase."""
    if gate.beats is None:
        return _above(gate, score)
    base = bases[gate.beats.label]
    if base is None:
        return GateResult(gate, False, False, f"no complete run of {gate.beats.label} to compare with")
    if base.first.id == tried[-1].first.id:
        return GateResult(gate, False, False, f"this is {gate.beats.label} itself")
    # Tried one after another until one passes: each is tested jointly with those before it, or luck would pass soon.
    others = [one for one in tried if one.first.id != base.first.id]
    row = comparison_rows(base, others)[1][-1]
    if row.n_personas < FEWEST_FOR_VERDICT:
        passed = row.delta_pts > 0 if row.higher_is_better else row.delta_pts < 0
        text = f"{_signed(row.delta_pts, row)} in plain means; {_few(row.n_personas)}"
        return GateResult(gate, passed, False, text, row.delta_pts, None, row)
    text = row.verdict
    if len(others) > 1:
        text += f"; tested jointly with the {len(others) - 1} tried before"
    return GateResult(gate, row.verdict_kind == "better", True, text, row.delta_pts, row.p_adj, row)


def _above(gate: Gate, score: ScoreRow) -> GateResult:
    """The mean against a constant: a one-sample test on persona-clustered errors, at least 6 personas."""
    assert gate.reference is not None
    delta = score.score_micro_pts - gate.reference
    better = delta > 0 if score.higher_is_better else delta < 0
    source = f" ({gate.source})" if gate.source else ""
    if score.n_personas < FEWEST_FOR_VERDICT or score.se_micro_pts is None:
        text = f"{_signed(delta, score)} from {gate.reference:g}{source} in plain means; {_few(score.n_personas)}"
        return GateResult(gate, better, False, text, delta)
    test = reference_test(
        score.score_micro_pts,
        score.se_micro_pts,
        score.n_personas,
        score=gate.reference,
        aggregation=ESTIMAND,
        estimand=ESTIMAND,
        source=gate.source,
    )
    text = f"{_signed(delta, score)} from {gate.reference:g}{source}, p {show.p_value(test.p)}; {test.caveat}"
    return GateResult(gate, better and test.p < ALPHA, True, text, delta, test.p)


def ending(plan: Plan, results: Sequence[PhaseResult]) -> Ending:
    """The band of the best method that passed a phase with everybody; else the baseline is kept."""
    passed = [result.winner for result in results if scope_of(result.phase).everybody and result.winner]
    scored = [(one, one.score) for one in passed if one.score]
    if not scored:
        few = [t.score.n_personas for r in results for t in r.tries if t.score and scope_of(r.phase).everybody]
        if few and max(few) < FEWEST_FOR_VERDICT:
            return Ending(f"no verdict: {_few(max(few))}")
        return Ending(f"{plan.baseline} is kept: no method passed the gates for everybody", verdict=True)
    best, score = max(scored, key=lambda pair: pair[1].score_micro_pts * (1 if pair[1].higher_is_better else -1))
    label, points = best.entry.label, score.score_micro_pts
    if score.n_personas < FEWEST_FOR_VERDICT:
        return Ending(f"no verdict: {label} scores {points:.2f}; {_few(score.n_personas)}", label, points)
    if not plan.bands:
        return Ending(f"{label} passed the gates and scores {points:.2f}", label, points, verdict=True)
    band, words = place_in_bands(plan.bands, points)
    return Ending(f"{label} scores {points:.2f}: {words}", label, points, band, True)


def place_in_bands(bands: Sequence[Band], points: float) -> tuple[str | None, str]:
    """(name of the band or None, in words): bands hold their lower end, the highest its upper end too."""
    first, last = bands[0], bands[-1]
    if points < first.low:
        return None, f"passed the gates, below the plan's bands (the lowest, {first.name}, begins at {first.low:g})"
    if points > last.high:
        return None, f"above the plan's bands (the highest, {last.name}, ends at {last.high:g})"
    band = next((band for band in bands if points < band.high), last)
    return band.name, f"{band.name} (the plan's band from {band.low:g} to {band.high:g})"


def _check_bands(plan: Plan, workshop: Workshop) -> None:
    session = workshop.session(plan.seeds[0], scope_of(plan.phases[0]))
    decides = session.dataset.metrics[0]
    if plan.bands and metric_named(decides).unit != "pt":
        raise HarnessError(
            f"{plan.name}: bands are scores in points, and {session.dataset.name} is decided by {decides} "
            f"({metric_named(decides).unit}); leave 'bands' out"
        )


def _few(personas: int) -> str:
    who = "1 persona" if personas == 1 else f"{personas} personas"
    return f"{who} (fewer than {FEWEST_FOR_VERDICT}): descriptive, nothing is tested"


def _signed(value: float, row: ScoreRow) -> str:
    return f"{value:+.2f}" + (f" {row.unit}" if row.unit != "raw" else "")
