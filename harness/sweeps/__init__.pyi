# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from . import plan_text as plan_text, sweep_text as sweep_text, tuning_text as tuning_text
from .plan import plan_orders as plan_orders, run_plan as run_plan
from .plan_file import load_plan as load_plan
from .sweep import Workshop as Workshop, orders as orders, run_sweep as run_sweep
from .sweep_file import Reader as Reader, load_sweep as load_sweep, open_reader as open_reader
from .tuning import run_tuning as run_tuning
from .tuning_file import load_tuning as load_tuning, parts_of as parts_of
