"""What a plugin author imports, and the commands as functions. The names stand in `__init__.pyi`.

    from harness import MethodCard, hookimpl
    result = harness.run(method="my_method", personas=8)

Each is imported on first use, so that torch is loaded only when it is needed. Public besides are the faces of the
rooms (`harness.<room>`), which may grow; files inside a room may change without notice.
"""

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

import lazy_loader

from harness.errors import did_you_mean

__version__ = "0.1.0"

_import, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_BOTH = ("compare", "leaderboard")  # rooms that share their name with a function


def __getattr__(name: str) -> Any:
    if name in _BOTH:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'harness' has no attribute {name!r}; {did_you_mean(name, __all__)}")
    return _import(name)


class _CalledRoom(ModuleType):
    """A room whose name is a function's, too: calling it calls the function."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return _function(self)(*arguments, **named)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function(self))


def _function(room: ModuleType) -> Any:
    return getattr(importlib.import_module(f"{__name__}.commands.python"), room.__name__.rpartition(".")[2])


class _House(ModuleType):
    """This package. It makes these rooms callable when they are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _BOTH and isinstance(value, ModuleType) and not isinstance(value, _CalledRoom):
            # the loader of lazy names may have given the room a class of its own
            value.__class__ = type("CalledRoom", (_CalledRoom, type(value)), {})
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _House
