"""The frozen backbone: load, freeze, fingerprint; chat templates; prompts as token ids; the embedded model.

No adapters, no training of them and no decoding.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
