"""What a plugin and the harness agree on: data types, hooks, specs, options; finding and checking plugins.

No torch, no files of runs, and no name of any plugin.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
