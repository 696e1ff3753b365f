"""The commands, a file each family; importing this package enters them all into `app`. No torch at import time."""

from harness.commands import backbone, bench, compare, data, describe, export, importing, kit, run, runs, stored, tune  # noqa: F401 (they enter)
from harness.commands.common import app
from harness.commands.streams import streams

__all__ = ["app", "streams"]
