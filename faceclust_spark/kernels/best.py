"""The best K candidates of each face, kept in bounded heaps while pairs stream by."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

CHUNK = 32  # dot products that are compared at once before any of them is looked at alone
_ROWS = 0xFFFFFFFF


class Best(NamedTuple):
    """A min-heap of at most k candidates for each row.

    A candidate is one int64, `dot * 2^32 + (2^32 - 1 - row)`: the larger, the better, and of equal dot
    products the smaller row. Rows are ordered by face id, so this is the order of the lists.
    """

    heaps: NDArray[np.int64]  # (n, k)
    filled: NDArray[np.int32]  # (n,)
    lowest: NDArray[np.float32]  # (n,) no candidate of a smaller dot product has a chance any more
    highest: np.float32  # a larger dot product counts as this one


class Place(NamedTuple):
    """One of the cells that faces meet in, and all those that each of them visits.

    A pair that shares several cells meets in the smallest of them: so it is offered once in a gallery.
    """

    cell: int
    visited: NDArray[np.int32]  # (n, p) of each row, ascending; p = 0: there is one cell, and all meet there


EVERYWHERE = Place(0, np.empty((0, 0), np.int32))


def empty_best(rows: int, k: int, lowest: np.float32, highest: np.float32) -> Best:
    """Give empty heaps for candidates of dot products >= lowest, all those above highest as good as it."""
    return Best(
        np.empty((rows, k), np.int64), np.zeros(rows, np.int32), np.full(rows, lowest, np.float32), highest
    )


def flatten_best(best: Best) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Give all candidates, best first in each row: offsets `(n + 1,)`, rows `(e,)`, dots `(e,)`.

    The heaps are used up.
    """
    offsets = np.concatenate([[0], np.cumsum(best.filled)]).astype(np.int64)
    rows, dots = _flatten(best.heaps, best.filled, offsets)
    return offsets, rows, dots


# Arguments of the compiled functions below: dots: float32 (m, n), exact integers. Most pairs are far below
# the floor, so a stretch of them is compared at once, in a loop without branches that the compiler turns
# into vector instructions: 0.12 ns a pair instead of 0.6.


@numba.njit(cache=True, nogil=True, inline="always")
def _offer(best, row, dot, other):  # type: ignore[no-untyped-def]
    """Put a candidate into a row's heap, unless K better ones are there."""
    heaps, filled, lowest = best.heaps, best.filled, best.lowest
    key = (np.int64(min(dot, best.highest)) << 32) + (_ROWS - np.int64(other))
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
    if filled[row] == k:
        lowest[row] = max(lowest[row], np.float32(heaps[row, 0] >> 32))


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


@numba.njit(cache=True, nogil=True, inline="always")
def _any_at_least(dots, mine, theirs):  # type: ignore[no-untyped-def]
    """Tell whether any dot product reaches what one of its two faces still takes."""
    hits = np.int32(0)
    for j in range(len(dots)):
        hits |= np.int32(dots[j] >= min(mine, theirs[j]))
    return hits != 0


@numba.njit(cache=True, nogil=True)
def keep_pairs(dots, rows, columns, place, within, best):  # type: ignore[no-untyped-def]
    """Offer the pairs of two blocks of one cell's visitors to both faces, if it is here that they meet.

    Rows and columns ascend; pairs of row >= column are left out: they are the other half, or a face with
    itself. place, within: Place, of the cell, and of a part of it (kernels.crowds).
    """
    lowest = best.lowest
    theirs = lowest[columns]  # rises meanwhile, so it may let some pass that are refused later
    for i in range(dots.shape[0]):
        row = rows[i]
        for start in range(0, dots.shape[1], CHUNK):
            some = dots[i, start : start + CHUNK]
            if not _any_at_least(some, lowest[row], theirs[start : start + CHUNK]):
                continue
            for j in range(len(some)):
                column, dot = columns[start + j], some[j]
                if dot < min(lowest[row], theirs[start + j]) or row >= column:
                    continue
                if dot < min(lowest[row], lowest[column]):
                    continue
                if _meet(place, row, column) and _meet(within, row, column):
                    _offer(best, row, dot, column)
                    _offer(best, column, dot, row)


@numba.njit(cache=True, nogil=True, inline="always")
def _meet(place, one, other):  # type: ignore[no-untyped-def]
    """Tell whether a pair that shares this cell meets in it."""
    return place.visited.shape[1] == 0 or _first_shared(place.visited, one, other) == place.cell


@numba.njit(cache=True, nogil=True, inline="always")
def _first_shared(probed, one, other):  # type: ignore[no-untyped-def]
    """Give the smallest value that is in both of two ascending rows, one of which is there."""
    i, j = 0, 0
    while probed[one, i] != probed[other, j]:
        if probed[one, i] < probed[other, j]:
            i += 1
        else:
            j += 1
    return probed[one, i]


@numba.njit(cache=True, nogil=True)
def keep_rows(dots, first_row, first_column, own, best):  # type: ignore[no-untyped-def]
    """Offer each column to each row, but not to itself: heap row r is candidate own[r], or none (-1).

    Rows of the heaps begin at first_row, candidates at first_column.
    """
    anything, lowest = np.full(CHUNK, np.inf, np.float32), best.lowest
    for i in range(dots.shape[0]):
        row = first_row + i
        for start in range(0, dots.shape[1], CHUNK):
            some = dots[i, start : start + CHUNK]
            if not _any_at_least(some, lowest[row], anything):
                continue
            for j in range(len(some)):
                column = first_column + start + j
                if some[j] >= lowest[row] and own[row] != column:
                    _offer(best, row, some[j], column)


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
