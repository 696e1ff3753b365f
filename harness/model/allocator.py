"""How the C library hands out memory: what a wave gives back is kept for the next one."""

from __future__ import annotations

import ctypes
import functools

# Numbers of mallopt's parameters in glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
MIB = 2**20
# Blocks above the threshold are maps of their own, as large as glibc takes it; a thread's pool is at most 64 MiB.
MMAP_THRESHOLD, POOL = 32 * MIB, 64 * MIB
NEVER = 2**31 - 1


@functools.cache
def keep_memory() -> bool:
    """Let this process keep the memory that it frees, from now on; whether the C library knows how.

    As glibc comes, the pools of threads go back to the system after each wave and are taken anew, page by page: with
    two threads that cost 5 % of training time. A process then keeps the memory of its largest moment to its end.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc: another system's allocator does as it sees fit
        return False
    wanted = ((M_MMAP_THRESHOLD, MMAP_THRESHOLD), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, POOL))
    return all(mallopt(parameter, value) == 1 for parameter, value in wanted)
