"""What is written about a run, and scores made elsewhere that become runs.

How replies are scored is `harness.scoring`; comparing runs is `harness.compare`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
