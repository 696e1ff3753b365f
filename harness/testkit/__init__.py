"""What plugin authors test with: conformance checks, a tiny world and backbone, a scaffold.

Nothing here takes part in a run.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
