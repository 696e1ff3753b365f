# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .base_rate import against_base_rates as against_base_rates
from .guard import (
    ESTIMAND as ESTIMAND,
    Family as Family,
    NotComparableError as NotComparableError,
    comparison_rows as comparison_rows,
    differences as differences,
    families as families,
    persona_scores as persona_scores,
    world_key as world_key,
)
from .joint_tables import Joint as Joint, as_json as as_json, joint as joint
from .naming import short_names as short_names
from .planning import Plan as Plan, Spread as Spread, plan as plan, spread_of as spread_of
from .run_view import (
    Diff as Diff,
    Sample as Sample,
    View as View,
    diff as diff,
    evenly as evenly,
    samples as samples,
    view as view,
    view_if_any as view_if_any,
)
from .tracked import tracked as tracked
