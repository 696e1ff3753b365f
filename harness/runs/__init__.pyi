# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .chat import (
    Answer as Answer,
    Side as Side,
    Talk as Talk,
    find_beside as find_beside,
    open_sides as open_sides,
)
from .export import export_adapters as export_adapters
from .importing import Source as Source, import_scores as import_scores, notes_on as notes_on
from .learning import (
    Learning as Learning,
    learning_of as learning_of,
    write_learning as write_learning,
)
from .lines import lines_of as lines_of
from .making import (
    cost_of as cost_of,
    flags_of as flags_of,
    opening as opening,
)
from .record import (
    Base as Base,
    Ceiling as Ceiling,
    Cost as Cost,
    RunHead as RunHead,
    RunRecord as RunRecord,
    StillLearning as StillLearning,
    Unseen as Unseen,
    Yardstick as Yardstick,
)
from .replies import Replies as Replies, Reply as Reply, write_replies as write_replies
from .score_export import export_eval_results as export_eval_results, export_every_eval_ever as export_every_eval_ever
from .serving import write_served as write_served
from .stored import (
    StoredRun as StoredRun,
    all_runs as all_runs,
    find_run as find_run,
    listed as listed,
    published_run as published_run,
    read_record as read_record,
    read_run as read_run,
    run_names as run_names,
    write_run as write_run,
)
from .trackers import (
    TRACKERS as TRACKERS,
    Tracked as Tracked,
    Value as Value,
    chosen_trackers as chosen_trackers,
    send as send,
)
from .upkeep import (
    faults as faults,
    remove_all as remove_all,
    remove_runs as remove_runs,
    unused as unused,
)
