"""The inputs of all pairs of a group at once, bit for bit those of `relations.pair_inputs`.

There, pair by pair, two sorted lists are merged: 64 steps of unpredictable branches. Here one image meets
a tile of others at a time, and each pair's additions, in their same order, run side by side over the tile.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.nearest import NearestMembers
from faceclust_spark.kernels.relations import (
    PAIR_INPUTS,
    count_strong,
    density_inputs,
    link_vectors,
    lists_by_row,
)

TILE = 64  # images that one image meets at a time: their lists as dense columns stay in the cache


class Lists(NamedTuple):
    """Neighbour lists by ascending row, and their weights at both temperatures."""

    rows: NDArray[np.int32]  # (n, k)
    ranks: NDArray[np.int32]  # (n, k)
    similarity: NDArray[np.float32]  # (n, k)
    weights: NDArray[np.float32]  # (2, n, k)


class Columns(NamedTuple):
    """The lists of a tile of images as dense columns: place (x, t) is what the t-th lists of image x."""

    near: NDArray[np.float32]  # (n, t) weight at the lower temperature, 0 where not listed
    far: NDArray[np.float32]  # (n, t) at the higher one
    similarity: NDArray[np.float32]  # (n, t) -inf where not listed
    rank: NDArray[np.int32]  # (n, t) from 1, k + 1 where not listed


class Overlaps(NamedTuple):
    """What one image's list shares with those of a tile."""

    sums: NDArray[np.float32]  # (3, t) both sums of products, and the best similarity that both have
    counts: NDArray[np.int32]  # (2, t) strong neighbours of both, at both levels
    rank: NDArray[np.int32]  # (t,) of the tile's images in the one image's list, as in Columns


def triangle_rows(size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the rows and the columns of the upper triangle, row by row: int64 `(p,)` each."""
    first = np.empty(size * (size - 1) // 2, np.int64)
    second = np.empty_like(first)
    _fill_rows(size, first, second)
    return first, second


def triangle_inputs(
    similarity: NDArray[np.float32],
    nearest: NearestMembers,
    nodes: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Describe every pair of a group, as `relations.pair_inputs` does: float32 `(p, PAIR_INPUTS)`.

    Pairs are those of the upper triangle, row by row. similarity: s of each image with each, `(n, n)`.
    """
    size = len(similarity)
    inputs = np.zeros((size * (size - 1) // 2, PAIR_INPUTS), np.float32)
    if size < 2:
        return inputs
    by_row = lists_by_row(nearest)
    weights, norms = link_vectors(by_row.similarity)
    _fill_inputs(similarity, Lists(*by_row, weights), norms, nodes, inputs)
    return inputs


@numba.njit(cache=True, nogil=True)
def _fill_rows(size, first, second):  # type: ignore[no-untyped-def]
    place = 0
    for i in range(size):
        for j in range(i + 1, size):
            first[place], second[place] = i, j
            place += 1


@numba.njit(cache=True, nogil=True)
def _fill_inputs(similarity, lists, norms, nodes, inputs):  # type: ignore[no-untyped-def]
    n, width = lists.rows.shape
    tile = min(TILE, n)
    columns = Columns(
        np.zeros((n, tile), np.float32),
        np.zeros((n, tile), np.float32),
        np.full((n, tile), -np.inf, np.float32),
        np.full((n, tile), width + 1, np.int32),
    )
    sums, counts, own_rank = (
        np.empty((3, tile), np.float32),
        np.empty((2, tile), np.int32),
        np.empty(tile, np.int32),
    )
    overlaps = Overlaps(sums, counts, own_rank)
    logs = np.array([np.log(max(k, 1)) for k in range(width + 2)]).astype(np.float32)
    above = count_strong(lists.similarity)
    for start in range(0, n, tile):
        end = min(start + tile, n)
        _spread(start, end, lists, columns)
        for i in range(end - 1):
            _overlap(i, start, lists, columns, overlaps)
            for j in range(max(i + 1, start), end):
                t = j - start
                s, mine, theirs = similarity[i, j], own_rank[t], columns.rank[i, t]
                mutual = (mine <= width) + (theirs <= width)  # the two themselves do not count
                one3 = above[i, 0] + above[j, 0] - mutual * (s >= np.float32(0.35)) - counts[0, t]
                one4 = above[i, 1] + above[j, 1] - mutual * (s >= np.float32(0.5)) - counts[1, t]
                pair = inputs[i * n - i * (i + 1) // 2 + j - i - 1]
                pair[0] = s
                pair[1] = sums[0, t] / (norms[0, i] * norms[0, j])
                pair[2] = sums[1, t] / (norms[1, i] * norms[1, j])
                pair[3] = counts[0, t] / (one3 + 1.0)
                pair[4] = counts[1, t] / (one4 + 1.0)
                pair[5] = logs[min(mine, theirs)]
                pair[6] = logs[max(mine, theirs)]
                pair[7] = sums[2, t]
                density_inputs(i, j, s, nodes, pair)
        _clear(start, end, lists, columns)


@numba.njit(cache=True, nogil=True)
def _spread(start, end, lists, columns):  # type: ignore[no-untyped-def]
    for j in range(start, end):
        t = j - start
        columns.near[j, t] = columns.far[j, t] = np.float32(1.0)  # an image is its own nearest
        for b in range(lists.rows.shape[1]):
            x = lists.rows[j, b]
            columns.near[x, t], columns.far[x, t] = lists.weights[0, j, b], lists.weights[1, j, b]
            columns.similarity[x, t], columns.rank[x, t] = lists.similarity[j, b], lists.ranks[j, b] + 1


@numba.njit(cache=True, nogil=True)
def _clear(start, end, lists, columns):  # type: ignore[no-untyped-def]
    width = lists.rows.shape[1]
    for j in range(start, end):
        t = j - start
        columns.near[j, t] = columns.far[j, t] = np.float32(0.0)
        for b in range(width):
            x = lists.rows[j, b]
            columns.near[x, t] = columns.far[x, t] = np.float32(0.0)
            columns.similarity[x, t], columns.rank[x, t] = -np.inf, width + 1


@numba.njit(cache=True, nogil=True)
def _overlap(i, start, lists, columns, overlaps):  # type: ignore[no-untyped-def]
    """Overlap image i's list with those of the tile that starts at image `start`.

    Neighbours come by ascending row, the image itself at its place among them: the order of additions.
    """
    width, tile = lists.rows.shape[1], columns.near.shape[1]
    overlaps.sums[:2], overlaps.sums[2] = 0.0, -1.0
    overlaps.counts[:], overlaps.rank[:] = 0, width + 1
    near, far, best = overlaps.sums[0], overlaps.sums[1], overlaps.sums[2]
    strong, stronger = overlaps.counts[0], overlaps.counts[1]
    waits = True
    for a in range(width):
        x, s = lists.rows[i, a], lists.similarity[i, a]
        if waits and x > i:
            waits = False
            _add(np.float32(1.0), np.float32(1.0), columns.near[i], columns.far[i], near, far)
        theirs = columns.similarity[x]
        for t in range(tile):
            low = s if s < theirs[t] else theirs[t]
            best[t] = low if low > best[t] else best[t]
        if s >= np.float32(0.2):  # below it weights are 0
            one, other = lists.weights[0, i, a], lists.weights[1, i, a]
            _add(one, other, columns.near[x], columns.far[x], near, far)
        if s >= np.float32(0.35):
            for t in range(tile):
                strong[t] += theirs[t] >= np.float32(0.35)
        if s >= np.float32(0.5):
            for t in range(tile):
                stronger[t] += theirs[t] >= np.float32(0.5)
        if start <= x < start + tile:
            overlaps.rank[x - start] = lists.ranks[i, a] + 1
    if waits:
        _add(np.float32(1.0), np.float32(1.0), columns.near[i], columns.far[i], near, far)


@numba.njit(cache=True, nogil=True)
def _add(one, other, narrow, broad, near, far):  # type: ignore[no-untyped-def]
    for t in range(len(near)):
        near[t] += one * narrow[t]
        far[t] += other * broad[t]
