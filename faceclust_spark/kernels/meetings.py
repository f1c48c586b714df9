"""What a round sees where a small cluster, the visitor, meets a larger one, the host.

Relations only, as in `relations`: standardised cosines between their images, each measured against how the
host's own images resemble each other. Sums run in one order over exact cosines, so the inputs of a meeting
do not depend on the others that it is described with. Beside them stands what kind of gallery it is: where
nearly every image has company, one that is alone more likely belongs to somebody than among many strangers.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.grid import grid_scale
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.readings import QUALITIES, describe_qualities

SAMPLE = 64  # images of a cluster that a meeting looks at: those with the smallest face ids
FACE_INPUTS = 24
HOST_INPUTS = 2  # the visitor's rank among the host's visitors, and their number
GALLERY_INPUTS = 4
QUALITY_INPUTS = 2 * QUALITIES  # means of the visitor's images and of the host's
RANKED = (0, 1, 3, 4, 9)  # inputs by which a visitor's hosts are ranked: centroid, mean, top 3, top 5, bests
MEETING_INPUTS = FACE_INPUTS + HOST_INPUTS + GALLERY_INPUTS + QUALITY_INPUTS + 2 * len(RANKED)
LARGE = 10  # images of a cluster that a census counts as large
_MANY = 10_000  # clusters of the largest galleries that were learned from: more count as so many
_LONE_MARGIN = 0.3  # of the only host: s to a runner-up that nobody met


class Clusters(NamedTuple):
    """Some clusters with a sample of their images, cluster after cluster, each by ascending face id."""

    starts: NDArray[np.int64]  # (c + 1,) where the images of each cluster start
    sizes: NDArray[np.int64]  # (c,) of the whole cluster
    vectors: NDArray[np.int16]  # (m, d) on the grid
    attributes: NDArray[np.float32]  # (m, a) standardised, NaN = missing; a may be 0
    norms: NDArray[np.float32]  # (m,) of the raw embeddings; NaN: unknown


class Meetings(NamedTuple):
    """Pairs of clusters, by their places, and the neighbour links from the visitor to the host."""

    visitor: NDArray[np.int64]  # (p,)
    host: NDArray[np.int64]  # (p,)
    links: NDArray[np.int64]  # (p,) how many


class Census(NamedTuple):
    """The clusters of a whole gallery before a round, counted."""

    faces: int
    clusters: int
    alone: int  # clusters of one image
    in_large: int  # images in clusters of LARGE or more


def take_census(sizes: NDArray[np.int64]) -> Census:
    """Count clusters, `(c,)` images each."""
    large = sizes[sizes >= LARGE]
    return Census(int(sizes.sum()), len(sizes), int((sizes == 1).sum()), int(large.sum()))


def meeting_inputs(
    clusters: Clusters, meetings: Meetings, scale: Scale, census: Census
) -> NDArray[np.float32]:
    """Describe meetings; all those of a host are among them. float32 `(p, MEETING_INPUTS)`.

    census: of the whole gallery. What compares a visitor's hosts is left 0 here: see `rank_hosts`.
    """
    inputs = np.zeros((len(meetings.visitor), MEETING_INPUTS), np.float32)
    if not len(inputs):
        return inputs
    factor = np.array(
        [1.0 / grid_scale(clusters.vectors.shape[1]) ** 2, scale.mean, 0.1 / scale.standard_deviation]
    )
    wide = clusters.vectors.astype(np.int32)
    means, bests, coherence = _look_inside(clusters.starts, wide, factor)
    _face_inputs(clusters, wide, meetings, factor, means, bests, coherence, inputs)
    _rank_visitors(meetings, inputs)
    at = FACE_INPUTS + HOST_INPUTS
    inputs[:, at : at + GALLERY_INPUTS] = _gallery_inputs(census)
    at += GALLERY_INPUTS
    qualities = _typical_qualities(clusters, scale)
    inputs[:, at : at + QUALITIES] = qualities[meetings.visitor]
    inputs[:, at + QUALITIES : at + QUALITY_INPUTS] = qualities[meetings.host]
    return inputs


def _typical_qualities(clusters: Clusters, scale: Scale) -> NDArray[np.float64]:
    """Give the means of the qualities of each cluster's images: `(c, QUALITIES)`."""
    qualities = describe_qualities(clusters.norms, clusters.attributes, scale.norms, scale.attributes)
    typical: NDArray[np.float64] = _means(clusters.starts, qualities)
    return typical


@numba.njit(cache=True, nogil=True)
def _means(starts, values):  # type: ignore[no-untyped-def]
    """Give the mean of each cluster's rows, added up in their order."""
    means = np.zeros((len(starts) - 1, values.shape[1]))
    for c in range(len(means)):
        for i in range(starts[c], starts[c + 1]):
            means[c] += values[i]
        means[c] /= starts[c + 1] - starts[c]
    return means


def _gallery_inputs(census: Census) -> NDArray[np.float32]:
    """Logarithm of the clusters, share of images alone, log of the mean size, share in large clusters."""
    return np.array(
        [
            np.log(min(census.clusters, _MANY)),
            census.alone / census.faces,
            np.log(census.faces / census.clusters),
            census.in_large / census.faces,
        ],
        np.float32,
    )


def rank_hosts(visitor: NDArray[np.int64], host: NDArray[np.int64], inputs: NDArray[np.float32]) -> None:
    """Fill in how each host of a visitor stands among all of them: its rank, and its margin in s.

    The margin is towards the best of the others. host: decides ties, the smaller first. In place.
    """
    at = MEETING_INPUTS - 2 * len(RANKED)
    for number, column in enumerate(RANKED):
        order = np.lexsort((host, -inputs[:, column], visitor))
        places = places_in_runs(visitor[order])
        own, first = inputs[order, column], places == 0
        best = own[np.maximum.accumulate(np.where(first, np.arange(len(own)), 0))]
        follows = np.append(~first[1:], False)  # somebody stands behind
        second = np.where(follows, np.append(own[1:], np.float32(0)), own - np.float32(_LONE_MARGIN))
        inputs[order, at + 2 * number] = np.log1p(places)
        inputs[order, at + 2 * number + 1] = own - np.where(first, second, best)


def _rank_visitors(meetings: Meetings, inputs: NDArray[np.float32]) -> None:
    """Fill in the rank of each visitor among its host's, by the mean of the top 5, and their number."""
    at = FACE_INPUTS
    order = np.lexsort((-inputs[:, 4], meetings.host))
    ordered = inputs[order, 4]
    places = places_in_runs(meetings.host[order])
    # Equals share the better place, so that no order of visitors matters.
    fresh = (places == 0) | np.append(True, ordered[1:] != ordered[:-1])
    shared = places[np.maximum.accumulate(np.where(fresh, np.arange(len(places)), 0))]
    inputs[order, at] = np.log1p(shared)
    _, inverse, counts = np.unique(meetings.host, return_inverse=True, return_counts=True)
    inputs[:, at + 1] = np.log1p(counts[inverse])


def places_in_runs(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the rows of each run of equal keys from 0."""
    rows = np.arange(len(keys))
    first = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    return rows - np.maximum.accumulate(np.where(first, rows, 0))


@numba.njit(cache=True, nogil=True)
def _similarity(one, other, factor):  # type: ignore[no-untyped-def]
    dot = np.int32(0)
    for k in range(len(one)):
        dot += one[k] * other[k]
    return (dot * factor[0] - factor[1]) * factor[2]


@numba.njit(cache=True, nogil=True)
def _look_inside(starts, vectors, factor):  # type: ignore[no-untyped-def]
    """Give each image's mean and best s to its cluster's others, both sorted, and each cluster's mean."""
    means, bests = np.zeros(starts[-1]), np.zeros(starts[-1])
    coherence = np.zeros(len(starts) - 1)
    for c in range(len(starts) - 1):
        low, high = starts[c], starts[c + 1]
        size = high - low
        if size < 2:
            continue
        bests[low:high] = -10.0
        for i in range(low, high):
            for j in range(i + 1, high):
                s = _similarity(vectors[i], vectors[j], factor)
                means[i] += s
                means[j] += s
                bests[i], bests[j] = max(bests[i], s), max(bests[j], s)
        for i in range(low, high):
            means[i] /= size - 1
            coherence[c] += means[i]
        coherence[c] /= size
        means[low:high] = np.sort(means[low:high])
        bests[low:high] = np.sort(bests[low:high])
    return means, bests, coherence


@numba.njit(cache=True, nogil=True)
def _sum_rows(vectors, low, high, total):  # type: ignore[no-untyped-def]
    total[:] = 0
    for i in range(low, high):
        for k in range(len(total)):
            total[k] += vectors[i, k]


@numba.njit(cache=True, nogil=True)
def _sums_similarity(a, b, factor):  # type: ignore[no-untyped-def]
    """Give the similarity of two centroids, from the sums of their images."""
    dot, one, other = 0.0, 0.0, 0.0
    for k in range(len(a)):
        x, y = float(a[k]), float(b[k])
        dot += x * y
        one += x * x
        other += y * y
    return (dot / np.sqrt(one * other) - factor[1]) * factor[2]


@numba.njit(cache=True, nogil=True)
def _face_inputs(clusters, vectors, meetings, factor, means, bests, coherence, inputs):  # type: ignore[no-untyped-def]
    starts, sizes = clusters.starts, clusters.sizes
    own, others = np.empty(vectors.shape[1], np.int64), np.empty(vectors.shape[1], np.int64)
    for p in range(len(meetings.visitor)):
        a, b = meetings.visitor[p], meetings.host[p]
        a0, a1, b0, b1 = starts[a], starts[a + 1], starts[b], starts[b + 1]
        count = (a1 - a0) * (b1 - b0)
        pairs = np.empty(count)
        total, best_total, worst_best = 0.0, 0.0, 10.0
        place = 0
        for i in range(a0, a1):
            best = -10.0
            for j in range(b0, b1):
                s = _similarity(vectors[i], vectors[j], factor)
                pairs[place] = s
                place += 1
                total += s
                best = max(best, s)
            best_total += best
            worst_best = min(worst_best, best)
        pairs = np.sort(pairs)[::-1]
        mean, best_mean = total / count, best_total / (a1 - a0)
        row = inputs[p]
        _sum_rows(vectors, a0, a1, own)
        _sum_rows(vectors, b0, b1, others)
        row[0] = _sums_similarity(own, others, factor)
        row[1], row[2] = mean, pairs[0]
        row[3], row[4], row[5] = pairs[:3].mean(), pairs[:5].mean(), pairs[:10].mean()
        for q in range(3):
            row[6 + q] = pairs[((q + 1) * (count - 1)) // 4]
        row[9], row[10] = best_mean, worst_best
        row[11], row[12] = np.log(sizes[a]), np.log(min(sizes[b], 1_000))
        row[13], row[14] = coherence[a], coherence[b]
        row[15], row[16] = a1 - a0 > 1, b1 - b0 > 1
        if b1 - b0 > 1:
            row[17] = mean - coherence[b]
            row[18] = np.searchsorted(means[b0:b1], mean) / (b1 - b0)
            row[19] = best_mean - bests[b0:b1].mean()
            row[20] = np.searchsorted(bests[b0:b1], best_mean) / (b1 - b0)
            row[21] = mean - means[b0]
        row[22] = np.log1p(meetings.links[p])
        row[23] = meetings.links[p] / (sizes[a] * min(sizes[b], 40))
