"""Nearest neighbours above a floor: one exact matrix product a cell, each pair taken for both its faces.

The first half of coarse grouping [claim 2]: for each image the K most similar ones, of those the ones that
exceed a threshold.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import NeighboursConfig
from faceclust_spark.kernels.best import (
    EVERYWHERE,
    Best,
    Place,
    empty_best,
    flatten_best,
    keep_pairs,
    keep_rows,
)
from faceclust_spark.kernels.cells import Cells, cell_parts, probe_cells
from faceclust_spark.kernels.crowds import visit_parts
from faceclust_spark.kernels.grid import dots_to_cosines, grid_scale
from faceclust_spark.kernels.threads import map_parts

BLOCK = 512  # rows and columns of one matrix product: 1 MB, so that they are still in the cache when compared
PARTS = 8  # shares of the work that the threads of one process take in turn


class NeighbourLists(NamedTuple):
    """The neighbours of each face, nearest first; equal cosines by the smaller face id."""

    face_ids: NDArray[np.int64]  # (n,) ascending
    offsets: NDArray[np.int64]  # (n + 1,)
    neighbours: NDArray[np.int64]  # (e,) face ids
    cosines: NDArray[np.float32]  # (e,)


def find_neighbours(
    face_ids: NDArray[np.int64],
    vectors: NDArray[np.int16],
    cells: Cells,
    floor: float,
    config: NeighboursConfig,
) -> NeighbourLists:
    """Give each face's K nearest faces of cosine >= floor, among those that share a probed cell with it.

    With one cell that is exact search. Of a cell of more than `largest_cell` visitors those meet that share a
    part of it (kernels.crowds). Pairs of two visitors count like pairs with a member: at 4 probes that costs
    twice the products of members with visitors, and finds what 8 probes do, for no further shuffle.
    Uses all cores; the result depends on the cells, never on threads or row order.

    Shapes: `(n,)` distinct ids, grid vectors `(n, d)`.
    """
    if len(cells.centroids) == 1:
        slices = map_parts(
            lambda part: search_slice(face_ids, vectors, part, PARTS, floor, config.k), range(PARTS)
        )
        return join_lists(slices)
    probed = probe_all(vectors, cells, config.probes)
    part_of_cell = cell_parts(cells, PARTS)

    def search(part: int) -> NeighbourLists:
        searched = part_of_cell == part
        here = np.flatnonzero(searched[probed].any(axis=1))
        return search_cells(face_ids[here], vectors[here], probed[here], searched, floor, config)

    return merge_lists(map_parts(search, range(PARTS)), config.k)


def probe_all(vectors: NDArray[np.int16], cells: Cells, probes: int) -> NDArray[np.int32]:
    """Give what `probe_cells` gives, from all cores."""
    parts = np.array_split(vectors, PARTS)
    return np.concatenate(map_parts(lambda part: probe_cells(part, cells, probes), parts))


def search_cells(
    face_ids: NDArray[np.int64],
    vectors: NDArray[np.int16],
    probed: NDArray[np.int32],
    searched: NDArray[np.bool_],
    floor: float,
    config: NeighboursConfig,
    block: int = BLOCK,
) -> NeighbourLists:
    """Search some of the cells, given all faces that probe one of them.

    searched: bool `(c,)`. probed: int32 `(n, p)` from `probe_cells`. Each pair of the gallery belongs to one
    cell, so searches of different cells find different pairs. No list is longer than k, which loses nothing:
    the best k of all are among the best k of each search.

    Returns the lists of the faces whose home (their nearest cell) is searched, and the lists that are not
    empty of those that only visit.
    """
    order = np.argsort(face_ids)
    face_ids, vectors, home, probed = face_ids[order], vectors[order], probed[order, 0], probed[order]
    probed.sort(axis=1)
    visitors, offsets = _visitors(probed, searched)
    best = _empty_lists(len(face_ids), config.k, floor, vectors.shape[1])
    for number, cell in enumerate(np.flatnonzero(searched)):
        rows, place = visitors[offsets[number] : offsets[number + 1]], Place(int(cell), probed)
        is_crowded = len(rows) > config.largest_cell
        parts = visit_parts(vectors, rows) if is_crowded else [(EVERYWHERE, rows)]
        for within, some in parts:
            _compare(vectors[some], some, place, within, best, block)
    lists = _sorted_lists(face_ids, face_ids, best, vectors.shape[1])
    return _take(lists, np.flatnonzero(searched[home] | (best.filled > 0)))


def _compare(
    vectors: NDArray[np.int16],
    rows: NDArray[np.int64],
    place: Place,
    within: Place,
    best: Best,
    block: int,
) -> None:
    """Offer all pairs of some rows of the gallery, whose vectors these are, to both faces."""
    here = vectors.astype(np.float32)
    for i in range(0, len(rows), block):
        for j in range(i, len(rows), block):
            dots = here[i : i + block] @ here[j : j + block].T
            keep_pairs(dots, rows[i : i + block], rows[j : j + block], place, within, best)


def search_faces(
    some_ids: NDArray[np.int64],
    some_vectors: NDArray[np.int16],
    face_ids: NDArray[np.int64],
    vectors: NDArray[np.int16],
    floor: float,
    k: int,
    block: int = BLOCK,
) -> NeighbourLists:
    """Give the exact lists of some faces among others, in the order of `some_ids`.

    A face is no neighbour of itself. Shapes: `(m,)`, `(m, d)` and `(n,)`, `(n, d)`.
    """
    order = np.argsort(face_ids)
    face_ids = face_ids[order]
    own = _positions(some_ids, face_ids)
    best = _empty_lists(len(some_ids), k, floor, some_vectors.shape[1])
    for first_column in range(0, len(face_ids), block):
        right = vectors[order[first_column : first_column + block]].astype(np.float32).T
        for first_row in range(0, len(some_ids), block):
            left = some_vectors[first_row : first_row + block].astype(np.float32)
            keep_rows(left @ right, first_row, first_column, own, best)
    return _sorted_lists(some_ids, face_ids, best, some_vectors.shape[1])


def search_slice(
    face_ids: NDArray[np.int64],
    vectors: NDArray[np.int16],
    part: int,
    parts: int,
    floor: float,
    k: int,
) -> NeighbourLists:
    """Give the exact lists of one of `parts` equal shares of the faces, cut in the order of their ids."""
    order = np.argsort(face_ids)
    some = order[len(order) * part // parts : len(order) * (part + 1) // parts]
    return search_faces(face_ids[some], vectors[some], face_ids, vectors, floor, k)


def merge_lists(parts: list[NeighbourLists], k: int) -> NeighbourLists:
    """Merge lists in which the same face may occur several times: one list of its best k for each.

    A pair that was found several times counts once.
    """
    flat = join_lists(parts)
    order = np.argsort(flat.face_ids, kind="stable")
    face_ids, starts = np.unique(flat.face_ids[order], return_index=True)
    bounds = np.append(starts, len(order))
    neighbours, cosines, counts = _merge(order, bounds, *flat[1:], k)
    return NeighbourLists(face_ids, np.concatenate([[0], np.cumsum(counts)]), neighbours, cosines)


def join_lists(parts: list[NeighbourLists]) -> NeighbourLists:
    """Put lists behind each other, in the order given."""
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return NeighbourLists(
        np.concatenate([part.face_ids for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([part.neighbours for part in parts]),
        np.concatenate([part.cosines for part in parts]),
    )


def lowest_dot(floor: float, dimension: int) -> np.float32:
    """Give the least grid dot product whose cosine is >= floor, both compared as float32."""
    dot = np.rint(floor * grid_scale(dimension) ** 2) + np.arange(-4, 5)
    return np.float32(dot[np.argmax(dots_to_cosines(dot.astype(np.float32), dimension) >= np.float32(floor))])


def _empty_lists(faces: int, k: int, floor: float, dimension: int) -> Best:
    """Give empty lists. Rounding to the grid can lift a near copy's cosine above 1: here it counts as 1.

    Up to there no two dot products have the same cosine, so merging by cosines keeps the heaps' order.
    """
    return empty_best(faces, k, lowest_dot(floor, dimension), lowest_dot(1.0, dimension))


def _positions(ids: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the position of each id among sorted ones, -1 where it is not there."""
    if not len(among):
        return np.full(len(ids), -1)
    places = np.minimum(np.searchsorted(among, ids), len(among) - 1)
    return np.where(among[places] == ids, places, -1)


def _visitors(
    probed: NDArray[np.int32], searched: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the rows that probe each searched cell, cell by cell, and the offsets of each cell's rows."""
    rows, column = np.nonzero(searched[probed])
    cell = probed[rows, column]
    counts = np.bincount(cell, minlength=len(searched))[searched]
    return rows[np.argsort(cell, kind="stable")], np.concatenate([[0], np.cumsum(counts)])


def _sorted_lists(
    owners: NDArray[np.int64], face_ids: NDArray[np.int64], best: Best, dimension: int
) -> NeighbourLists:
    offsets, rows, dots = flatten_best(best)
    return NeighbourLists(owners, offsets, face_ids[rows], dots_to_cosines(dots, dimension))


def _take(lists: NeighbourLists, rows: NDArray[np.int64]) -> NeighbourLists:
    """Give the lists of some rows. All the others must be empty."""
    offsets = np.concatenate([[0], np.cumsum(np.diff(lists.offsets)[rows])]).astype(np.int64)
    return NeighbourLists(lists.face_ids[rows], offsets, lists.neighbours, lists.cosines)


@numba.njit(cache=True, nogil=True)
def _merge(order, bounds, offsets, neighbours, cosines, k):  # type: ignore[no-untyped-def]
    """Merge sorted lists face by face: always the best head of a face's lists goes next."""
    kept = np.empty(len(neighbours), np.int64)
    kept_cosines = np.empty(len(neighbours), np.float32)
    counts = np.zeros(len(bounds) - 1, np.int64)
    heads = offsets[:-1].copy()
    end = 0
    for face in range(len(bounds) - 1):
        begin = end
        while end - begin < k:
            nearest = -1
            for place in range(bounds[face], bounds[face + 1]):
                part = order[place]
                if heads[part] == offsets[part + 1]:
                    continue
                if nearest >= 0:
                    head, best = heads[part], heads[nearest]
                    if cosines[head] < cosines[best]:
                        continue
                    if cosines[head] == cosines[best] and neighbours[head] >= neighbours[best]:
                        continue
                nearest = part
            if nearest < 0:
                break
            head = heads[nearest]
            heads[nearest] += 1
            if end == begin or neighbours[head] != kept[end - 1]:  # the same pair has the same cosine
                kept[end], kept_cosines[end] = neighbours[head], cosines[head]
                end += 1
        counts[face] = end - begin
    return kept[:end].copy(), kept_cosines[:end].copy(), counts
