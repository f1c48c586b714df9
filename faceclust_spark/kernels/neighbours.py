"""Nearest neighbours above a floor: one exact matrix product a cell, pairs taken from both sides."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import NeighboursConfig
from faceclust_spark.kernels.cells import Cells, probe_cells
from faceclust_spark.kernels.grid import dots_to_cosines

BLOCK = 2_048  # rows and columns of one matrix product: 16 MB, stays in the cache's reach


class NeighbourLists(NamedTuple):
    """The neighbours of each face, nearest first; equal cosines by the smaller face id."""

    face_ids: NDArray[np.int64]  # (n,) ascending
    offsets: NDArray[np.int64]  # (n + 1,)
    neighbours: NDArray[np.int64]  # (e,) face ids
    cosines: NDArray[np.float32]  # (e,)


class Visits(NamedTuple):
    """Which rows live in, and which rows visit, each of some cells.

    Row numbers point into one array of vectors that is ordered by face id.
    """

    members: list[NDArray[np.int64]]
    visitors: list[NDArray[np.int64]]


class _Best(NamedTuple):
    """The best K candidates of each row so far, in no order; `worst` points at the last of them."""

    rows: NDArray[np.int32]  # (n, k)
    cosines: NDArray[np.float32]  # (n, k)
    filled: NDArray[np.int32]  # (n,)
    worst: NDArray[np.int32]  # (n,)


def find_neighbours(
    face_ids: NDArray[np.int64],
    vectors: NDArray[np.int16],
    cells: Cells,
    floor: float,
    config: NeighboursConfig,
) -> NeighbourLists:
    """Give each face's K nearest faces of cosine >= floor among those that share a probed cell.

    A pair counts where either face probes the home cell of the other. With one cell that is exact
    search. Shapes: `(n,)` ascending ids, `(n, d)` grid vectors.
    """
    visits = visits_of(probe_cells(vectors, cells, config.probes), len(cells.centroids))
    return search(face_ids, vectors, visits, floor, config.k)


def visits_of(probed: NDArray[np.int32], cells: int) -> Visits:
    """Turn probed cells `(n, p)`, home cell first, into members and visitors of each cell."""
    home, rows = probed[:, 0], np.arange(len(probed))
    flat, visiting = probed.ravel(), np.repeat(rows, probed.shape[1])
    return Visits(_split(rows, home, cells), _split(visiting, flat, cells))


def search(
    face_ids: NDArray[np.int64],
    vectors: NDArray[np.int16],
    visits: Visits,
    floor: float,
    k: int,
) -> NeighbourLists:
    """Give the best K of all pairs (member, visitor) of each cell, for both faces of the pair."""
    best = _empty_best(len(face_ids), k)
    lowest = np.float32(floor)
    for members, visitors in zip(visits.members, visits.visitors, strict=True):
        _search_cell(vectors, members, visitors, lowest, best)
    return _sorted_lists(face_ids, best)


def search_slice(
    face_ids: NDArray[np.int64],
    vectors: NDArray[np.int16],
    rows: NDArray[np.int64],
    floor: float,
    k: int,
) -> NeighbourLists:
    """Give the exact best K of some rows among all faces: the search of one cell, shared by tasks."""
    best = _empty_best(len(face_ids), k)
    everyone = np.arange(len(face_ids))
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        left = vectors[some].astype(np.float32)
        for other in range(0, len(face_ids), BLOCK):
            columns = everyone[other : other + BLOCK]
            _keep_one_side(_cosines(left, vectors[columns]), some, columns, np.float32(floor), *best)
    return _take(_sorted_lists(face_ids, best), rows)


def merge_lists(
    owners: NDArray[np.int64], neighbours: NDArray[np.int64], cosines: NDArray[np.float32], k: int
) -> NeighbourLists:
    """Merge partial lists, given as flat arrays, into one list of the best K for each owner.

    The same pair may come from several shards; it counts once. The result has the owners that occur.
    """
    order = np.lexsort((neighbours, -cosines, owners))
    owners, neighbours, cosines = owners[order], neighbours[order], cosines[order]
    # The same pair has the same cosine wherever it was found, so repetitions stand side by side.
    fresh = np.ones(len(owners), bool)
    fresh[1:] = (owners[1:] != owners[:-1]) | (neighbours[1:] != neighbours[:-1])
    owners, neighbours, cosines = owners[fresh], neighbours[fresh], cosines[fresh]
    face_ids, starts = np.unique(owners, return_index=True)
    rank = np.arange(len(owners)) - np.repeat(starts, np.diff(np.append(starts, len(owners))))
    kept = rank < k
    counts = np.bincount(np.searchsorted(face_ids, owners[kept]), minlength=len(face_ids))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return NeighbourLists(face_ids, offsets, neighbours[kept], cosines[kept])


def _search_cell(
    vectors: NDArray[np.int16],
    members: NDArray[np.int64],
    visitors: NDArray[np.int64],
    floor: np.float32,
    best: _Best,
) -> None:
    for start in range(0, len(members), BLOCK):
        rows = members[start : start + BLOCK]
        left = vectors[rows].astype(np.float32)
        for other in range(0, len(visitors), BLOCK):
            columns = visitors[other : other + BLOCK]
            if members is visitors and other < start:
                continue  # one cell: the other half of a symmetric matrix
            _keep_both_sides(_cosines(left, vectors[columns]), rows, columns, floor, *best)


def _cosines(left: NDArray[np.float32], right: NDArray[np.int16]) -> NDArray[np.float32]:
    return dots_to_cosines(left @ right.astype(np.float32).T, left.shape[1])


def _split(rows: NDArray[np.int64], cell: NDArray[np.int32], cells: int) -> list[NDArray[np.int64]]:
    order = np.argsort(cell, kind="stable")
    return np.split(rows[order], np.cumsum(np.bincount(cell, minlength=cells))[:-1])


def _empty_best(count: int, k: int) -> _Best:
    return _Best(
        np.empty((count, k), np.int32),
        np.empty((count, k), np.float32),
        np.zeros(count, np.int32),
        np.zeros(count, np.int32),
    )


def _sorted_lists(face_ids: NDArray[np.int64], best: _Best) -> NeighbourLists:
    offsets = np.concatenate([[0], np.cumsum(best.filled)]).astype(np.int64)
    rows, cosines = _flatten_sorted(best.rows, best.cosines, best.filled, offsets)
    return NeighbourLists(face_ids, offsets, face_ids[rows], cosines)


def _take(lists: NeighbourLists, rows: NDArray[np.int64]) -> NeighbourLists:
    """Give the lists of some rows, in the order of their ids."""
    rows = np.sort(rows)
    counts = np.diff(lists.offsets)[rows]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    places = np.repeat(lists.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
    return NeighbourLists(lists.face_ids[rows], offsets, lists.neighbours[places], lists.cosines[places])


@numba.njit(cache=True, nogil=True)
def _insert(rows, cosines, filled, worst, row, other, cosine):  # type: ignore[no-untyped-def]
    """Put a candidate into a row's best K, unless it is there or K better ones are."""
    k = rows.shape[1]
    count = filled[row]
    if count == k:
        last = worst[row]
        if cosine < cosines[row, last]:
            return
        if cosine == cosines[row, last] and other >= rows[row, last]:
            return
    for place in range(count):
        if rows[row, place] == other:
            return
    if count < k:
        place = count
        filled[row] = count + 1
    else:
        place = worst[row]
    rows[row, place] = other
    cosines[row, place] = cosine
    if filled[row] == k:
        last = 0
        for place in range(1, k):
            lower = cosines[row, place] < cosines[row, last]
            if lower or (cosines[row, place] == cosines[row, last] and rows[row, place] > rows[row, last]):
                last = place
        worst[row] = last


@numba.njit(cache=True, nogil=True)
def _keep_both_sides(block, left, right, floor, rows, cosines, filled, worst):  # type: ignore[no-untyped-def]
    for i in range(block.shape[0]):
        for j in range(block.shape[1]):
            if block[i, j] >= floor and left[i] != right[j]:
                _insert(rows, cosines, filled, worst, left[i], right[j], block[i, j])
                _insert(rows, cosines, filled, worst, right[j], left[i], block[i, j])


@numba.njit(cache=True, nogil=True)
def _keep_one_side(block, left, right, floor, rows, cosines, filled, worst):  # type: ignore[no-untyped-def]
    for i in range(block.shape[0]):
        for j in range(block.shape[1]):
            if block[i, j] >= floor and left[i] != right[j]:
                _insert(rows, cosines, filled, worst, left[i], right[j], block[i, j])


@numba.njit(cache=True, nogil=True)
def _flatten_sorted(rows, cosines, filled, offsets):  # type: ignore[no-untyped-def]
    flat_rows = np.empty(offsets[-1], np.int64)
    flat_cosines = np.empty(offsets[-1], np.float32)
    for row in range(len(filled)):
        start = offsets[row]
        for place in range(filled[row]):
            cosine, other = cosines[row, place], rows[row, place]
            slot = start + place
            while slot > start and (
                flat_cosines[slot - 1] < cosine
                or (flat_cosines[slot - 1] == cosine and flat_rows[slot - 1] > other)
            ):
                flat_cosines[slot], flat_rows[slot] = flat_cosines[slot - 1], flat_rows[slot - 1]
                slot -= 1
            flat_cosines[slot], flat_rows[slot] = cosine, other
    return flat_rows, flat_cosines
