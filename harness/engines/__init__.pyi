# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .batching import (
    Entry as Entry,
    Row as Row,
    Wave as Wave,
    collate as collate,
    epoch_order as epoch_order,
    out_of_sight as out_of_sight,
    rows_of_data as rows_of_data,
)
from .choice import engine_for as engine_for, engines_used as engines_used
from .decoding import BATCH_TOKENS as BATCH_TOKENS
from .fitted import (
    Adapters as Adapters,
    FitCost as FitCost,
    FitFacts as FitFacts,
    Fitted as Fitted,
    Grouping as Grouping,
    Replier as Replier,
)
from .head import rows_of_logits as rows_of_logits
from .llama_cpu.attention import BLOCK as BLOCK, LONGEST as LONGEST
from .parallel import THREAD_NAME as THREAD_NAME, Each as Each, side_by_side as side_by_side
from .parts import Answering as Answering, Part as Part, Question as Question, answers as answers
from .serve import (
    Asked as Asked,
    Predicted as Predicted,
    Transcript as Transcript,
    likelihood_of as likelihood_of,
    reply_nll as reply_nll,
    reply_states as reply_states,
)
