"""The best K candidates of each face, kept in bounded heaps while pairs stream by."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

CHUNK = 64  # dot products that are compared at once before any of them is looked at alone
_ROWS = 0xFFFFFFFF


class Best(NamedTuple):
    """A min-heap of at most k candidates for each row.

    A candidate is one int64, `dot * 2^32 + (2^32 - 1 - row)`: the larger, the better, and of equal dot
    products the smaller row. Rows are ordered by face id, so this is the order of the lists.
    """

    heaps: NDArray[np.int64]  # (n, k)
    filled: NDArray[np.int32]  # (n,)


def empty_best(rows: int, k: int) -> Best:
    """Give empty heaps."""
    return Best(np.empty((rows, k), np.int64), np.zeros(rows, np.int32))


def flatten_best(best: Best) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Give all candidates, best first in each row: offsets `(n + 1,)`, rows `(e,)`, dots `(e,)`.

    The heaps are used up.
    """
    offsets = np.concatenate([[0], np.cumsum(best.filled)]).astype(np.int64)
    rows, dots = _flatten(best.heaps, best.filled, offsets)
    return offsets, rows, dots


# Arguments of the compiled functions below: heaps, filled: of Best. dots: float32 (m, n), exact
# integers. lowest: the least dot product that counts, float32.


@numba.njit(cache=True, nogil=True, inline="always")
def _offer(heaps, filled, row, dot, other):  # type: ignore[no-untyped-def]
    """Put a candidate into a row's heap, unless K better ones are there."""
    key = (np.int64(dot) << 32) + (_ROWS - np.int64(other))
    k = heaps.shape[1]
    count = filled[row]
    if count < k:
        place = count
        filled[row] = count + 1
        while place > 0:
            above = (place - 1) >> 1
            if heaps[row, above] <= key:
                break
            heaps[row, place] = heaps[row, above]
            place = above
        heaps[row, place] = key
    elif key > heaps[row, 0]:
        _sink(heaps, row, k, key)


@numba.njit(cache=True, nogil=True, inline="always")
def _sink(heaps, row, count, key):  # type: ignore[no-untyped-def]
    """Replace the least of the first `count` candidates by `key`."""
    place = 0
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        if below + 1 < count and heaps[row, below + 1] < heaps[row, below]:
            below += 1
        if heaps[row, below] >= key:
            break
        heaps[row, place] = heaps[row, below]
        place = below
    heaps[row, place] = key


@numba.njit(cache=True, nogil=True)
def keep_inside(dots, lowest, rows, columns, same, heaps, filled):  # type: ignore[no-untyped-def]
    """Offer the pairs of two blocks of one cell to both faces; `same`: one block with itself, once."""
    for i in range(dots.shape[0]):
        for start in range(i + 1 if same else 0, dots.shape[1], CHUNK):
            stop = min(start + CHUNK, dots.shape[1])
            hits = 0
            for j in range(start, stop):
                hits += dots[i, j] >= lowest
            if hits == 0:
                continue
            for j in range(start, stop):
                if dots[i, j] >= lowest:
                    _offer(heaps, filled, rows[i], dots[i, j], columns[j])
                    _offer(heaps, filled, columns[j], dots[i, j], rows[i])


@numba.njit(cache=True, nogil=True)
def keep_visits(dots, lowest, rows, columns, cell, probed, heaps, filled):  # type: ignore[no-untyped-def]
    """Offer the pairs of members (rows) and visitors (columns) of a cell to both faces.

    probed: int32 `(n, p)`, home cell first. Where the member visits the visitor's cell as well, the pair
    belongs to the smaller of both cells: so each pair is offered once, whatever the shards.
    """
    for i in range(dots.shape[0]):
        for start in range(0, dots.shape[1], CHUNK):
            stop = min(start + CHUNK, dots.shape[1])
            hits = 0
            for j in range(start, stop):
                hits += dots[i, j] >= lowest
            if hits == 0:
                continue
            for j in range(start, stop):
                if dots[i, j] >= lowest:
                    home, elsewhere = probed[columns[j], 0], False
                    if home < cell:
                        for probe in range(1, probed.shape[1]):
                            elsewhere |= probed[rows[i], probe] == home
                    if not elsewhere:
                        _offer(heaps, filled, rows[i], dots[i, j], columns[j])
                        _offer(heaps, filled, columns[j], dots[i, j], rows[i])


@numba.njit(cache=True, nogil=True)
def keep_rows(dots, lowest, first_row, first_column, own, heaps, filled):  # type: ignore[no-untyped-def]
    """Offer each column to each row, but not to itself: heap row r is candidate own[r], or none (-1).

    Rows of the heaps begin at first_row, candidates at first_column.
    """
    for i in range(dots.shape[0]):
        row = first_row + i
        for start in range(0, dots.shape[1], CHUNK):
            stop = min(start + CHUNK, dots.shape[1])
            hits = 0
            for j in range(start, stop):
                hits += dots[i, j] >= lowest
            if hits == 0:
                continue
            for j in range(start, stop):
                if dots[i, j] >= lowest and own[row] != first_column + j:
                    _offer(heaps, filled, row, dots[i, j], first_column + j)


@numba.njit(cache=True, nogil=True)
def _flatten(heaps, filled, offsets):  # type: ignore[no-untyped-def]
    rows = np.empty(offsets[-1], np.int64)
    dots = np.empty(offsets[-1], np.float32)
    for row in range(len(filled)):
        for count in range(filled[row], 0, -1):  # the least one comes off the heap first
            key = heaps[row, 0]
            slot = offsets[row] + count - 1
            rows[slot] = _ROWS - (key & _ROWS)
            dots[slot] = key >> 32
            if count > 1:
                _sink(heaps, row, count - 1, heaps[row, count - 1])
    return rows, dots
