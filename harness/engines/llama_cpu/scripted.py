"""Functions that run without Python between their operations, so that threads do not wait for the interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

F = TypeVar("F", bound=Callable)


def scripted(function: F) -> F:
    """The function compiled by TorchScript, or as it is where this torch or this Python has none: the same bits.

    With two threads of small operations the interpreter lock cost 17 % of training time, which torch.compile would
    save only where a C++ compiler is at hand.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and there is no other way without a compiler
        try:
            return torch.jit.script(function)  # pyright: ignore[reportReturnType]
        except Exception:  # whatever a later torch raises for it, the plain function is as good
            return function
