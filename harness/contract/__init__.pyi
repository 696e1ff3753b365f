# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .calling import (
    CHECK_SECONDS as CHECK_SECONDS,
    Change as Change,
    calling as calling,
    changes as changes,
    count_changes as count_changes,
    in_words as in_words,
    keep_too as keep_too,
    keeping as keeping,
    time_limit as time_limit,
    undisturbed as undisturbed,
)
from .data import (
    SPLITS as SPLITS,
    BenchmarkCard as BenchmarkCard,
    Ceiling as Ceiling,
    Dataset as Dataset,
    Dialogue as Dialogue,
    Example as Example,
    Message as Message,
    MethodCard as MethodCard,
    Persona as Persona,
    Prompt as Prompt,
    Protocol as Protocol,
    ReferenceScore as ReferenceScore,
    Role as Role,
    Split as Split,
    ValidationUse as ValidationUse,
    Yardstick as Yardstick,
)
from .extensions import (
    extensions_of as extensions_of,
    list_extensions as list_extensions,
    of_the_core as of_the_core,
)
from .files import (
    MOST_NESTED as MOST_NESTED,
    check_file as check_file,
    is_text as is_text,
    levels as levels,
    read_file as read_file,
    read_json_text as read_json_text,
    user_path as user_path,
)
from .hooks import (
    BenchmarkHooks as BenchmarkHooks,
    MethodHooks as MethodHooks,
    hook_arguments as hook_arguments,
    hookimpl as hookimpl,
)
from .metric import (
    CORE_METRICS as CORE_METRICS,
    SCORER as SCORER,
    Columns as Columns,
    Likelihood as Likelihood,
    Metric as Metric,
    MetricBatch as MetricBatch,
    TextEmbedder as TextEmbedder,
    Unit as Unit,
)
from .options import (
    Plain as Plain,
    fill as fill,
    option_types as option_types,
    option_values as option_values,
    plain as plain,
    read_value as read_value,
    resolve as resolve,
    search_space as search_space,
)
from .plugin_import import Listing as Listing, Source as Source, points_of as points_of
from .plugins import (
    Benchmark as Benchmark,
    Method as Method,
    list_plugins as list_plugins,
    load_benchmark as load_benchmark,
    load_extensions as load_extensions,
    load_method as load_method,
    load_plugin as load_plugin,
    load_with_required as load_with_required,
    read_loose as read_loose,
)
from .process_state import (
    BACKBONE as BACKBONE,
    RANDOM as RANDOM,
    threads_left as threads_left,
)
from .specs import (
    ALL_LINEAR as ALL_LINEAR,
    DEFAULT_TARGETS as DEFAULT_TARGETS,
    AdapterKind as AdapterKind,
    Clusters as Clusters,
    Coefficients as Coefficients,
    FromVector as FromVector,
    GatedPrefix as GatedPrefix,
    Levels as Levels,
    LoRA as LoRA,
    Schedule as Schedule,
    Search as Search,
    SoftPrompt as SoftPrompt,
    SteeringVector as SteeringVector,
    Subspace as Subspace,
    TrainOptions as TrainOptions,
    specs_by_name as specs_by_name,
)
