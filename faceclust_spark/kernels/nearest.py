"""The nearest other members of each image of a group, by exact cosines."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.grid import cosine_of_one
from faceclust_spark.kernels.norms import NormScale
from faceclust_spark.kernels.readings import AttributeWeights

# Members listed for each image: nearly always the whole group. Lists of 64 hardly overlapped where a person
# had 500 images, and the person came apart.
NEAREST = 256
BLOCK = 1_024  # rows of dot products at once
_PRODUCTS = 1 << 26  # at once at most, 256 MB: fewer rows of the largest groups
# In groups of these sizes each pair is multiplied once for both of its images, which hold what reaches their
# bounds: 6 KB an image, so that larger groups are done by rows.
LARGE, LARGEST = 4_096, 1 << 17
_LANES = 16  # values that are compared at once
_SAMPLED, _RANK, _HELD = 16, 32, 768  # every 16th member tells a bound that some 512 members reach


class Scale(NamedTuple):
    """What a gallery's images are measured by (kernels.thresholds).

    Centre and spread of the cosines of random pairs, those of norms, and the weights of attributes.
    """

    mean: float
    standard_deviation: float
    norms: NormScale = NormScale()
    attributes: AttributeWeights = AttributeWeights()


class NearestMembers(NamedTuple):
    """The nearest other members of each image, nearest first."""

    rows: NDArray[np.int32]  # (n, t)
    similarity: NDArray[np.float32]  # (n, t) standardised


def standardise(cosines: NDArray[np.float32], scale: Scale) -> NDArray[np.float32]:
    """Give s = (cosine - mean) / standard deviation * 0.1, float32; 0.1 keeps the range of cosines."""
    factor = np.float32(0.1 / scale.standard_deviation)
    return (cosines - np.float32(scale.mean)) * factor


def nearest_members(vectors: NDArray[np.int16], scale: Scale) -> NearestMembers:
    """Find each image's NEAREST other members, exactly; ties by the smaller row.

    Shapes: `(n, d)` to `(n, min(NEAREST, n - 1))`.
    """
    wide, step = vectors.astype(np.float32), cosine_of_one(vectors.shape[1])
    found = _room(len(wide), len(wide))
    is_large = LARGE <= len(wide) <= LARGEST
    left = _take_nearest_of_many(wide, step, *found) if is_large else np.arange(len(wide))
    height = max(1, min(BLOCK, len(left), _PRODUCTS // max(len(wide), 1)))
    spare = np.empty((height, len(wide)), np.float32)
    for start in range(0, len(left), height):
        own = left[start : start + height]
        block = _room(len(own), len(wide))
        _take_nearest(wide[own] @ wide.T, own, step, *block, spare)
        for everyone, part in zip(found, block, strict=True):
            everyone[own] = part
    return NearestMembers(found[0], standardise(found[1], scale))


def nearest_by_matrix(cosines: NDArray[np.float32], scale: Scale) -> NearestMembers:
    """Find what `nearest_members` finds, from the cosines of each image with each, `(n, n)`."""
    rows, found = _room(len(cosines), len(cosines))
    everyone = np.arange(len(cosines))
    _take_nearest(cosines.copy(), everyone, np.float32(1.0), rows, found, np.empty_like(cosines))
    return NearestMembers(rows, standardise(found, scale))


def _room(rows: int, columns: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    width = min(NEAREST, max(columns - 1, 0))
    return np.empty((rows, width), np.int32), np.empty((rows, width), np.float32)


def _take_nearest(
    dots: NDArray[np.float32],
    own: NDArray[np.int64],
    step: np.float32,
    rows: NDArray[np.int32],
    found: NDArray[np.float32],
    spare: NDArray[np.float32],
) -> None:
    """Fill in the columns of the largest of each row, and these times `step`, nearest first.

    own: the column of each row, which is left out, and overwritten. spare: at least of the shape of dots.
    """
    if not rows.shape[1]:
        return
    dots[np.arange(len(dots)), own] = -np.inf
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


def _take_nearest_of_many(
    wide: NDArray[np.float32], step: np.float32, rows: NDArray[np.int32], found: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Fill in the nearest of a large group, as `_take_nearest` does, and give the images that it left out.

    A bound is the _RANK-th largest cosine to a sample, so that about _RANK * _SAMPLED members reach it. Left
    out are images of which fewer than are asked for do, or more than there is room for.
    """
    held = np.empty((len(wide), _HELD), np.int32)
    values = np.empty((len(wide), _HELD), np.float32)
    counts = np.zeros(len(wide), np.int32)
    starts = range(0, len(wide), BLOCK)
    sample = wide[::_SAMPLED].T
    bounds = np.concatenate([_bounds(wide[start : start + BLOCK] @ sample, step) for start in starts])
    for first in starts:
        for second in starts[first // BLOCK :]:
            dots = wide[first : first + BLOCK] @ wide[second : second + BLOCK].T
            _hold(dots, step, first, second, bounds, held, values, counts)
    known = (counts >= rows.shape[1]) & (counts <= _HELD)
    _sort_held(held, values, counts, known, rows, found)
    return np.flatnonzero(~known)


def _bounds(dots: NDArray[np.float32], step: np.float32) -> NDArray[np.float32]:
    dots.partition(dots.shape[1] - _RANK, axis=1)
    return step * dots[:, dots.shape[1] - _RANK]


@numba.njit(cache=True, nogil=True)
def _hold(dots, step, first, second, bounds, held, values, counts):  # type: ignore[no-untyped-def]
    """Hold the pairs above the diagonal for each of their images whose bound they reach.

    With blocks and rows in their order, what an image holds is in the order of columns.
    """
    width = dots.shape[1]
    least = bounds[second : second + width].copy()
    near = np.empty(width, np.int32)
    for i in range(len(dots)):
        one = first + i
        own, row = bounds[one], dots[i]
        count, below = np.uint64(0), one + 1 - second
        for low in range(max(0, below // _LANES * _LANES), width, _LANES):
            high = min(low + _LANES, width)
            hits = high - low < _LANES
            if not hits:
                for lane in range(_LANES):  # a number known when compiled: one instruction does it
                    value = row[low + lane] * step
                    hits |= (value >= own) | (value >= least[low + lane])
            if hits:
                for j in range(low, high):  # without a branch: each is written, and few are kept
                    value = row[j] * step
                    near[count] = j
                    count += np.uint64(((value >= own) | (value >= least[j])) & (j >= below))
        mine = counts[one]
        for k in range(count):
            j = near[k]
            value, other = row[j] * step, second + j
            if value >= own:
                if mine < held.shape[1]:
                    held[one, mine], values[one, mine] = other, value
                mine += 1
            if value >= least[j]:
                theirs = counts[other]
                if theirs < held.shape[1]:
                    held[other, theirs], values[other, theirs] = one, value
                counts[other] = theirs + 1
        counts[one] = mine


@numba.njit(cache=True, nogil=True)
def _sort_held(held, values, counts, known, rows, found):  # type: ignore[no-untyped-def]
    """Sort what an image holds, nearest first; equal cosines stay in the order of columns."""
    width = rows.shape[1]
    for i in range(len(rows)):
        if not known[i]:
            continue
        own = values[i, : counts[i]]
        least = np.partition(own, len(own) - width)[len(own) - width]
        kept = np.flatnonzero(own >= least)
        order = kept[np.argsort(-own[kept], kind="mergesort")]
        for place in range(width):
            found[i, place], rows[i, place] = own[order[place]], held[i, order[place]]
