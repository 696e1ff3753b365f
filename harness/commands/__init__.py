"""The commands, a file each family; importing this package enters them all into `app`. No torch at import time."""

from harness.commands import (  # noqa: F401 (they enter)
    backbone,
    bench,
    chat,
    compare,
    data,
    describe,
    export,
    importing,
    kit,
    run,
    runs,
    stored,
    tune,
)
from harness.commands.common import app, goes_on
from harness.commands.streams import streams

__all__ = ["app", "goes_on", "streams"]
