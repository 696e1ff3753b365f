"""The bare backbone: the yardstick below which nothing should fall."""

from dataclasses import dataclass

from harness import MethodCard, hookimpl


@dataclass(frozen=True)
class Options:
    """Nothing to set."""


@hookimpl
def card():
    return MethodCard("the frozen backbone as it is, nothing trained", Options, shares="all")


@hookimpl
def fit(study):
    return study.bare()
