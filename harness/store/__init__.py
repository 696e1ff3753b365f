"""The disk: atomic folders, content addresses, locks; facts of the machine; hashes of sources.

What a run is and means is `harness.runs`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
