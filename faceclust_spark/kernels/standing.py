"""How the images of a group stand to its clusters, and which of them move to another one."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.refine import LOG_ODDS_STEPS, PairLogOdds
from faceclust_spark.kernels.triangles import triangle_rows

NO_CLUSTER = -1  # in place of a label: no other cluster came into question


class Standing(NamedTuple):
    """How each image stands to the clusters of its group, by mean log-odds; NaN where no pair is known."""

    own: NDArray[np.float64]  # (n,) to its own cluster's others
    best: NDArray[np.float64]  # (n,) to the best other cluster
    rival: NDArray[np.int64]  # (n,) label of that one (ties: the smaller), or NO_CLUSTER


def mean_log_odds(labels: NDArray[np.int64], pairs: PairLogOdds, size: int) -> Standing:
    """Give each image's mean log-odds to its own cluster's others, and to the best other cluster.

    Over the pairs that are known.
    """
    clusters, numbers = np.unique(labels, return_inverse=True)
    first, second = pair_rows(pairs, size)
    own, best, rival = _means_by_cluster(first, second, pairs.log_odds, numbers, len(clusters))
    named = np.append(clusters, NO_CLUSTER)[rival]
    return Standing(own / LOG_ODDS_STEPS, best / LOG_ODDS_STEPS, named)


def pair_rows(pairs: PairLogOdds, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the rows of a group's pairs, as they are listed or as the upper triangle has them."""
    if len(pairs.first) or not len(pairs.log_odds):
        return pairs.first.astype(np.int64), pairs.second.astype(np.int64)
    return triangle_rows(size)


@numba.njit(cache=True, nogil=True)
def _means_by_cluster(first, second, value, numbers, clusters):  # type: ignore[no-untyped-def]
    """Give each image's mean value to its own cluster's others, and the largest to another cluster, with it.

    Sums of integers, image by image over its pairs: exact, and in memory that follows the pairs.
    """
    size = len(numbers)
    starts = np.zeros(size + 1, np.int64)
    for p in range(len(first)):
        starts[first[p] + 1] += 1
        starts[second[p] + 1] += 1
    starts = np.cumsum(starts)
    ends = starts.copy()
    cluster, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int16)
    for p in range(len(first)):
        i, j = first[p], second[p]
        cluster[ends[i]], values[ends[i]] = numbers[j], value[p]
        cluster[ends[j]], values[ends[j]] = numbers[i], value[p]
        ends[i] += 1
        ends[j] += 1
    own, best, rival = np.full(size, np.nan), np.full(size, np.nan), np.full(size, -1)
    sums, counts = np.zeros(clusters, np.int64), np.zeros(clusters, np.int64)
    for i in range(size):
        for p in range(starts[i], starts[i + 1]):
            sums[cluster[p]] += values[p]
            counts[cluster[p]] += 1
        for p in range(starts[i], starts[i + 1]):
            k = cluster[p]
            if counts[k] == 0:
                continue
            mean = sums[k] / counts[k]
            if k == numbers[i]:
                own[i] = mean
            elif not best[i] >= mean or (best[i] == mean and k < rival[i]):  # nor NaN
                best[i], rival[i] = mean, k
            sums[k] = counts[k] = 0
    return own, best, rival


def move_to_nearer(
    labels: NDArray[np.int64],
    standing: Standing,
    pairs: PairLogOdds,
    lead: float,
    photos: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    """Move images that are clearly nearer to another person's cluster than to their own: once, all together.

    Greedy contraction never takes a merge back, and what a cluster of hundreds sums up to outweighs the few
    images of a small person: one of them stays where it was caught. It moves where its mean log-odds to the
    best other cluster are positive and ahead of those to its own by more than `lead`, and where the pairs
    between that cluster and the rest of its own sum up to less than 0. So most parts of the same person that
    were left over are none; of unsharp people some are, and a lead of 1.5 keeps most images from those.
    Nobody moves to a cluster that an image leaves: two that want each other would pass each other by.

    labels: `(n,)`, the smallest row of each image's cluster, as the standing was taken of; so are those given
    back, in the same array where nobody moves. photos: `(n,)`, or None: two images of one photo (>= 0) do not
    come into one cluster, even where one of them leaves it.
    """
    size = len(labels)
    ahead = standing.best - standing.own > lead  # not where either is unknown
    rows = np.flatnonzero(ahead & (standing.best > 0))
    if not len(rows):
        return labels
    target = np.full(size, NO_CLUSTER)
    target[rows] = standing.rival[rows]
    low, high = np.minimum(labels[rows], target[rows]), np.maximum(labels[rows], target[rows])
    codes, place = np.unique(low * size + high, return_inverse=True)
    first, second = pair_rows(pairs, size)
    between, to_target = _sums_between(first, second, pairs.log_odds, labels, target, codes)
    rows = rows[between[place] - to_target[rows] < 0]
    rows = rows[~np.isin(target[rows], labels[rows])]
    if photos is not None:
        rows = rows[_free_of_photos(labels, target, photos, rows)]
    if not len(rows):
        return labels
    moved = labels.copy()
    moved[rows] = target[rows]
    _, smallest, numbers = np.unique(moved, return_index=True, return_inverse=True)
    return smallest[numbers]


@numba.njit(cache=True, nogil=True)
def _sums_between(first, second, value, labels, target, codes):  # type: ignore[no-untyped-def]
    """Give the sum of the pairs between two clusters, and of those of each image to its target.

    codes: of the clusters, the smaller label * n + the larger one, ascending.
    """
    size = len(labels)
    named = np.zeros(size, np.bool_)
    for code in codes:
        named[code // size] = named[code % size] = True
    between, to_target = np.zeros(len(codes), np.int64), np.zeros(size, np.int64)
    for p in range(len(first)):
        i, j = first[p], second[p]
        a, b = labels[i], labels[j]
        if a == b or not (named[a] and named[b]):
            continue
        if target[i] == b:
            to_target[i] += value[p]
        if target[j] == a:
            to_target[j] += value[p]
        code = min(a, b) * size + max(a, b)
        place = np.searchsorted(codes, code)
        if place < len(codes) and codes[place] == code:
            between[place] += value[p]
    return between, to_target


def _free_of_photos(
    labels: NDArray[np.int64], target: NDArray[np.int64], photos: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Mark the rows whose photo their target does not show: neither before, nor by a row that comes first."""
    free = np.ones(len(rows), bool)
    shown = set(zip(labels[photos >= 0].tolist(), photos[photos >= 0].tolist(), strict=True))
    for number, (label, photo) in enumerate(zip(target[rows].tolist(), photos[rows].tolist(), strict=True)):
        free[number] = photo < 0 or (label, photo) not in shown
        shown.add((label, photo))
    return free
