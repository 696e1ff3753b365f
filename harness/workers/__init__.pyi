# The face of this room: what other rooms may import. `__init__.py` reads this list and imports on first use.
from . import channel as channel
from .cards import kinds_of as kinds_of, read_card as read_card, trusted_files as trusted_files
from .chain import chain_of as chain_of, options_of as options_of
from .executors import open_places as open_places
from .job import BackboneJob as BackboneJob
from .local import Answer as Answer, Given as Given, LocalWorker as LocalWorker
from .remote import RemoteWorker as RemoteWorker
from .start import ended as ended, start as start
