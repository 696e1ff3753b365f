"""Trials of one method on the tiny world: each a fit on a fresh backbone in a store of its own, and its replies.

What is concluded from them is in `checks`. A trial goes through the runner's own doors (`harness.study`).
"""

from __future__ import annotations

import contextlib
import functools
import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.contract import BACKBONE, RANDOM, Change, Dataset, Method, Prompt, changes, count_changes
from harness.engines import Fitted, Transcript, reply_nll
from harness.errors import PluginError
from harness.model import Backbone, fingerprint, split_examples
from harness.progress import Progress
from harness.store import Store
from harness.study import Study, fit_method, make_study, predict_in_order
from harness.testkit.tiny_world import reworded, tiny_backbone, tiny_dataset
from harness.training import Fitter


class CheckFailed(Exception):  # noqa: N818 (an outcome, not an error)
    """The method does not keep the contract; the text says what was seen and how to mend it."""


class CheckSkipped(Exception):  # noqa: N818
    """The check does not apply to this method, or what it needs has failed already."""


class _LastEpochs(Fitter):
    def encoded(self, backbone: Any, grouping: Any, split: Any) -> Any:
        made = super().encoded(backbone, grouping, split)
        return [[] for _ in made] if split == "validation" else made


class EarlyStoppingOff(Study):
    """A study in which fitting keeps every adapter's last epoch: validation dialogues decide on nothing by themselves.

    Whatever still changes with them was made from them.
    """

    _fitter_type = _LastEpochs


@dataclass
class Trial:
    """One fit of the method, and what can be asked of it.

    frozen   (label, backbone, its state before the fit) of every backbone that the method could have changed
    changed  what was changed of these, found right after the fit
    drew     whether the fit used or set a global random generator
    before   how many changes of the process there were before the fit, see `disturbed`
    step     called before hooks are
    """

    method: Method
    study: Study
    fitted: Fitted
    frozen: list[tuple[str, Backbone, Any]]
    changed: list[str]
    drew: bool
    before: int
    step: Callable[[], None]

    def predict(self, prompts: Sequence[Prompt]) -> list[str]:
        self.step()
        return predict_in_order(self.method, self.study, self.fitted, prompts).replies

    def nll(self, prompts: Sequence[Prompt], references: Sequence[str]) -> np.ndarray:
        """Summed nats [n] of each reference after its prompt: finer than replies, it sees any change of numbers."""
        self.step()
        asked = Transcript(self.study.protocol, self.study.progress).ask(self.fitted, prompts)
        return np.array([one.whole[0] for one in reply_nll(asked, references, self.study.progress)])

    def adapter(self, persona: str) -> dict[str, Tensor]:
        """The tensors of the adapter that serves a persona; empty where none does."""
        adapters, row, _ = self.fitted.who(persona)
        bank = adapters.bank
        return {} if bank is None or row < 0 else {name: values[row].detach() for name, values in bank.tensors.items()}

    def changes(self) -> list[str]:
        """What has been changed in the frozen backbones up to now."""
        found = [label for label, backbone, before in self.frozen if _state(backbone) != before]
        return found + [change.what for change in self.disturbed() if change.what in BACKBONE]

    def disturbed(self) -> list[Change]:
        """What the method's hooks have left changed up to now, and what was put back."""
        return changes(self.before, {self.method.source.file})


def fit_required(
    methods: Mapping[str, Method],
    method: Method,
    options: Any,
    study_of: Callable[[Method, Any, Mapping[str, Fitted]], Study],
    known: dict[str, Fitted] | None = None,
) -> dict[str, Fitted]:
    """Fit what a method requires with these options, deepest first, each with its own defaults; by name.

    methods   all that are required, by name (`harness.contract.load_with_required`)
    study_of  (method, its options, what it requires by name) -> its study
    known     what has been fitted so far, by name; grows
    """
    known = {} if known is None else known
    for name in method.requires(options):
        if name not in known:
            base, given = methods[name], methods[name].card.options()
            known[name] = fit_method(base, study_of(base, given, fit_required(methods, base, given, study_of, known)))
    return {name: known[name] for name in method.requires(options)}


class Lab:
    """A method with the tiny world; trials that several checks want are made once."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        name: str,
        folder: Path,
        before: int | None = None,
        step: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is fitted yet.

        before  how many changes of the process there were when the plugin was not loaded yet; None: as of now
        step    called before every call of a hook
        """
        self.step = step
        self.before = count_changes() if before is None else before
        self.methods, self.method, self.folder = methods, methods[name], folder
        self.dataset = tiny_dataset()
        self.progress = Progress("silent")
        self.trials = 0
        self.examples = split_examples(self.dataset, "test")  # in memory while replies are made, as in a run
        self.prompts = [example.prompt for example in self.examples]
        self.references = [example.reference for example in self.examples]

    def trial(
        self,
        dataset: Dataset | None = None,
        *,
        seed: int = 0,
        options: Any = None,
        noise: int = 0,
        study_type: type[Study] = Study,
        store: str = "",
    ) -> Trial:
        """Fit the method. What it stands on is fitted on the unchanged world, so that only its own part can differ.

        dataset     another world (default: the tiny one)
        noise       how the global random generators stand when the fit begins
        store       name of a store to share with other trials; default: one of its own, nothing is found in it
        """
        self.trials += 1
        backbone = tiny_backbone()
        frozen = [("the backbone", backbone)]
        options = self.method.card.options() if options is None else options
        required = fit_required(
            self.methods,
            self.method,
            options,
            lambda base, given, below: self._study(base, None, backbone, seed, below, given, Study, f"base {seed}"),
        )
        frozen += [(f"the base of '{n}'", fitted.backbone) for n, fitted in required.items() if fitted.bank is None]
        frozen += [(f"the base of '{n}'", f.base()) for n, f in required.items() if _mergeable(f)]
        before = [(label, kept, _state(kept)) for label, kept in frozen]
        study = self._study(self.method, dataset, backbone, seed, required, options, study_type, store)
        earlier = count_changes()
        with _global_randomness(noise):
            fitted = fit_method(self.method, study)
        trial = Trial(self.method, study, fitted, before, [], False, earlier, self.step)
        trial.changed = trial.changes()
        trial.drew = any(change.what.startswith(RANDOM) for change in trial.disturbed())
        return trial

    @functools.cached_property
    def _main(self) -> Trial | Exception:
        try:
            return self.trial(store="main")
        except Exception as error:
            return error

    @functools.cached_property
    def _replies(self) -> list[str] | Exception:
        try:
            with _global_randomness(0):
                return self.main.predict(self.prompts)
        except Exception as error:
            return error

    @property
    def main(self) -> Trial:
        """The first trial. Raises CheckSkipped if the method could not be fitted (that is the check `fits`)."""
        if isinstance(self._main, Exception):
            raise CheckSkipped("fit fails, see 'fits'") from self._main
        return self._main

    @property
    def replies(self) -> list[str]:
        """The first trial's replies. Raises CheckSkipped if there are none (that is `one_reply_per_prompt`)."""
        _ = self.main
        if isinstance(self._replies, Exception):
            raise CheckSkipped("predict fails, see 'one_reply_per_prompt'") from self._replies
        return self._replies

    @property
    def works(self) -> bool:
        """Whether the method is known to fit and to reply."""
        return isinstance(vars(self).get("_replies"), list)

    def elsewhere(self) -> tuple[list[str], dict[str, np.ndarray]]:
        """Replies, and the numbers behind them, in a world and with a seed that no other trial has.

        Adapters are by persona and name. They follow from the plugin's code alone, so that another process that does
        the same gives the same.
        """
        trial = self.trial(reworded(self.dataset, [p.id for p in self.dataset.personas], salt="third"), seed=2)
        with _global_randomness(0):
            replies = trial.predict(self.prompts)
        numbers = {"the likelihood of replies": trial.nll(self.prompts, self.references)}
        for persona in self.dataset.personas:
            for name, values in trial.adapter(persona.id).items():
                numbers[f"the adapter of '{persona.id}' ({name})"] = values.double().cpu().numpy()
        return replies, numbers

    def disturbed(self) -> list[Change]:
        """What the method's plugin has left changed in the process up to now."""
        return changes(self.before, {self.method.source.file})

    @functools.cached_property
    def nll(self) -> np.ndarray:
        return self.main.nll(self.prompts, self.references)

    def of(self, personas: Sequence[str]) -> list[int]:
        """Places of the prompts that belong to these people."""
        return [i for i, prompt in enumerate(self.prompts) if prompt.persona in personas]

    def _study(
        self,
        method: Method,
        dataset: Dataset | None,
        backbone: Backbone,
        seed: int,
        required: Mapping[str, Fitted],
        options: Any,
        study_type: type[Study],
        store: str,
    ) -> Study:
        self.step()
        world = dataset or self.dataset
        return make_study(
            method, world, {p.id for p in world.personas}, backbone=backbone, options=options, seed=seed,
            required=required, store=Store(self.folder / (store or f"trial {self.trials}")), progress=self.progress,
            study_type=study_type,
        )  # fmt: skip


def same_adapters(one: Trial, other: Trial, personas: Sequence[str], tolerance: float) -> str | None:
    """None if these people have equal adapters in both trials, else a few words on the first who has not."""
    for persona in personas:
        a, b = one.adapter(persona), other.adapter(persona)
        if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
            return f"the adapter of '{persona}' has other parts"
        for name in a:
            gap = float((a[name] - b[name]).abs().max())
            if not gap <= tolerance * max(1.0, float(a[name].abs().max())):
                return f"the adapter of '{persona}' differs by up to {gap:.1e}"
    return None


def message(error: BaseException, method: Method) -> str:
    """An exception in one line, with the last line of the plugin's own file that it came through."""
    if isinstance(error, PluginError):
        return " ".join(str(error).split())  # it names the line
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == method.source.file]
    where = f"line {frames[-1].lineno} of {Path(method.source.file).name}: " if frames else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())}"


def _mergeable(fitted: Fitted) -> bool:
    from harness.adapters import LoRABank

    return isinstance(fitted.bank, LoRABank) and len(fitted.bank) == 1


def _state(backbone: Backbone) -> str:
    """Weights, configuration, tokenizer. Whoever calls a hook watches over mode, gradients and hooks."""
    return fingerprint(backbone.model, backbone.tokenizer)


@contextlib.contextmanager
def _global_randomness(noise: int) -> Iterator[None]:
    """The three global generators at a known place, put back afterwards."""
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        torch.manual_seed(1000 + noise)
        random.seed(1000 + noise)
        np.random.seed(1000 + noise)
        yield
    finally:
        torch.set_rng_state(kept[0])
        random.setstate(kept[1])
        np.random.set_state(kept[2])
