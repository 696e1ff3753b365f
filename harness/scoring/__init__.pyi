# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .evaluation import Evaluation as Evaluation
from .registry import (
    expand_metrics as expand_metrics,
    list_metrics as list_metrics,
    metric_named as metric_named,
    metric_sources as metric_sources,
)
from .similarity import WIDTH as WIDTH, Embedder as Embedder, locate_scorer as locate_scorer
from .sums import (
    EMPTY_SHARE_FLAGGED as EMPTY_SHARE_FLAGGED,
    MetricSums as MetricSums,
    PersonaSums as PersonaSums,
    overall as overall,
    scale as scale,
)
from .vectors import VectorStore as VectorStore, vectors_damage as vectors_damage
