"""Text made harmless for where it goes: a terminal, a shell, markdown, XML, CSV, JSON, other people's eyes.

What is said is not decided here but by `harness.show` and the leaderboard.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
