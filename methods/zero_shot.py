"""The bare backbone: the yardstick below which nothing should fall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import MethodCard, Prompt, hookimpl

if TYPE_CHECKING:
    from harness import Fitted, Study


@dataclass(frozen=True)
class Options:
    """Nothing to set."""


@hookimpl
def card() -> MethodCard:
    return MethodCard("the frozen backbone as it is, nothing trained", Options, shares="all")


@hookimpl
def fit(study: Study) -> Fitted:
    return study.bare()


@hookimpl
def predict(study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    return study.generate(fitted, prompts)
