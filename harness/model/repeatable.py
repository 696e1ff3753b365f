"""How torch is set for every run, so that the same work gives the same bits again."""

from __future__ import annotations

import torch


def set_repeatable(threads: int | None = None) -> None:
    """Deterministic operations, and so many threads where a number is given; for the whole process.

    New memory stays unfilled: torch's filling of it in this mode is a help in debugging that costs 3 % of training.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
