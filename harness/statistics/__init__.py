"""Statistics of a comparison as pure functions on numpy arrays; the persona is the sampling unit. Start at `table`.

No files, no plugins and no runs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
