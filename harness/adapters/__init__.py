"""Small adapters on a frozen backbone, N of them in one bank: one file per kind, and their PEFT files.

How they are trained is `harness.training`, how they answer is `harness.engines`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
