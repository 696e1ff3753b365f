"""Metrics and their registry, the sentence encoder, sums per persona, the evaluation of a run.

No statistics (`harness.statistics`) and no decoding (`harness.engines`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
