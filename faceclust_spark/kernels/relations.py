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

from faceclust_spark.kernels.nearest import NearestMembers
from faceclust_spark.kernels.readings import QUALITIES

LEVELS = (0.35, 0.45, 0.55, 0.65)  # of s, for counts of neighbours
TOPS = (1, 5, 10, 20, 40)
TEMPERATURES = (0.08, 0.2)  # of second-order similarity
NODE_INPUTS = len(TOPS) + len(LEVELS) + QUALITIES + 1
PAIR_INPUTS = 21 + 2 * QUALITIES
_RANK, _LINK = 3, 4  # place of a link's rank, behind its weights at both temperatures and its s; its width


def node_inputs(nearest: NearestMembers, size: int, qualities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Describe each image by itself and the density around it: float32 `(n, NODE_INPUTS)`.

    Means of the top 1, 5, 10, 20, 40 similarities (of those there are), log counts above LEVELS, its
    qualities (kernels.readings), log of the group's size (at most 300 counts).
    """
    inputs = np.zeros((len(nearest.similarity), NODE_INPUTS), np.float32)
    counts = np.log1p(np.arange(nearest.similarity.shape[1] + 1)).astype(np.float32)
    _density_around(nearest.similarity, np.array(TOPS), np.array(LEVELS, np.float32), counts, inputs)
    inputs[:, -1 - QUALITIES : -1] = qualities
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
    nodes: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Describe pairs by relations inside the group: float32 `(p, PAIR_INPUTS)`, symmetric in the pair.

    similarity: the pairs' own s. nodes: what `node_inputs` gives. Attributes enter by the images' qualities.
    """
    inputs = np.zeros((len(first), PAIR_INPUTS), np.float32)
    if len(first):
        _fill_inputs(first, second, similarity, *lists_by_row(nearest), nodes, inputs)
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
    """Fill in the lower and higher density and qualities of the two, and s relative to density."""
    for k in range(3):
        low, high = min(nodes[i, k], nodes[j, k]), max(nodes[i, k], nodes[j, k])
        inputs[8 + 4 * k] = low
        inputs[9 + 4 * k] = high
        inputs[10 + 4 * k] = s - low
        inputs[11 + 4 * k] = s - high
    last = nodes.shape[1] - 1
    inputs[20] = nodes[i, last]
    for k in range(QUALITIES):
        one, other = nodes[i, last - QUALITIES + k], nodes[j, last - QUALITIES + k]
        inputs[21 + 2 * k], inputs[22 + 2 * k] = min(one, other), max(one, other)


@numba.njit(cache=True, nogil=True)
def count_strong(similarity):  # type: ignore[no-untyped-def]
    """Count each image's neighbours at or above both levels of overlap: `(n, 2)`."""
    above = np.zeros((len(similarity), 2), np.int64)
    for i in range(len(similarity)):
        for s in similarity[i]:
            above[i, 0] += s >= np.float32(0.35)
            above[i, 1] += s >= np.float32(0.5)
    return above


@numba.njit(cache=True, nogil=True)
def _fill_inputs(first, second, similarity, rows, ranks, sims, nodes, inputs):  # type: ignore[no-untyped-def]
    """Fill in what two neighbour lists say of a pair; pairs with the same first image stand together at best.

    One image's list lies spread over all images while the lists of its partners are walked, by ascending row
    with the partner itself at its place: one order of additions for both ways round.
    """
    n, width = rows.shape
    links, norms = _side_by_side(sims, ranks)
    above = count_strong(sims)
    logs = np.array([np.log(max(k, 1)) for k in range(width + 2)]).astype(np.float32)
    spread = np.zeros((n, _LINK), np.float32)  # links of the first image by row
    spread[:, 2], spread[:, _RANK] = -np.inf, width + 1
    inside = np.zeros(n, np.uint8)  # 1 for the first image and those that it lists
    common = np.arange(width).astype(np.uint32)  # unsigned: no look whether an index counts from the end
    before = -1
    for p in range(len(first)):
        i, j, s = first[p], second[p], similarity[p]
        if i != before:
            if before >= 0:
                _clear(before, rows, spread, inside)
            _spread(i, rows, links, spread, inside)
            before = i
        shared = _list_common(rows[j], inside, common)
        dot0, dot1, both3, both4, third, theirs = _overlap(i, j, common[:shared], rows, links, spread)
        mine = int(spread[j, _RANK])
        mutual = (mine <= width) + (theirs <= width)  # the two themselves do not count
        one3 = above[i, 0] + above[j, 0] - mutual * (s >= np.float32(0.35)) - both3
        one4 = above[i, 1] + above[j, 1] - mutual * (s >= np.float32(0.5)) - both4
        inputs[p, 0] = s
        inputs[p, 1] = dot0 / (norms[0, i] * norms[0, j])
        inputs[p, 2] = dot1 / (norms[1, i] * norms[1, j])
        inputs[p, 3] = both3 / (one3 + 1.0)
        inputs[p, 4] = both4 / (one4 + 1.0)
        inputs[p, 5] = logs[min(mine, theirs)]
        inputs[p, 6] = logs[max(mine, theirs)]
        inputs[p, 7] = third
        density_inputs(i, j, s, nodes, inputs[p])


@numba.njit(cache=True, nogil=True)
def _side_by_side(sims, ranks):  # type: ignore[no-untyped-def]
    """Give both weights, s and rank from 1 of each link, `(n, t, 4)`, one look into memory; and lengths."""
    weights, norms = link_vectors(sims)
    n, width = sims.shape
    links = np.empty((n, width, _LINK), np.float32)
    for i in range(n):
        for k in range(width):
            links[i, k, 0], links[i, k, 1] = weights[0, i, k], weights[1, i, k]
            links[i, k, 2], links[i, k, _RANK] = sims[i, k], ranks[i, k] + 1
    return links, norms


@numba.njit(cache=True, nogil=True)
def _spread(i, rows, links, spread, inside):  # type: ignore[no-untyped-def]
    spread[i, 0] = spread[i, 1] = np.float32(1.0)  # an image is its own nearest
    inside[i] = 1
    for a in range(rows.shape[1]):
        x = rows[i, a]
        for k in range(_LINK):
            spread[x, k] = links[i, a, k]
        inside[x] = 1


@numba.njit(cache=True, nogil=True)
def _clear(i, rows, spread, inside):  # type: ignore[no-untyped-def]
    spread[i, 0] = spread[i, 1] = np.float32(0.0)
    inside[i] = 0
    for x in rows[i]:
        spread[x, 0] = spread[x, 1] = np.float32(0.0)
        spread[x, 2], spread[x, _RANK] = -np.inf, rows.shape[1] + 1
        inside[x] = 0


@numba.njit(cache=True, nogil=True)
def _list_common(listed, inside, common):  # type: ignore[no-untyped-def]
    """Collect the places of a list that hold images of the first one's, and give their number.

    Of large groups two lists share few, and the flags stay in the cache where the weights would not.
    """
    shared = np.uint64(0)
    for b in range(len(listed)):  # without a branch: each is written, and few are kept
        common[shared] = b
        shared += np.uint64(inside[np.uint32(listed[b])])
    return shared


@numba.njit(cache=True, nogil=True)
def _overlap(i, j, common, rows, links, spread):  # type: ignore[no-untyped-def]
    """Walk what j's list shares: sums of products, strong ones, the best in common, and the rank of i."""
    dot0, dot1, third = np.float32(0.0), np.float32(0.0), np.float32(-1.0)
    both3, both4, rank = 0, 0, rows.shape[1] + 1
    waits = True
    for b in common:
        x = np.uint32(rows[j, b])
        if waits and x > j:
            waits = False
            dot0 += spread[j, 0]
            dot1 += spread[j, 1]
        if x == i:
            rank = int(links[j, b, _RANK])
        dot0 += spread[x, 0] * links[j, b, 0]
        dot1 += spread[x, 1] * links[j, b, 1]
        low = min(spread[x, 2], links[j, b, 2])
        both3 += low >= np.float32(0.35)
        both4 += low >= np.float32(0.5)
        third = max(third, low)
    if waits:
        dot0 += spread[j, 0]
        dot1 += spread[j, 1]
    return dot0, dot1, both3, both4, third, rank
