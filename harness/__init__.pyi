# What a plugin author imports, and the commands as functions; `__init__.py` reads this list and imports on first use.
from .commands.python import (
    compare as compare,
    leaderboard as leaderboard,
    load_run as load_run,
    run as run,
)
from .contract import (
    SPLITS as SPLITS,
    AdapterKind as AdapterKind,
    BenchmarkCard as BenchmarkCard,
    Ceiling as Ceiling,
    Clusters as Clusters,
    Coefficients as Coefficients,
    Dataset as Dataset,
    Dialogue as Dialogue,
    Example as Example,
    FromVector as FromVector,
    GatedPrefix as GatedPrefix,
    Levels as Levels,
    Likelihood as Likelihood,
    LoRA as LoRA,
    Message as Message,
    MethodCard as MethodCard,
    Metric as Metric,
    MetricBatch as MetricBatch,
    Persona as Persona,
    Prompt as Prompt,
    Protocol as Protocol,
    ReferenceScore as ReferenceScore,
    Role as Role,
    Search as Search,
    SoftPrompt as SoftPrompt,
    Split as Split,
    SteeringVector as SteeringVector,
    Subspace as Subspace,
    TrainOptions as TrainOptions,
    Yardstick as Yardstick,
    hookimpl as hookimpl,
)
from .engines import Fitted as Fitted
from .errors import (
    ConfigError as ConfigError,
    DataError as DataError,
    HarnessError as HarnessError,
    PluginError as PluginError,
    StoreError as StoreError,
    did_you_mean as did_you_mean,
)
from .study import Study as Study

__version__: str
