# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .conformance import check_names as check_names, tiny_trial as tiny_trial
from .isolated import check_method as check_method
from .report import Result as Result
from .scaffold import new_method as new_method
from .tiny_world import (
    random_backbone as random_backbone,
    reworded as reworded,
    tiny_backbone as tiny_backbone,
    tiny_dataset as tiny_dataset,
)
