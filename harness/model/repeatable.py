"""How torch and the memory allocator are set for every run: the same work gives the same bits, and memory is kept."""

from __future__ import annotations

import ctypes
import functools

import torch


def set_repeatable(threads: int | None = None) -> None:
    """Deterministic operations, and so many threads where a number is given; for the whole process.

    New memory stays unfilled: torch's filling of it in this mode is a help in debugging that costs 3 % of training.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


# Numbers of mallopt's parameters in glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
MIB = 2**20
# Blocks above the threshold are maps of their own, as large as glibc takes it; a thread's pool is at most 64 MiB.
MMAP_THRESHOLD, POOL = 32 * MIB, 64 * MIB
NEVER = 2**31 - 1


@functools.cache
def keep_memory() -> bool:
    """Let this process keep the memory that it frees, from now on; False if the C library has no such setting.

    By default glibc gives the pools of threads back to the system after each wave and takes them anew, page by page:
    with two threads that cost 5 % of training time. With this, a process keeps the memory of its peak until it ends.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc: another system's allocator has other settings
        return False
    wanted = ((M_MMAP_THRESHOLD, MMAP_THRESHOLD), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, POOL))
    return all(mallopt(parameter, value) == 1 for parameter, value in wanted)
