"""Defaults, YAML files and --set become one checked `RunConfig`, and say who takes part in a run.

What an option means is the plugin's own; here is only where values come from and whether they fit.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
