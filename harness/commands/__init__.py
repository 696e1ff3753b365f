"""The commands, a file each family; importing this package enters them all into `app`. No torch at import time."""

from __future__ import annotations

from harness.commands import (  # imported for the commands they enter
    backbone,
    bench,
    bench_speed,
    compare,
    data,
    importing,
    kit,
    power,
    run,
    stored,
    sweep,
)
from harness.commands.common import app

__all__ = [
    "app",
    "backbone",
    "bench",
    "bench_speed",
    "compare",
    "data",
    "importing",
    "kit",
    "power",
    "run",
    "stored",
    "sweep",
]
