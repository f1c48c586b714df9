"""What a model that serves any embedding sees of a group: relations between its images, no features.

All of them come from the nearest members of each image inside the root group and from the pair itself,
so a group is described by itself alone. Cosines are standardised first, s = (cosine - m) / sd * 0.1 with
centre and spread of the gallery's random pairs, because cosine scales differ between embedding models.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.grid import cosine_matrix

# Members listed for each image: nearly always the whole group. Lists of 64 hardly overlapped where a person
# had 500 images, and the person came apart.
NEAREST = 256
BLOCK = 1_024
LEVELS = (0.35, 0.45, 0.55, 0.65)  # of s, for counts of neighbours
TOPS = (1, 5, 10, 20, 40)
TEMPERATURES = (0.08, 0.2)  # of second-order similarity
NODE_INPUTS = len(TOPS) + len(LEVELS) + 1
FACE_INPUTS = 21
ATTRIBUTE_INPUTS = 6
PAIR_INPUTS = FACE_INPUTS + ATTRIBUTE_INPUTS


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
    count = len(vectors)
    width = min(NEAREST, max(count - 1, 0))
    rows = np.empty((count, width), np.int32)
    similarity = np.empty((count, width), np.float32)
    for start in range(0, count, BLOCK):
        block = cosine_matrix(vectors[start : start + BLOCK], vectors)
        _take_nearest(block, start, rows[start : start + BLOCK], similarity[start : start + BLOCK])
    return NearestMembers(rows, standardise(similarity, scale))


def nearest_by_matrix(cosines: NDArray[np.float32], scale: Scale) -> NearestMembers:
    """Find what `nearest_members` finds, from the cosines of each image with each, `(n, n)`."""
    width = min(NEAREST, max(len(cosines) - 1, 0))
    rows = np.empty((len(cosines), width), np.int32)
    similarity = np.empty((len(cosines), width), np.float32)
    _take_nearest(cosines, 0, rows, similarity)
    return NearestMembers(rows, standardise(similarity, scale))


def node_inputs(nearest: NearestMembers, size: int) -> NDArray[np.float32]:
    """Describe each image by the density around it: float32 `(n, NODE_INPUTS)`.

    Means of the top 1, 5, 10, 20, 40 similarities (of those there are), log counts above LEVELS, log
    of the group's size (at most 300 counts).
    """
    inputs = np.zeros((len(nearest.similarity), NODE_INPUTS), np.float32)
    counts = np.log1p(np.arange(nearest.similarity.shape[1] + 1)).astype(np.float32)
    _density_around(nearest.similarity, np.array(TOPS), np.array(LEVELS, np.float32), counts, inputs)
    inputs[:, -1] = np.log1p(min(size, 300)) / 3
    return inputs


@numba.njit(cache=True, nogil=True)
def _density_around(similarity, tops, levels, counts, inputs):  # type: ignore[no-untyped-def]
    """Fill in the means of the tops and the logarithms (by `counts`) of the numbers above the levels."""
    n, width = similarity.shape
    for i in range(n if width else 0):
        total, taken = np.float32(0.0), 0
        for place in range(len(tops)):
            top = min(tops[place], width)
            while taken < top:
                total += similarity[i, taken]
                taken += 1
            inputs[i, place] = total / np.float32(top)
        for place in range(len(levels)):
            above = 0
            while above < width and similarity[i, above] >= levels[place]:  # nearest first
                above += 1
            inputs[i, len(tops) + place] = counts[above]


def pair_inputs(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    similarity: NDArray[np.float32],
    nearest: NearestMembers,
    attributes: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Describe pairs by relations inside the group: float32 `(p, PAIR_INPUTS)`, symmetric in the pair.

    similarity: the pairs' own s. attributes: standardised `(n, a)`, NaN where missing; they enter by
    measures that do not depend on which there are or on their order. One that is 0 wherever it is known
    is constant in the whole gallery: it would dilute the differences of the others, so it is left out.
    """
    inputs = np.zeros((len(first), PAIR_INPUTS), np.float32)
    if not len(first):
        return inputs
    nodes = node_inputs(nearest, len(nearest.rows))
    _face_inputs(first, second, similarity, *lists_by_row(nearest), nodes, inputs)
    telling = telling_attributes(attributes)
    if telling.shape[1]:
        _attribute_inputs(first, second, telling, inputs)
    return inputs


class ListsByRow(NamedTuple):
    """The nearest members of each image by ascending row. All `(n, t)`; ranks count from 0."""

    rows: NDArray[np.int32]
    ranks: NDArray[np.int32]
    similarity: NDArray[np.float32]


def lists_by_row(nearest: NearestMembers) -> ListsByRow:
    """Sort each image's nearest members by row, so that two lists can be walked side by side."""
    order = np.argsort(nearest.rows, axis=1, kind="stable")
    return ListsByRow(
        np.take_along_axis(nearest.rows, order, 1),
        order.astype(np.int32),
        np.take_along_axis(nearest.similarity, order, 1),
    )


def telling_attributes(attributes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Leave out attributes that are 0 or missing everywhere. Shapes: `(n, a)` to `(n, b)`, b <= a."""
    told = ((attributes != 0) & ~np.isnan(attributes)).any(axis=0)
    return np.ascontiguousarray(attributes[:, told], np.float32)


@numba.njit(cache=True, nogil=True)
def _take_nearest(block, start, rows, similarity):  # type: ignore[no-untyped-def]
    """Keep the largest of each row, by insertion into a sorted list; the row's own column is left out."""
    width = rows.shape[1]
    for i in range(block.shape[0]):
        filled = 0
        for j in range(block.shape[1]):
            if j == start + i:
                continue
            value = block[i, j]
            if filled == width and value <= similarity[i, width - 1]:
                continue
            place = filled if filled < width else width - 1
            while place > 0 and similarity[i, place - 1] < value:
                similarity[i, place] = similarity[i, place - 1]
                rows[i, place] = rows[i, place - 1]
                place -= 1
            similarity[i, place] = value
            rows[i, place] = j
            if filled < width:
                filled += 1


@numba.njit(cache=True, nogil=True)
def link_vectors(sims):  # type: ignore[no-untyped-def]
    """Give, at both temperatures, the weights of each image's neighbours and the length of the whole."""
    n, width = sims.shape
    weights = np.empty((2, n, width), np.float32)
    norms = np.empty((2, n), np.float32)
    for t in range(2):
        temperature = np.float32(0.08) if t == 0 else np.float32(0.2)
        for i in range(n):
            total = np.float32(1.0)  # the image itself
            for k in range(width):
                w = np.exp((min(sims[i, k], np.float32(1.0)) - np.float32(1.0)) / temperature)
                if sims[i, k] < np.float32(0.2):
                    w = np.float32(0.0)
                weights[t, i, k] = w
                total += w * w
            norms[t, i] = np.sqrt(total)
    return weights, norms


@numba.njit(cache=True, nogil=True)
def density_inputs(i, j, s, nodes, inputs):  # type: ignore[no-untyped-def]
    """Fill in the lower and higher density of the two, and the pair's similarity relative to each."""
    for k in range(3):
        low, high = min(nodes[i, k], nodes[j, k]), max(nodes[i, k], nodes[j, k])
        inputs[8 + 4 * k] = low
        inputs[9 + 4 * k] = high
        inputs[10 + 4 * k] = s - low
        inputs[11 + 4 * k] = s - high
    inputs[20] = nodes[i, nodes.shape[1] - 1]


@numba.njit(cache=True, nogil=True)
def _face_inputs(first, second, similarity, rows, ranks, sims, nodes, inputs):  # type: ignore[no-untyped-def]
    n, width = rows.shape
    weights, norms = link_vectors(sims)
    for p in range(len(first)):
        i, j, s = first[p], second[p], similarity[p]
        dot0, dot1 = np.float32(0.0), np.float32(0.0)
        both3, both4, one3, one4 = 0, 0, 0, 0
        a, b = 0, 0
        rank_ij, rank_ji = width + 1, width + 1
        third = np.float32(-1.0)
        while a < width or b < width:
            x = rows[i, a] if a < width else n
            y = rows[j, b] if b < width else n
            if x == j:
                rank_ij = ranks[i, a] + 1
                dot0 += weights[0, i, a]
                dot1 += weights[1, i, a]
                a += 1
                continue
            if y == i:
                rank_ji = ranks[j, b] + 1
                dot0 += weights[0, j, b]
                dot1 += weights[1, j, b]
                b += 1
                continue
            if x == y:
                dot0 += weights[0, i, a] * weights[0, j, b]
                dot1 += weights[1, i, a] * weights[1, j, b]
                low, high = min(sims[i, a], sims[j, b]), max(sims[i, a], sims[j, b])
                both3 += low >= np.float32(0.35)
                both4 += low >= np.float32(0.5)
                one3 += high >= np.float32(0.35)
                one4 += high >= np.float32(0.5)
                third = max(third, low)
                a, b = a + 1, b + 1
            elif x < y:
                one3 += sims[i, a] >= np.float32(0.35)
                one4 += sims[i, a] >= np.float32(0.5)
                a += 1
            else:
                one3 += sims[j, b] >= np.float32(0.35)
                one4 += sims[j, b] >= np.float32(0.5)
                b += 1
        inputs[p, 0] = s
        inputs[p, 1] = dot0 / (norms[0, i] * norms[0, j])
        inputs[p, 2] = dot1 / (norms[1, i] * norms[1, j])
        inputs[p, 3] = both3 / (one3 + 1.0)
        inputs[p, 4] = both4 / (one4 + 1.0)
        inputs[p, 5] = np.log(min(rank_ij, rank_ji))
        inputs[p, 6] = np.log(max(rank_ij, rank_ji))
        inputs[p, 7] = third
        density_inputs(i, j, s, nodes, inputs[p])


@numba.njit(cache=True, nogil=True)
def _attribute_inputs(first, second, attributes, inputs):  # type: ignore[no-untyped-def]
    """Cosine, mean, root mean square, median and 80 % quantile of differences, and a presence flag."""
    width = attributes.shape[1]
    differences = np.empty(width, np.float32)
    for p in range(len(first)):
        i, j = first[p], second[p]
        count = 0
        dot, own_i, own_j = np.float32(0), np.float32(0), np.float32(0)
        total, squares = np.float32(0), np.float32(0)
        for k in range(width):
            x, y = attributes[i, k], attributes[j, k]
            if np.isnan(x) or np.isnan(y):
                continue
            dot += x * y
            own_i += x * x
            own_j += y * y
            gap = min(abs(x - y), np.float32(6.0))
            total += gap
            squares += gap * gap
            differences[count] = gap
            count += 1
        if count == 0:
            continue
        gaps = np.sort(differences[:count])
        at = inputs.shape[1] - 6
        if own_i > 0 and own_j > 0:
            inputs[p, at] = dot / np.sqrt(own_i * own_j)
        inputs[p, at + 1] = total / count
        inputs[p, at + 2] = np.sqrt(squares / count)
        inputs[p, at + 3] = gaps[count // 2]
        inputs[p, at + 4] = gaps[min(count - 1, (count * 4) // 5)]
        inputs[p, at + 5] = 1.0
