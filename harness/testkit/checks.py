"""The checks, in the order in which they run: each returns, or raises CheckFailed or CheckSkipped with the reason.

A failure blames one thing: where fit or predict does not work at all, one check says so and the others are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.config import load_config
from harness.contract import BACKBONE, in_words, option_types, read_value
from harness.errors import ConfigError, HarnessError
from harness.model import split_examples
from harness.study import check_adapters
from harness.testkit.lab import CheckFailed, CheckSkipped, EarlyStoppingOff, Lab, Trial, same_adapters
from harness.testkit.report import TOLERANCE
from harness.testkit.tiny_world import newcomer_prompts, reworded, with_other_references
from harness.testkit.watching import texts_in_reach, variations, watched

WRONG_OPTION = "no_such_option_of_any_method"


@dataclass(frozen=True)
class Check:
    """A check: what it is called, what it proves, and the function that runs it."""

    name: str
    proves: str
    run: Callable[[Lab], None]


CHECKS: list[Check] = []


def check(proves: str) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Decorator: enters the function into CHECKS under its own name."""

    def enter(function: Callable[[Lab], None]) -> Callable[[Lab], None]:
        CHECKS.append(Check(function.__name__, proves, function))
        return function

    return enter


@check("fit gives adapters for a small world")
def fits(lab: Lab) -> None:
    if isinstance(lab._main, Exception):
        raise lab._main


@check("predict answers every prompt with one text")
def one_reply_per_prompt(lab: Lab) -> None:
    _ = lab.main
    if isinstance(lab._replies, Exception):
        raise lab._replies


@check("fit and predict do not change the frozen backbone or the method's base adapters")
def backbone_unchanged(lab: Lab) -> None:
    if lab.main.changed:
        raise CheckFailed(
            f"fit changed {' and '.join(lab.main.changed)} (weights, mode, gradients or hooks); "
            "train adapters, or work on a copy"
        )
    _ = lab.replies
    if changed := lab.main.changes():
        raise CheckFailed(f"predict changed {' and '.join(changed)}; work on a copy, and undo what you switch on")


@check("its hooks leave the settings of the process as they were: random generators, dtype, threads, folder ...")
def process_unchanged(lab: Lab) -> None:
    _ = lab.replies
    if found := in_words(change for change in lab.disturbed() if change.what not in BACKBONE):
        raise CheckFailed(
            f"left changed: {', '.join(found)} (what can be put back was); draw from generators of your own, and "
            "undo what you set"
        )


@check("a second fit with the same seed gives the same result, whatever the state of the global random generators")
def same_seed(lab: Lab) -> None:
    replies, again = lab.replies, lab.trial(noise=1)
    everybody = [p.id for p in lab.dataset.personas]
    if difference := same_adapters(lab.main, again, everybody, 0.0):
        raise CheckFailed(f"{difference} between two fits with seed 0; draw every random number from study.seed")
    if place := _differs(replies, again.predict(lab.prompts)):
        raise CheckFailed(
            f"the reply to '{lab.prompts[place - 1].id}' differs between two fits with seed 0; "
            "draw every random number from study.seed"
        )


@check("a fit that is evaluated twice gets the same score, so the method gains nothing against itself")
def self_null(lab: Lab) -> None:
    first = lab.replies
    again = lab.main.predict(lab.prompts)
    if place := _differs(first, again):
        raise CheckFailed(
            f"the reply to '{lab.prompts[place - 1].id}' is another when asked a second time, so the method would beat "
            "or lose to itself; keep no state between calls of predict, and decode greedily"
        )
    nats = [lab.main.nll(lab.prompts, lab.references) for _ in range(2)]
    people = np.array([prompt.persona for prompt in lab.prompts])
    for persona in dict.fromkeys(people):
        gain = float((nats[1] - nats[0])[people == persona].sum())
        if gain != 0:
            raise CheckFailed(f"against itself the method gains {-gain:g} nats on '{persona}'; it must be 0")


@check("another seed gives other adapters where adapters are trained")
def another_seed(lab: Lab) -> None:
    first, other = lab.main, lab.trial(seed=1)
    if not _trained(first):
        if first.drew and lab.replies == other.predict(lab.prompts):
            raise CheckFailed(
                "fit uses or sets a global random generator, and seed 1 changes nothing; draw from study.seed"
            )
        raise CheckSkipped("nothing is trained, so there is nothing that a seed could change")
    everybody = [p.id for p in lab.dataset.personas]
    if same_adapters(first, other, everybody, 0.0) is None:
        raise CheckFailed(
            "seeds 0 and 1 give the same adapters: runs with several seeds would count one result several times; draw "
            "starting values and order from study.seed (adapters made without any training report 0 steps each)"
        )


@check("a reply depends neither on the order of the prompts nor on the other prompts in the call")
def prompt_order(lab: Lab) -> None:
    advice = "reply to each prompt from itself, and by its own persona"
    replies = lab.replies
    turned = lab.main.predict(lab.prompts[::-1])[::-1]
    if place := _differs(replies, turned):
        raise CheckFailed(f"asked in reverse, the reply to '{lab.prompts[place - 1].id}' is another; {advice}")
    alone = [lab.main.predict([prompt])[0] for prompt in lab.prompts]
    if place := _differs(replies, alone):
        raise CheckFailed(f"asked alone, the reply to '{lab.prompts[place - 1].id}' is another; {advice}")


@check("data of people outside the declared sharing do not touch a persona's adapter or replies")
def sharing_scope(lab: Lab) -> None:
    shares = lab.method.card.shares
    if shares == "all":
        raise CheckSkipped("the card shares everybody's data (shares='all')")
    _skip_if_diverged(lab.main)
    people = lab.dataset.personas
    scopes = {p.id: [q.id for q in people if q.cluster == p.cluster] if shares == "cluster" else [p.id] for p in people}
    _ = lab.replies
    for inside in sorted(set(map(tuple, scopes.values()))):
        others = [p.id for p in people if p.id not in inside]
        trial = lab.trial(reworded(lab.dataset, others))
        if seen := _difference(lab, lab.main, trial, inside):
            raise CheckFailed(
                f"{seen} when only the data of {_names(others)} change, although the card says shares='{shares}'; "
                "keep what is gathered for one apart from the next, or declare the sharing"
            )


@check("validation dialogues are used only as the card declares")
def validation_use(lab: Lab) -> None:
    declared = lab.method.card.validation
    if declared != "early_stopping":
        raise CheckSkipped(f"the card declares validation='{declared}', and every record says so")
    _ = lab.replies
    if lab.main.study.validation_read:
        raise CheckFailed(
            "it reads validation dialogues, and the card says they only stop adapters early; "
            "declare MethodCard(validation='selection') or 'training', or leave them alone"
        )
    _skip_if_diverged(lab.main)
    # Early stopping is switched off on both sides: whatever still differs was made from validation dialogues.
    everybody = [p.id for p in lab.dataset.personas]
    one = lab.trial(study_type=EarlyStoppingOff)
    other = lab.trial(reworded(lab.dataset, everybody, ["validation"]), study_type=EarlyStoppingOff)
    if seen := _difference(lab, one, other, everybody):
        raise CheckFailed(
            f"{seen} when only validation dialogues change, with early stopping off; "
            "declare MethodCard(validation='selection') or 'training', or learn from train dialogues only"
        )


@check("a persona that was never seen in fit gets a reply, too")
def unseen_persona(lab: Lab) -> None:
    _ = lab.replies
    prompts = newcomer_prompts(lab.dataset)
    lab.main.predict(prompts)
    lab.main.nll(prompts, ["a reply"] * len(prompts))


@check("the adapters that reply are those that were saved")
def save_and_load(lab: Lab) -> None:
    _ = lab.replies
    if lab.main.fitted.bank is None:
        raise CheckSkipped("the method has no adapters of its own")
    try:
        check_adapters(lab.method.name, lab.main.fitted, "fit and predict")
    except HarnessError as error:
        raise CheckFailed(str(error)) from None


@check("the test references cannot be reached and have no effect on replies")
def no_reference_reachable(lab: Lab) -> None:
    deepest = max(p.depth for p in lab.prompts)
    last = {lab.references[i] for i, p in enumerate(lab.prompts) if p.depth == deepest}
    trial = lab.main
    if found := last & texts_in_reach(trial.study, trial.fitted, lab.prompts):
        raise CheckFailed(f"a test reference can be reached from study, fitted or prompts ({sorted(found)[0]!r})")
    if any(reference in reply for reply in lab.replies for reference in last):
        raise CheckFailed("a reply holds its unguessable reference; reply from prompts, fitted and study only")
    other = split_examples(with_other_references(lab.dataset), "test")
    if _differs(lab.replies, trial.predict([example.prompt for example in other])):
        raise CheckFailed("replies change with the test references; reply from prompts, fitted and study only")


@check("an option that the method does not have is refused")
def unknown_option_refused(lab: Lab) -> None:
    options = lab.method.card.options
    try:
        load_config(
            options_of=lambda kind, name: options if kind == "method" else NoOptions,
            flags={"method": lab.method.name},
            sets=[f"{WRONG_OPTION}=1"],
        )
    except ConfigError as error:
        if WRONG_OPTION in str(error):
            return
        raise
    raise CheckFailed(f"--set {WRONG_OPTION}=1 was taken; options must be the fields of one dataclass")


@check("every option has a default of its own type, and is read")
def options_read(lab: Lab) -> None:
    kind = lab.method.card.options
    defaults = kind()
    types = option_types(kind)
    if not types:
        raise CheckSkipped("the method has no options")
    for name, hint in types.items():
        value = defaults
        for part in name.split("."):
            value = getattr(value, part)
        try:
            same = read_value(value, hint) == value
        except ValueError as error:
            raise CheckFailed(f"the default of option '{name}', {value!r}, is not of its type: it {error}") from None
        if not same:
            raise CheckFailed(f"the default of option '{name}', {value!r}, is not of its type; correct one of them")
    _ = lab.replies
    seen: set[str] = set()
    # Some options count only where another has a certain value: ask again with others before blaming any.
    for options in [defaults, *variations(defaults)]:
        try:
            lab.trial(options=watched(options, seen), store="main").predict(lab.prompts)
        except Exception:
            if options is defaults:
                raise
        if seen >= types.keys():
            return
    unread = [name for name in types if name not in seen]
    raise CheckFailed(
        f"option '{unread[0]}'{_more(unread)} is never read in fit or predict; use study.options, or drop the option"
    )


@dataclass(frozen=True)
class NoOptions:
    """In the place of a benchmark's options: the tiny world has none."""


# ---- what two trials differ in ----


def _trained(trial: Trial) -> bool:
    """Whether adapters were trained: by the report's steps where it lists adapters, else because there are any."""
    adapters = trial.fitted.report.get("adapters")
    if adapters:
        return any(state.get("steps") for state in adapters.values())
    return trial.fitted.bank is not None


def _skip_if_diverged(trial: Trial) -> None:
    states = [state.get("status") for state in trial.fitted.report.get("adapters", {}).values()]
    if states and all(state == "diverged" for state in states):
        raise CheckSkipped("every adapter diverges on the tiny world and keeps its start, so there is nothing to see")


def _difference(lab: Lab, one: Trial, other: Trial, personas: Sequence[str]) -> str | None:
    """What differs between two trials for some people, in a few words; None: nothing does."""
    if difference := same_adapters(one, other, personas, TOLERANCE):
        return difference
    places = lab.of(personas)
    prompts, references = [lab.prompts[i] for i in places], [lab.references[i] for i in places]
    gaps = np.abs(one.nll(prompts, references) - other.nll(prompts, references))
    if not (gaps <= TOLERANCE * 100).all():
        return f"the likelihood of a reply to '{prompts[int(gaps.argmax())].persona}' differs by {gaps.max():.1e} nats"
    if place := _differs(one.predict(prompts), other.predict(prompts)):
        return f"the reply to '{prompts[place - 1].id}' differs"
    return None


def _differs(one: Sequence[str], other: Sequence[str]) -> int:
    """The place, from 1, of the first reply that differs; 0 if none does."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True), 1) if a != b), 0)


def _names(personas: Sequence[str]) -> str:
    return f"'{personas[0]}'" + _more(personas)


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
