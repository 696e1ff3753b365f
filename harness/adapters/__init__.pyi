# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .bank import (
    Bank as Bank,
    BaseFacts as BaseFacts,
    Seeds as Seeds,
    master_dtype as master_dtype,
    rows_of as rows_of,
    runs_of as runs_of,
)
from .discrete_prompt import DiscretePromptBank as DiscretePromptBank
from .files import (
    SHARD as SHARD,
    load_bank as load_bank,
    open_adapter as open_adapter,
    save_bank as save_bank,
    saved_below as saved_below,
    unread_files as unread_files,
    write_peft as write_peft,
)
from .kinds import (
    AdapterSpec as AdapterSpec,
    create_bank as create_bank,
    is_core as is_core,
    key_seed as key_seed,
    kind_named as kind_named,
    kind_of as kind_of,
    kind_source as kind_source,
    list_adapters as list_adapters,
)
from .kv_prefix import (
    filled_cache as filled_cache,
    keys_and_values_only as keys_and_values_only,
    windows_of as windows_of,
)
from .lora import LoRABank as LoRABank, combine_loras as combine_loras, merged as merged
from .soft_prompt import PROMPT as PROMPT
from .steering_vector import block_number as block_number, on_states as on_states
