# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .disk import (
    Store as Store,
    canonical_hash as canonical_hash,
    copy_sealed as copy_sealed,
    dump_json as dump_json,
    holding as holding,
    read_json as read_json,
    size_bytes as size_bytes,
    write_atomically as write_atomically,
)
from .machine import (
    git_state as git_state,
    hardware as hardware,
    numerics as numerics,
    peak_memory_bytes as peak_memory_bytes,
    versions as versions,
)
from .seal import (
    SEAL as SEAL,
    damage as damage,
    file_damage as file_damage,
    file_digest as file_digest,
    growing_damage as growing_damage,
    is_signed as is_signed,
    remove_growing as remove_growing,
    seal as seal,
    seal_growing as seal_growing,
    signed as signed,
    signed_well as signed_well,
)
from .sources import (
    imported_sources as imported_sources,
    kind_sources as kind_sources,
    plugin_hash as plugin_hash,
    source_hash as source_hash,
)
from .temporary import (
    abandoned as abandoned,
    lock_file as lock_file,
    new_file as new_file,
    new_folder as new_folder,
    passing_folder as passing_folder,
)
