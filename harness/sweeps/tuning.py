"""Equal tuning: the same number of trials for every method, on validation loss alone; then the best of each is tested.

The trials themselves are in `trials`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.progress import Progress
from harness.runner import Session
from harness.store import canonical_hash
from harness.sweeps.sweep import Scope, SweepOutcome, Workshop, run_sweep
from harness.sweeps.sweep_file import Entry, Sweep
from harness.sweeps.trials import Best, Trials, in_words
from harness.sweeps.tuning_file import Tuning

FEWEST_TUNED, FEWEST_REPORTED = 2, 2


@dataclass(frozen=True, slots=True)
class TuningOutcome:
    """`tuning_personas`: for tuning; `apart`: none of them is among the reported."""

    tuning: Tuning
    best: tuple[Best, ...]
    tuning_personas: tuple[str, ...]
    apart: bool
    sweep: SweepOutcome


def split_personas(session: Session, count: int | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(ids for tuning, ids that are reported): the same people whatever their order; all for both where count is 0.

    Raises HarnessError where too few are left for one of them.
    """
    people = [p.id for p in session.dataset.personas if p.id in session.scope and p.id not in session.held_out]
    if count == 0:
        return tuple(people), tuple(people)
    count = max(FEWEST_TUNED, round(len(people) / 4)) if count is None else count
    if count < FEWEST_TUNED or len(people) - count < FEWEST_REPORTED:
        raise HarnessError(
            f"{count} of {len(people)} personas cannot be kept apart for tuning: both parts need "
            f"{FEWEST_REPORTED} or more; choose another tuning_personas, or 0 to tune on those who are reported"
        )
    mixed = sorted(people, key=lambda name: hashlib.sha256(f"tuning {name}".encode()).hexdigest())
    chosen = set(mixed[:count])
    return tuple(p for p in people if p in chosen), tuple(p for p in people if p not in chosen)


def run_tuning(tuning: Tuning, files: Sequence[str | Path], progress: Progress) -> TuningOutcome:
    """All trials that are missing, then the runs of the best of each, compared jointly on the reported personas."""
    with contextlib.closing(
        Workshop(tuning.shared, files, progress, [one.entry for one in tuning.methods])
    ) as workshop:
        return _outcome(tuning, workshop, progress)


def _outcome(tuning: Tuning, workshop: Workshop, progress: Progress) -> TuningOutcome:
    session = workshop.session(tuning.seeds[0], Scope(tuning.shared.persona, tuning.shared.cluster))
    chosen, reported = split_personas(session, tuning.personas)
    apart = not set(chosen) & set(reported)
    with contextlib.closing(session.among(chosen)) as lab:
        best, found = _tuned(tuning, lab, progress)
    about = _provenance(tuning, best, session, chosen, apart)
    entries = [_entry(one, found, about.get(one.tuned.entry.label)) for one in best]
    workshop.take(entries)
    shared = replace(tuning.shared, persona=reported, cluster=None) if apart else tuning.shared
    sweep = Sweep(tuning.name, shared, entries[0], tuple(entries), tuning.seeds)
    return TuningOutcome(tuning, tuple(best), chosen, apart, run_sweep(sweep, workshop))


def _tuned(tuning: Tuning, lab: Session, progress: Progress) -> tuple[list[Best], dict[str, Any]]:
    """The best of each method, and the tuned options of methods by name: what others stand on.

    The lab, and the models that its fits stand on, go when this ends.
    """
    found: dict[str, Any] = {}
    best: list[Best] = []
    for place, one in enumerate(tuning.methods):
        progress.note(f"tune {place + 1} of {len(tuning.methods)}: {one.entry.label}")
        result = Trials(tuning, one, lab, found, progress).best()
        best.append(result)
        found.setdefault(one.entry.config.method, result.options)
    return best, found


def _entry(best: Best, found: Mapping[str, Any], about: Mapping[str, Any] | None) -> Entry:
    """The row that is tested: the best options, standing on the best of what it stands on."""
    entry = best.tuned.entry
    others = {**entry.config.required_options, **found}
    options = {"method_options": best.options, "required_options": others, "tuning": about}
    return Entry(entry.label, replace(entry.config, **options))


def _provenance(
    tuning: Tuning, best: Sequence[Best], session: Session, chosen: Sequence[str], apart: bool
) -> dict[str, dict[str, Any]]:
    """Label -> what the record says of the tuning; nothing for a method that had nothing to tune."""
    facts = {
        "trials": tuning.trials, "sampler": tuning.sampler, "pruner": tuning.pruner, "personas": list(chosen),
        "spaces": {one.tuned.entry.label: in_words(one.tuned.space) for one in best}, "seed": tuning.seeds[0],
        "hashes": session.hashes,
    }  # fmt: skip
    common = {
        "study": Path(tuning.name).stem, "id": canonical_hash(facts)[:16], "sampler": tuning.sampler,
        "pruner": tuning.pruner, "personas": len(chosen), "apart": apart,
    }  # fmt: skip
    return {
        one.tuned.entry.label: {
            **common,
            "trials": len(one.trials),
            "space": in_words(one.tuned.space),
            "loss": one.loss,
        }
        for one in best
        if one.tuned.space or one.tuned.entry is best[0].tuned.entry
    }
