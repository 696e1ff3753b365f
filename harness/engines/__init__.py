"""Forward passes of a backbone with adapters: waves of training rows, replies, likelihood, choices.

`llama_cpu` holds the passes written for CPUs. Losses are minimised in `harness.training`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
