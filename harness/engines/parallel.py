"""Work that shares nothing, cut evenly and computed side by side.

Each thread takes whole pieces and uses one thread inside torch, so that none waits for another inside a product. Which
of them takes a piece does not change its bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import numpy as np
import torch

from harness.model import keep_memory

THREAD_NAME = "work"  # what the names of the threads begin with

T = TypeVar("T")
R = TypeVar("R")


def even_parts(sizes: Sequence[int], count: int) -> list[int]:
    """For pieces of these sizes, in their order, which of `count` parts of about equal size each belongs to."""
    ends = np.cumsum(sizes)
    middles = ends - np.asarray(sizes) / 2
    return np.minimum(middles * count // ends[-1], count - 1).astype(int).tolist()


class Each(Protocol):
    """Calls a function with every piece; results in the order of the pieces."""

    def __call__(self, function: Callable[[T], R], pieces: Sequence[T]) -> list[R]: ...


@contextmanager
def side_by_side(workers: int) -> Iterator[Each]:
    """While open, torch computes with one thread and `workers` pieces of work are under way at a time.

    A failure or an interruption waits for the pieces that are under way, and starts no more.
    """
    if workers == 1:
        yield lambda function, pieces: [function(piece) for piece in pieces]
        return
    keep_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(workers, thread_name_prefix=THREAD_NAME)
    try:
        yield lambda function, pieces: list(pool.map(function, pieces))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
