"""The loops that fit a bank, alone or with shared parameters, and the fit service of a study.

Forward passes are `harness.engines`; what a method may ask for is `harness.study`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
