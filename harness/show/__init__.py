"""Everything that becomes text in a terminal.

Values are computed elsewhere: `harness.compare`, `harness.statistics`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
