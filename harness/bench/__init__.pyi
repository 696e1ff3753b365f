# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from . import (
    decoding as decoding,
    measure as measure,
    memory as memory,
    prepare as prepare,
    profiling as profiling,
    report as report,
    scale as scale,
    serving as serving,
    training as training,
    ways as ways,
)
from .costing import dry_run as dry_run
from .ladder import rungs as rungs
