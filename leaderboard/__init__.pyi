# The face of this room: what the command line may import. `__init__.py` reads this list and imports on first use.
from .files import write_board as write_board
from .markdown import render as render
from .picking import EXAMPLES as EXAMPLES
from .records import publish_records as publish_records, published as published, read_runs as read_runs
from .result import Leaderboard as Leaderboard
from .rows import board_of as board_of
from .samples import publish_samples as publish_samples
from .tables import as_csv as as_csv, as_json as as_json, as_latex as as_latex, rows_as_json as rows_as_json
