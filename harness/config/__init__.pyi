# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from .resolved import config_yaml as config_yaml, device_of as device_of
from .run_config import (
    SETTINGS as SETTINGS,
    OptionsOf as OptionsOf,
    Recipe as Recipe,
    RunConfig as RunConfig,
    default_values as default_values,
    flat as flat,
    help_examples as help_examples,
    isolates as isolates,
    load_config as load_config,
    read_document as read_document,
)
from .scope import fitted_for as fitted_for, held_out as held_out, scope_of as scope_of, with_config as with_config
from .yaml_file import Document as Document
