# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .backbone import (
    DTYPES as DTYPES,
    Backbone as Backbone,
    exact_norms as exact_norms,
    fingerprint as fingerprint,
    freeze as freeze,
    load_backbone as load_backbone,
    random_config as random_config,
    random_model as random_model,
)
from .gguf import without_progress_bars as without_progress_bars
from .prompts import (
    Encoded as Encoded,
    dialogue_examples as dialogue_examples,
    dialogue_messages as dialogue_messages,
    encode_dialogue as encode_dialogue,
    encode_prompt as encode_prompt,
    encode_reply as encode_reply,
    end_of_turn_id as end_of_turn_id,
    example_set_hash as example_set_hash,
    people_hash as people_hash,
    protocol_hash as protocol_hash,
    reply_ends as reply_ends,
    split_examples as split_examples,
    split_hash as split_hash,
    template_text as template_text,
    with_system_text as with_system_text,
)
from .repeatable import keep_memory as keep_memory, set_repeatable as set_repeatable
from .sources import (
    EMBEDDED_FOLDER as EMBEDDED_FOLDER,
    RANDOM as RANDOM,
    cache_folder as cache_folder,
    catalogue as catalogue,
    embedded_names as embedded_names,
    fetch as fetch,
)
