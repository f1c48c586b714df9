"""The nearest other members of each image of a group; in very large groups, among those around it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import CellsConfig
from faceclust_spark.kernels.cells import FLAT_TRAINED, probe_cells, train_cells
from faceclust_spark.kernels.grid import cosine_of_one

# Members listed for each image: nearly always the whole group. Lists of 64 hardly overlapped where a person
# had 500 images, and the person came apart.
NEAREST = 256
BLOCK = 1_024  # rows of dot products at once
_PRODUCTS = 1 << 26  # at once at most, 256 MB: fewer rows of the largest groups
EXACT_UP_TO = 20_000  # members of a group; beyond, an image is compared with those of the cells around it
LEAST_SEEN = 4_096  # members that an image of such a group is compared with, or a few more
_CELL = 512  # members, on average


class Scale(NamedTuple):
    """Centre and spread of the cosines of a gallery's random pairs (kernels.thresholds)."""

    mean: float
    standard_deviation: float


class NearestMembers(NamedTuple):
    """The nearest other members of each image, nearest first; unused places hold row -1 and s 0."""

    rows: NDArray[np.int32]  # (n, t)
    similarity: NDArray[np.float32]  # (n, t) standardised


def standardise(cosines: NDArray[np.float32], scale: Scale) -> NDArray[np.float32]:
    """Give s = (cosine - mean) / standard deviation * 0.1, float32; 0.1 keeps the range of cosines."""
    factor = np.float32(0.1 / scale.standard_deviation)
    return (cosines - np.float32(scale.mean)) * factor


def nearest_members(vectors: NDArray[np.int16], scale: Scale) -> NearestMembers:
    """Find each image's NEAREST other members; ties by the smaller row.

    Exactly, up to EXACT_UP_TO members. Beyond, those among the members of the cells nearest to its own cell,
    LEAST_SEEN or more, so that the work of an image does not grow with the group.

    Shapes: `(n, d)` to `(n, min(NEAREST, n - 1))`.
    """
    wide, step = vectors.astype(np.float32), cosine_of_one(vectors.shape[1])
    rows, cosines = _room(len(vectors))
    for own, seen in _who_sees_whom(vectors):
        others = wide[seen].T
        height = max(1, min(BLOCK, len(own), _PRODUCTS // len(seen)))
        dots, spare = np.empty((2, height, len(seen)), np.float32)
        for start in range(0, len(own), height):
            some = own[start : start + height]
            block = np.matmul(wide[some], others, out=dots[: len(some)])
            columns, cosines[some] = _take_nearest(block, np.searchsorted(seen, some), step, spare)
            rows[some] = seen[columns]
    return NearestMembers(rows, standardise(cosines, scale))


def nearest_by_matrix(cosines: NDArray[np.float32], scale: Scale) -> NearestMembers:
    """Find what `nearest_members` finds, from the cosines of each image with each, `(n, n)`."""
    own, spare = np.arange(len(cosines)), np.empty_like(cosines)
    columns, found = _take_nearest(cosines.copy(), own, np.float32(1.0), spare)
    return NearestMembers(columns, standardise(found, scale))


def _who_sees_whom(vectors: NDArray[np.int16]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Divide the rows; for each part also those it is compared with, itself among them. All ascending."""
    everyone = np.arange(len(vectors))
    if len(vectors) > EXACT_UP_TO:
        yield from _around_cells(vectors)
    elif len(vectors):
        yield everyone, everyone


def _around_cells(vectors: NDArray[np.int16]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Give the members of each k-means cell, and those of the cells nearest to it, LEAST_SEEN or more."""
    count = min(len(vectors) // _CELL, FLAT_TRAINED)
    config = CellsConfig(cells=count)
    sample = vectors[: count * config.sample_per_cell]  # rows stand by hashes: as good as drawn
    cells = train_cells(sample, len(vectors), config)
    home = probe_cells(vectors, cells, 1)[:, 0]
    sizes = np.bincount(home, minlength=len(cells.centroids))
    members = np.split(np.argsort(home, kind="stable"), np.cumsum(sizes)[:-1])
    nearest = probe_cells(cells.centroids, cells, len(sizes))
    for cell in np.flatnonzero(sizes).tolist():
        order = np.append(cell, nearest[cell][nearest[cell] != cell])
        enough = 1 + int(np.searchsorted(np.cumsum(sizes[order]), LEAST_SEEN))
        yield members[cell], np.sort(np.concatenate([members[other] for other in order[:enough]]))


def _room(count: int, columns: int | None = None) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Give room for the lists of some rows among so many columns, their own included; all, by default."""
    width = min(NEAREST, max((count if columns is None else columns) - 1, 0))
    return np.empty((count, width), np.int32), np.empty((count, width), np.float32)


def _take_nearest(
    dots: NDArray[np.float32], own: NDArray[np.int64], step: np.float32, spare: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Give the columns of the largest of each row, and these times `step`, nearest first.

    own: each row's own column, which is left out, and overwritten. spare: of the shape of dots, or larger.
    """
    columns, found = _room(*dots.shape)
    if not columns.shape[1]:
        return columns, found
    dots[np.arange(len(dots)), own] = -np.inf
    place = dots.shape[1] - columns.shape[1]
    parted = spare[: len(dots)]
    parted[:] = dots
    parted.partition(place, axis=1)
    _sort_nearest(dots, step * parted[:, place], step, columns, found)
    return columns, found


@numba.njit(cache=True, nogil=True)
def _sort_nearest(dots, least, step, rows, found):  # type: ignore[no-untyped-def]
    """Sort those of each row that reach its least; equal cosines, also of dots that differ, by column."""
    values, columns = np.empty(dots.shape[1], np.float32), np.empty(dots.shape[1], np.int32)
    for i in range(len(dots)):
        count = 0
        for low in range(0, dots.shape[1], 32):
            high = min(low + 32, dots.shape[1])
            hits = 0
            for j in range(low, high):
                hits += dots[i, j] * step >= least[i]
            if hits == 0:
                continue
            for j in range(low, high):
                value = dots[i, j] * step
                if value >= least[i]:
                    values[count], columns[count] = value, j
                    count += 1
        order = np.argsort(-values[:count], kind="mergesort")  # stable: ties keep their order
        for place in range(rows.shape[1]):
            found[i, place], rows[i, place] = values[order[place]], columns[order[place]]
