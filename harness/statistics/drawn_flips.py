"""Sign flips of so many personas that their signs do not fit into memory: drawn, used and forgotten in blocks.

The signs are those of `flips.sign_matrix`; sums are added block by block, so figures agree with it up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from harness.statistics.flips import Studentising, centred, reach_of

DRAWN = 2**27  # signs that are held at once, a byte each; as many are being drawn
PERSONAS = 2_048  # whose signs are multiplied at once: they stay in the processor's cache
_WORD = 4  # draws that share one word of the generator; blocks of such rows are the rows of one large matrix


@dataclass(frozen=True, slots=True)
class Tested:
    """K methods under one estimand: what is flipped. d [K, G] persona differences, w [G] persona weights."""

    d: np.ndarray
    w: np.ndarray


@dataclass(frozen=True, slots=True)
class Flipped:
    """What R flips say of K methods: p_raw [K] as of `sign_flip_p`, maxima [R], the largest |t*| after each flip."""

    p_raw: np.ndarray
    maxima: np.ndarray


def flip(tests: Sequence[Tested], flips: int, seed: int) -> list[Flipped]:
    """Flip several estimands of the same personas with the same signs, which are drawn once.

    Memory: 2 DRAWN bytes, and two numbers a persona for each method and estimand.
    """
    families = [_Family(test, flips) for test in tests]
    columns = np.hstack([one.columns for one in families])  # [G, M]
    ends = np.cumsum([one.columns.shape[1] for one in families])[:-1]
    whole = columns.sum(0)
    # More threads make products of so few columns slower, and one draws meanwhile.
    with threadpool_limits(1, "blas"):
        for rows, bits in _drawn(len(columns), flips, seed):
            sums = np.split(whole - 2.0 * _sums_of(bits, columns), ends, axis=1)
            for one, own in zip(families, sums, strict=True):
                one.take(rows, own)
    return [one.flipped() for one in families]


def _sums_of(bits: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """bits [rows, G] times columns [G, M], a part of the personas after the other."""
    sums = np.zeros((len(bits), columns.shape[1]))
    buffer = np.empty((len(bits), PERSONAS))
    for start in range(0, len(columns), PERSONAS):
        own = columns[start : start + PERSONAS]
        part = buffer[:, : len(own)]
        np.copyto(part, bits[:, start : start + PERSONAS])
        sums += part @ own
    return sums


def _drawn(personas: int, flips: int, seed: int) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows of `sign_matrix` in blocks, the next being drawn: bits, uint8 [rows, G], 1 for a sign of -1."""
    random = np.random.default_rng(seed)
    size = max(DRAWN // personas // _WORD, 1) * _WORD
    blocks = [slice(start, min(start + size, flips)) for start in range(0, flips, size)]

    def draw(rows: slice) -> np.ndarray:
        # `integers(0, 2, dtype=np.int8)` takes the highest bit of each byte of these words, and is slower.
        count = (rows.stop - rows.start) * personas
        words = random.integers(0, 2**32, size=-(-count // _WORD), dtype=np.uint32)
        octets = words.astype("<u4", copy=False).view(np.uint8)[:count]
        np.right_shift(octets, 7, out=octets)
        return octets.reshape(-1, personas)

    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(draw, blocks[0])
        for rows, after in zip(blocks, [*blocks[1:], None], strict=True):
            bits = coming.result()
            if after is not None:
                coming = ahead.submit(draw, after)
            yield rows, bits


class _Family:
    """One estimand: its columns [G, M], and what the flips so far have said.

    With r the residuals, w d = r + c w, so sums of r and w give those of w d, too; without weights r w is r.
    """

    def __init__(self, test: Tested, flips: int) -> None:
        values = (test.w * test.d).T  # [G, K]
        residuals = centred(test.d, test.w).T
        w = test.w[:, None]
        self._reach = reach_of(values)
        self._centre = values.sum(0) / w.sum()
        self._shape = Studentising.of(residuals, np.broadcast_to(w, residuals.shape))
        self._reached = np.zeros(len(test.d), dtype=np.int64)
        self._maxima = np.empty(flips)
        self._weighted = bool((w != 1).any())
        self.columns = np.hstack([w, residuals, *([residuals * w] if self._weighted else [])])

    def take(self, rows: slice, sums: np.ndarray) -> None:
        """The flipped sums [rows, M] of the columns."""
        methods = len(self._reached)
        w, residuals = sums[:, :1], sums[:, 1 : 1 + methods]
        cross = sums[:, 1 + methods :] if self._weighted else residuals
        self._reached += (np.abs(residuals + self._centre * w) >= self._reach).sum(0)
        self._maxima[rows] = self._shape.statistics(residuals, cross).max(1)

    def flipped(self) -> Flipped:
        return Flipped((self._reached + 1) / (len(self._maxima) + 1), self._maxima)
