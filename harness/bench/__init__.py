"""Benchmarks of the harness against other trainers and decoders: time, memory, equal results.

Nothing here takes part in a run.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
