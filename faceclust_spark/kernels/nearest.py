"""The nearest other members of each image of a group, by exact cosines."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.grid import cosine_of_one

# Members listed for each image: nearly always the whole group. Lists of 64 hardly overlapped where a person
# had 500 images, and the person came apart.
NEAREST = 256
BLOCK = 1_024  # rows of dot products at once
_PRODUCTS = 1 << 26  # at once at most, 256 MB: fewer rows of the largest groups


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
    """Find each image's NEAREST other members, exactly; ties by the smaller row. In blocks of rows.

    Shapes: `(n, d)` to `(n, min(NEAREST, n - 1))`.
    """
    wide, step = vectors.astype(np.float32), cosine_of_one(vectors.shape[1])
    count = len(vectors)
    rows, cosines = _room(count, count)
    height = max(1, min(BLOCK, count, _PRODUCTS // max(count, 1)))
    dots = np.empty((height, count), np.float32)
    spare = np.empty_like(dots)
    for start in range(0, count, height):
        own = slice(start, start + height)
        block = np.matmul(wide[own], wide.T, out=dots[: len(wide[own])])
        _take_nearest(block, start, step, rows[own], cosines[own], spare)
    return NearestMembers(rows, standardise(cosines, scale))


def nearest_by_matrix(cosines: NDArray[np.float32], scale: Scale) -> NearestMembers:
    """Find what `nearest_members` finds, from the cosines of each image with each, `(n, n)`."""
    rows, found = _room(len(cosines), len(cosines))
    _take_nearest(cosines.copy(), 0, np.float32(1.0), rows, found, np.empty_like(cosines))
    return NearestMembers(rows, standardise(found, scale))


def _room(rows: int, columns: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    width = min(NEAREST, max(columns - 1, 0))
    return np.empty((rows, width), np.int32), np.empty((rows, width), np.float32)


def _take_nearest(
    dots: NDArray[np.float32],
    start: int,
    step: np.float32,
    rows: NDArray[np.int32],
    found: NDArray[np.float32],
    spare: NDArray[np.float32],
) -> None:
    """Fill in the columns of the largest of each row, and these times `step`, nearest first.

    Rows are those from `start`; their own columns are left out, and overwritten. spare: of the shape of dots.
    """
    if not rows.shape[1]:
        return
    dots[np.arange(len(dots)), np.arange(start, start + len(dots))] = -np.inf
    place = dots.shape[1] - rows.shape[1]
    parted = spare[: len(dots)]
    parted[:] = dots
    parted.partition(place, axis=1)
    _sort_nearest(dots, step * parted[:, place], step, rows, found)


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
