"""Many runs from one file: methods, seeds and options, or phases with gates.

One run is `harness.runner`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
