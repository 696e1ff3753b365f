"""The trials of one method: made by Optuna, kept in a journal beside the runs.

After an interruption the same command goes on. A trial's suggestion follows from its number and the trials before
it, so an interrupted study ends as an undisturbed one does.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import Recipe
from harness.contract import Search, fill
from harness.errors import HarnessError
from harness.progress import Progress
from harness.store import canonical_hash, growing_damage, remove_growing, seal_growing, source_hash
from harness.training import FitStopped

if TYPE_CHECKING:  # neither decides on what is suggested, see `_file`
    from harness.runner import Session
    from harness.sweeps.tuning_file import Tuned, Tuning

STARTUP = 4  # trials that are drawn at random, and that are never pruned
EPOCHS_OF_A_FIT = 1_000  # a method's second fit reports its epochs from here on


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial. `loss`: nats a token on validation replies of the personas for tuning; None: pruned, or failed."""

    number: int
    options: Mapping[str, Any]
    loss: float | None
    state: str


@dataclass(frozen=True, slots=True)
class Best:
    """A method's trials and what is tested of it: its own defaults where there was nothing to tune."""

    tuned: Tuned
    trials: tuple[TrialResult, ...]
    options: Any
    loss: float | None
    grid: bool = False

    @property
    def default_loss(self) -> float | None:
        """Of the method's own defaults, which are the first trial but of a grid."""
        return self.trials[0].loss if self.trials and not self.grid else None


class Trials:
    """The trials of one method: stored in a journal, made up to the number that is asked for."""

    def __init__(
        self, tuning: Tuning, tuned: Tuned, lab: Session, found: Mapping[str, Any], progress: Progress
    ) -> None:
        self.tuning, self.tuned, self.lab, self.progress = tuning, tuned, lab, progress
        config = tuned.entry.config
        self.defaults = config.method_options
        self.recipe = Recipe(config.method, self.defaults, {**config.required_options, **found})

    def best(self) -> Best:
        if not self.tuned.space:
            return Best(self.tuned, (), self.defaults, None)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        study = self._study()
        with self.progress.task(f"tune {self.tuned.entry.label}", self.wanted, "trials") as advance:
            while (done := len(self._finished(study))) < self.wanted:
                advance.to(done, self.wanted, self._note(study))
                if self.tuning.sampler == "grid":
                    study.enqueue_trial(self._grid()[done])
                # A suggestion follows from the number of the trial and from those before it.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    study.sampler = self._sampler(done)
                study.optimize(self._objective, n_trials=1, catch=(HarnessError,))
                seal_growing(self._file())
            advance.to(done, self.wanted, self._note(study))
        trials = [self._result(number, trial) for number, trial in enumerate(self._finished(study))]
        known = [trial for trial in trials[: self.wanted] if trial.loss is not None]
        if not known:
            raise HarnessError(f"no trial of {self.tuned.entry.label} could be made; see {self._file()}")
        best = min(known, key=lambda trial: (trial.loss, trial.number))
        options = fill(self.defaults, dict(best.options))
        return Best(self.tuned, tuple(trials[: self.wanted]), options, best.loss, self.tuning.sampler == "grid")

    @property
    def wanted(self) -> int:
        """How many trials are made: of a grid no more than it has points."""
        return min(self.tuning.trials, len(self._grid())) if self.tuning.sampler == "grid" else self.tuning.trials

    def _grid(self) -> list[dict[str, Any]]:
        """All combinations of the values, in the order of the file; Search.choices is never empty here."""
        values = [self.tuned.space[name].choices for name in self.tuned.space]
        return [dict(zip(self.tuned.space, point, strict=True)) for point in itertools.product(*values)]

    def _study(self) -> Any:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        self._file().parent.mkdir(parents=True, exist_ok=True)
        if fault := growing_damage(self._file()):
            self.progress.warn(f"{fault}; its trials are made again")
            remove_growing(self._file())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(self._file())))
            pruner = (
                optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
                if self.tuning.pruner == "median"
                else optuna.pruners.NopPruner()
            )
            study = optuna.create_study(
                storage=storage, study_name="study", direction="minimize", load_if_exists=True, pruner=pruner
            )
        for trial in study.get_trials(deepcopy=False):
            if trial.state == optuna.trial.TrialState.RUNNING:  # its process is gone; the same is suggested again
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if not self._finished(study) and self.tuning.sampler != "grid":
            study.enqueue_trial({name: self._default(name) for name in self.tuned.space if self._in_space(name)})
        return study

    def _file(self) -> Path:
        """Where the trials lie; the name follows from all that decides on them but their number."""
        config = self.tuned.entry.config
        facts = {
            "methods": self.lab.identity(self.recipe),
            "space": in_words(self.tuned.space),
            "sampler": self.tuning.sampler,
            "pruner": self.tuning.pruner,
            "people": [p.id for p in self.lab.dataset.personas],
            "code": source_hash(__name__),
        }
        folder = self.tuning.shared.runs_dir / "tuning"
        return folder / f"{config.method}-{canonical_hash(facts)[:12]}.journal"

    def _sampler(self, number: int) -> Any:
        import optuna

        seed = int(canonical_hash([self.tuning.seeds[0], number])[:8], 16)
        if self.tuning.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True)

    def _finished(self, study: Any) -> list[Any]:
        """Trials that count: a failed one too, but not what an interruption left behind."""
        from optuna.trial import TrialState

        kept = (TrialState.COMPLETE, TrialState.PRUNED)
        return [t for t in study.get_trials(deepcopy=False) if t.state in kept or "error" in t.user_attrs]

    def _objective(self, trial: Any) -> float:
        import optuna

        options = fill(self.defaults, {name: self._suggest(trial, name) for name in self.tuned.space})
        fits = [0]  # the last epoch of each

        def watch(epoch: int, loss: float) -> None:
            if epoch <= fits[-1]:
                fits.append(0)
            fits[-1] = epoch
            if math.isfinite(loss):
                trial.report(loss, (len(fits) - 1) * EPOCHS_OF_A_FIT + epoch)
                if trial.should_prune():
                    raise FitStopped

        try:
            return self.lab.worker.trial(replace(self.recipe, options=options), watch)
        except FitStopped:
            raise optuna.TrialPruned from None
        except HarnessError as error:
            trial.set_user_attr("error", str(error))
            self.progress.note(f"trial {trial.number} of {self.tuned.entry.label} failed: {error}")
            raise

    def _suggest(self, trial: Any, name: str) -> Any:
        search = self.tuned.space[name]
        if search.choices:
            return trial.suggest_categorical(name, list(search.choices))
        if isinstance(self._default(name), int):
            return trial.suggest_int(name, int(search.low or 0), int(search.high or 0), log=search.log)
        return trial.suggest_float(name, search.low, search.high, log=search.log)

    def _default(self, name: str) -> Any:
        return functools.reduce(getattr, name.split("."), self.defaults)

    def _in_space(self, name: str) -> bool:
        search, value = self.tuned.space[name], self._default(name)
        if search.choices:
            return value in search.choices
        return search.low is not None and search.high is not None and search.low <= value <= search.high

    def _result(self, number: int, trial: Any) -> TrialResult:
        loss = trial.value if trial.state.name == "COMPLETE" else None
        return TrialResult(number, dict(trial.params), loss, trial.state.name.lower())

    def _note(self, study: Any) -> str:
        known = [t.value for t in self._finished(study) if t.value is not None and t.state.name == "COMPLETE"]
        return f"best {min(known):.4f} nats a token" if known else ""


def in_words(space: Mapping[str, Search]) -> dict[str, str]:
    return {name: _of(search) for name, search in space.items()}


def _of(search: Search) -> str:
    if search.choices:
        return " | ".join(map(str, search.choices))
    return f"{search.low:g} to {search.high:g}" + (" by factors" if search.log else "")
