"""Functions that run without Python between their operations, so that threads do not wait for the interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

F = TypeVar("F", bound=Callable)

_PLAIN: dict[str, str] = {}  # function -> why it runs as plain Python: the same results to the bit, and slower


def scripted(function: F) -> F:
    """The function compiled by TorchScript where this torch and this Python have it, else the function as it is.

    TorchScript is deprecated, and no right result needs it. Without it a training step takes 5 % longer on two
    threads, which wait for the interpreter lock; torch.compile would need a C++ compiler (docs/performance.md).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return torch.jit.script(function)  # pyright: ignore[reportReturnType]
        except (AttributeError, RuntimeError, TypeError, ValueError, OSError) as fault:
            _PLAIN[function.__name__] = f"{type(fault).__name__}: {fault}"
            return function


def slowed() -> str:
    """What a run says where functions could not be compiled; "" where all were."""
    if not _PLAIN:
        return ""
    name, why = next(iter(_PLAIN.items()))
    return f"{len(_PLAIN)} functions run without TorchScript, which is slower: {name}: {why}"
