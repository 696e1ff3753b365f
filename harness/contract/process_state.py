"""What a plugin's hook may leave changed in the process: noted before the hook, compared with and put back after it.

Who is called, and what becomes of its errors, is `calling`. torch and numpy are looked at where they are loaded; none
of them is imported here.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

# Names that are shown. Those that a method can reach only through the backbone say so.
THREADS = "threads left running"
HOOKS, MODE, GRADIENTS = "hooks on the backbone", "mode of the backbone", "gradients of the backbone"
RANDOM = "random numbers of "
BACKBONE = (HOOKS, MODE, GRADIENTS)

_SMALLEST = 5e-324  # flushed to 0 by a processor that is told so


@dataclass(frozen=True, slots=True)
class _Setting:
    """One piece of state. module: only where it is loaded; imports: an import may change it, as many packages do."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]
    module: str = "sys"
    imports: bool = False


def _torch() -> Any:
    return sys.modules["torch"]


def _numpy() -> Any:
    return sys.modules["numpy"]


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 (pathlib has no way back)
    except OSError:  # it was removed
        return None


def _to_folder(path: str | None) -> None:
    if path is not None:
        with suppress(OSError):
            os.chdir(path)


def _put_environment(saved: Mapping[str, str]) -> None:
    for name in os.environ.keys() - saved.keys():
        del os.environ[name]
    os.environ.update(saved)


def _put_filters(saved: Sequence[Any]) -> None:
    warnings.resetwarnings()  # tells the module that its filters are others
    warnings.filters[:] = saved  # pyright: ignore[reportIndexIssue]


def _put_import_path(saved: Sequence[str]) -> None:
    sys.path[:] = saved


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _put_handlers(saved: Mapping[int, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in saved.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _numpy_random() -> tuple[Any, ...]:
    kind, keys, *rest = _numpy().random.get_state()
    return kind, keys.tobytes(), *rest


def _put_numpy_random(saved: tuple[Any, ...]) -> None:
    kind, keys, *rest = saved
    _numpy().random.set_state((kind, _numpy().frombuffer(keys, dtype="uint32"), *rest))


def _cuda() -> Any:
    """torch.cuda where it is in use: asking would start it."""
    return _torch().cuda if _torch().cuda.is_initialized() else None


def _torch_random() -> list[bytes]:
    states = [_torch().get_rng_state(), *(_cuda().get_rng_state_all() if _cuda() else [])]
    return [bytes(state.numpy()) for state in states]


def _put_torch_random(saved: Sequence[bytes]) -> None:
    torch = _torch()
    first, *others = (torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in saved)
    torch.set_rng_state(first)
    if _cuda() and others:
        _cuda().set_rng_state_all(others)


def _determinism() -> tuple[bool, ...]:
    torch = _torch()
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


def _put_determinism(saved: tuple[bool, ...]) -> None:
    torch = _torch()
    torch.use_deterministic_algorithms(saved[0], warn_only=saved[1])
    torch.utils.deterministic.fill_uninitialized_memory = saved[2]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = saved[3:]


def _global_hooks() -> dict[str, dict[Any, Any]]:
    """Hooks that torch calls in every module."""
    found = vars(sys.modules["torch.nn.modules.module"])
    return {
        name: dict(value) for name, value in found.items() if name.startswith("_global_") and isinstance(value, dict)
    }


def _put_global_hooks(saved: Mapping[str, dict[Any, Any]]) -> None:
    for name, value in saved.items():
        hooks = vars(sys.modules["torch.nn.modules.module"])[name]
        hooks.clear()
        hooks.update(value)


_SETTINGS = (
    _Setting("current folder", _folder, _to_folder),
    _Setting("environment", lambda: dict(os.environ), _put_environment, imports=True),
    _Setting("warning filters", lambda: list(warnings.filters), _put_filters, imports=True),
    _Setting("import path", lambda: list(sys.path), _put_import_path, imports=True),
    _Setting("signal handlers", _handlers, _put_handlers, imports=True),
    _Setting("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    _Setting("denormal numbers", lambda: _SMALLEST * 1.0 != 0, lambda kept: _torch().set_flush_denormal(not kept)),
    _Setting(RANDOM + "Python", random.getstate, random.setstate),
    _Setting(RANDOM + "numpy", _numpy_random, _put_numpy_random, "numpy.random"),
    _Setting("numpy errors", lambda: _numpy().geterr(), lambda kept: _numpy().seterr(**kept), "numpy"),
    _Setting(RANDOM + "torch", _torch_random, _put_torch_random, "torch"),
    _Setting("threads of torch", lambda: _torch().get_num_threads(), lambda n: _torch().set_num_threads(n), "torch"),
    _Setting(
        "default dtype", lambda: _torch().get_default_dtype(), lambda kept: _torch().set_default_dtype(kept), "torch"
    ),
    _Setting(
        "default device",
        lambda: str(_torch().get_default_device()),
        lambda kept: _torch().set_default_device(None if kept == "cpu" else kept),
        "torch",
    ),
    _Setting("deterministic algorithms", _determinism, _put_determinism, "torch"),
    _Setting(
        "precision of products",
        lambda: _torch().get_float32_matmul_precision(),
        lambda kept: _torch().set_float32_matmul_precision(kept),
        "torch",
    ),
    _Setting(
        "gradient mode", lambda: _torch().is_grad_enabled(), lambda kept: _torch().set_grad_enabled(kept), "torch"
    ),
    _Setting("hooks on all modules", _global_hooks, _put_global_hooks, "torch"),
)


def _taken() -> dict[str, Any]:
    """Setting -> its value now."""
    # A module is entered before it is executed: what it holds is there once it has a version.
    loaded = {name for name in ("sys", "numpy", "numpy.random", "torch") if _is_loaded(name)}
    return {setting.name: setting.get() for setting in _SETTINGS if setting.module in loaded}


def _is_loaded(name: str) -> bool:
    module, home = sys.modules.get(name), sys.modules.get(name.partition(".")[0])
    return module is not None and not getattr(getattr(home, "__spec__", None), "_initializing", False)


def _put(wanted: Mapping[str, Any]) -> list[str]:
    """Put these values where others are now; the names of those that differed."""
    now = _taken()
    differ = [one for one in _SETTINGS if one.name in wanted and one.name in now and wanted[one.name] != now[one.name]]
    for setting in differ:
        setting.put(wanted[setting.name])
    return [setting.name for setting in differ]


class _Model:
    """Hooks, mode and gradients of a torch model."""

    def __init__(self, model: Any) -> None:
        self.modules = [(module, module.training, _hooks(module)) for module in model.modules()]
        self.parameters = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    def put_back(self) -> Iterator[str]:
        """The names of what was changed."""
        for module, training, hooks in self.modules:
            if module.training != training:
                module.training = training
                yield MODE
            if _hooks(module) != hooks:
                vars(module).pop("forward", None)
                for name, value in hooks.items():
                    if isinstance(value, dict):
                        vars(module)[name].clear()
                        vars(module)[name].update(value)
                    else:
                        vars(module)[name] = value
                yield HOOKS
        for parameter, wanted in self.parameters:
            if parameter.requires_grad != wanted:
                parameter.requires_grad_(wanted)
                yield GRADIENTS


def _hooks(module: Any) -> dict[str, Any]:
    """All that is called beside a module's own forward, and what stands in its place."""
    own = vars(module)
    found: dict[str, Any] = {
        name: dict(value) for name, value in own.items() if "_hooks" in name and isinstance(value, dict)
    }
    return found | ({"forward": own["forward"]} if "forward" in own else {})


@dataclass(frozen=True, slots=True)
class Before:
    """The state before a hook.

    importing  the hook is an import: what imports may change for later stays changed
    """

    settings: Mapping[str, Any]
    models: list[_Model]
    modules: set[str]
    threads: frozenset[threading.Thread]
    importing: bool

    @classmethod
    def of(cls, models: Sequence[Any] = (), *, importing: bool = False) -> Before:
        """The state now, with that of some torch models."""
        threads = frozenset(threading.enumerate())
        return cls(_taken(), [_Model(model) for model in models], set(sys.modules), threads, importing)

    def add(self, model: Any) -> None:
        """A model that was made inside the hook: it must stay as it is now."""
        self.models.append(_Model(model))

    def put_back(self) -> list[str]:
        """Undo what was changed since; the names of what is worth telling, each once.

        A package that is loaded may set warning filters and the like: then these are put back in silence.
        """
        loose = {setting.name for setting in _SETTINGS if setting.imports}
        wanted = {name: value for name, value in self.settings.items() if not (self.importing and name in loose)}
        if "default dtype" not in self.settings and _is_loaded("torch"):  # what it begins with
            wanted |= {"default dtype": _torch().float32, "gradient mode": True}
        changed = _put(wanted)
        if not self.modules >= sys.modules.keys():
            changed = [name for name in changed if name not in loose]
        changed += [name for model in self.models for name in model.put_back()]
        if running := [thread for thread in threading.enumerate() if thread not in self.threads and _lasts(thread)]:
            _left.extend(running)
            changed.append(THREADS)
        return list(dict.fromkeys(changed))


def _lasts(thread: threading.Thread) -> bool:
    """Whether the interpreter would wait for a thread before it ends."""
    return thread.is_alive() and not thread.daemon


_left: list[threading.Thread] = []


def threads_left(seconds: float) -> bool:
    """Whether threads that hooks have left behind still run after so many seconds."""
    for thread in _left:
        thread.join(seconds / len(_left))
    return any(map(_lasts, _left))


@contextmanager
def put_for_a_while(settings: Mapping[str, Any]) -> Iterator[None]:
    """These settings inside, and those of now again behind."""
    own = _taken()
    _put(settings)
    try:
        yield
    finally:
        _put(own)
