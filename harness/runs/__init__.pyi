# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .importing import Source as Source, import_scores as import_scores, notes_on as notes_on
from .record import (
    cost_of as cost_of,
    flags_of as flags_of,
    opening as opening,
    plain as plain,
    score_lines as score_lines,
)
