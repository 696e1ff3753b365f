"""The guard that refuses unlike runs, selection, joint tables, views of one run, planning of studies.

Formulas are in `harness.statistics`, text in `harness.show`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
