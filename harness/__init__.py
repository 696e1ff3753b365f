"""What a plugin author imports: `from harness import MethodCard, hookimpl`. The names stand in `__init__.pyi`.

Each is imported on first use, so that torch is loaded only when it is needed. Public besides are the faces of the
rooms (`harness.<room>`), which may grow; files inside a room may change without notice.
"""

from typing import Any

import lazy_loader

from harness.errors import did_you_mean

__version__ = "0.1.0"

_import, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'harness' has no attribute {name!r}; {did_you_mean(name, __all__)}")
    return _import(name)
