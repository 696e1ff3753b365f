"""Where plugins of methods run: fits and replies over one data set, without its references.

`local` does it in this process; `remote` asks one `process` for each method, whose card `cards` reads.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
