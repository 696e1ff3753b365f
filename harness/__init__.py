"""What a plugin author imports: `from harness import MethodCard, hookimpl`.

Nothing here pulls in torch until one of the lazy names is touched. Public besides these names are the modules
`harness.records`, `harness.errors`, `harness.prompts` and `harness.metrics`, and for tests `harness.testing` and
`harness.conformance`; the rest may change without notice.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, DataError, HarnessError, PluginError, StoreError, did_you_mean
from harness.hooks import hookimpl
from harness.records import (
    SPLITS,
    BenchmarkCard,
    Ceiling,
    Dataset,
    Device,
    Dialogue,
    Example,
    Message,
    MethodCard,
    Parameter,
    Persona,
    Prompt,
    Protocol,
    ReferenceScore,
    Role,
    Split,
)
from harness.specs import Clusters, Coefficients, FromVector, GatedPrefix, Levels, LoRA, SoftPrompt, TrainOptions

if TYPE_CHECKING:
    from harness.fitted import Fitted
    from harness.study import Study

__version__ = "0.1.0"

# Names whose modules import torch (seconds): resolved on first use by __getattr__ below.
_LAZY = {
    "Fitted": "harness.fitted",
    "Study": "harness.study",
}

__all__ = [
    "SPLITS",
    "BenchmarkCard",
    "Ceiling",
    "Clusters",
    "Coefficients",
    "ConfigError",
    "DataError",
    "Dataset",
    "Device",
    "Dialogue",
    "Example",
    "Fitted",
    "FromVector",
    "GatedPrefix",
    "HarnessError",
    "Levels",
    "LoRA",
    "Message",
    "MethodCard",
    "Parameter",
    "Persona",
    "PluginError",
    "Prompt",
    "Protocol",
    "ReferenceScore",
    "Role",
    "SoftPrompt",
    "Split",
    "StoreError",
    "Study",
    "TrainOptions",
    "did_you_mean",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'harness' has no attribute {name!r}; {did_you_mean(name, __all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
