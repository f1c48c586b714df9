"""Re-clustering of a group by its confidences and refined similarities [claim 1]."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import ClustersConfig
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.calibration import Calibration, calibrate, calibration_inputs
from faceclust_spark.kernels.contraction import contract
from faceclust_spark.kernels.refine import LOG_ODDS_STEPS, PairLogOdds, Refinement
from faceclust_spark.kernels.triangles import triangle_rows

NEEDS_PAIRS = (
    "clusters.rule=correlation needs refined similarities, and a model of kind `literal` gives none: "
    "set clusters.rule=confidence, or use another model"
)


NO_CLUSTER = -1  # in place of a label: no other cluster came into question


class Clustering(NamedTuple):
    """Each image's cluster, by the smallest face id in it, its confidence, and what else it might be."""

    labels: NDArray[np.int64]  # (n,)
    confidences: NDArray[np.float32]  # (n,) 0 to 1
    runner_ups: NDArray[np.int64]  # (n,) label of the next best cluster, or NO_CLUSTER
    margins: NDArray[np.float32]  # (n,) log-odds by which the own cluster is ahead of it, or NaN


class Standing(NamedTuple):
    """How each image stands to the clusters of its group, by mean log-odds; NaN where no pair is known."""

    own: NDArray[np.float64]  # (n,) to its own cluster's others
    best: NDArray[np.float64]  # (n,) to the best other cluster
    rival: NDArray[np.int64]  # (n,) label of that one (ties: the smaller), or NO_CLUSTER


def recluster(
    face_ids: NDArray[np.int64],
    keys: NDArray[np.int64],
    refinement: Refinement,
    config: ClustersConfig,
    photos: NDArray[np.int64] | None = None,
    calibration: Calibration | None = None,
) -> Clustering:
    """Divide a root group, or several put together, into clusters; every image ends in exactly one.

    `correlation`: greedy additive edge contraction on the refined log-odds, into which the confidences
    have gone. `confidence`, the patent's letter: of the nested groups the best set that does not
    overlap, from which images of low confidence leave.

    Shapes: `(n,)` ascending in each root group, `(t, n)` lowest threshold first. photos: `(n,)`, equal
    numbers for images of one photo, -1 for none; with `same_photo: apart` they never share a cluster.
    calibration: the model's; it concerns members of clusters of two or more under the rule `correlation`.

    Raises ConfigError where `correlation` meets a model that gives no refined similarities.
    """
    apart = photos if photos is not None and config.same_photo == "apart" else None
    if config.rule == "confidence":
        chosen, confidences = _by_confidence(face_ids, keys, refinement.confidences, config, apart)
        nobody = np.full(len(face_ids), NO_CLUSTER)
        return Clustering(chosen, confidences, nobody, np.full(len(face_ids), np.nan, np.float32))
    size = len(face_ids)
    if size > 1 and not len(refinement.pairs.log_odds):
        raise ConfigError(NEEDS_PAIRS)
    links = _links(refinement.pairs, size, config)
    labels = contract(size, *links, _photo_pairs(apart, size))
    standing = mean_log_odds(face_ids[labels], refinement.pairs, size)
    # To stay alone is worth log-odds of 0: as likely as not.
    margins = (np.nan_to_num(standing.own) - standing.best).astype(np.float32)
    confidences = _own_confidences(standing)
    if calibration is not None:
        sizes = np.bincount(labels)[labels]
        member = (sizes > 1) & ~np.isnan(standing.own)
        inputs = calibration_inputs(standing.own[member], margins[member], sizes[member])
        confidences[member] = calibrate(calibration, inputs)
    return Clustering(face_ids[labels], confidences, standing.rival, margins)


def mean_log_odds(labels: NDArray[np.int64], pairs: PairLogOdds, size: int) -> Standing:
    """Give each image's mean log-odds to its own cluster's others, and to the best other cluster.

    Over the pairs that are known.
    """
    clusters, numbers = np.unique(labels, return_inverse=True)
    first, second = _pair_rows(pairs, size)
    own, best, rival = _means_by_cluster(first, second, pairs.log_odds, numbers, len(clusters))
    named = np.append(clusters, NO_CLUSTER)[rival]
    return Standing(own / LOG_ODDS_STEPS, best / LOG_ODDS_STEPS, named)


def _links(
    pairs: PairLogOdds, size: int, config: ClustersConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give rows and weights of the links: log-odds less the bias, clipped."""
    first, second = _pair_rows(pairs, size)
    limit = round(config.clip * LOG_ODDS_STEPS)
    weight = pairs.log_odds.astype(np.int64) - round(config.bias * LOG_ODDS_STEPS)
    return first, second, np.clip(weight, -limit, limit)


def _pair_rows(pairs: PairLogOdds, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if len(pairs.first) or not len(pairs.log_odds):
        return pairs.first.astype(np.int64), pairs.second.astype(np.int64)
    return triangle_rows(size)


def _photo_pairs(photos: NDArray[np.int64] | None, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the pairs of rows that come from one photo."""
    none = np.empty(0, np.int64)
    if photos is None:
        return none, none
    rows = np.flatnonzero(photos >= 0)
    if len(rows) < 2:
        return none, none
    order = rows[np.argsort(photos[rows], kind="stable")]
    first, second = _pairs_of_equals(photos[order], order)
    return first, second


@numba.njit(cache=True, nogil=True)
def _pairs_of_equals(values, rows):  # type: ignore[no-untyped-def]
    """Give all pairs of rows with equal values; equal values stand together, their rows ascending."""
    first, second = [], []
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            if values[j] != values[i]:
                break
            first.append(rows[i])
            second.append(rows[j])
    return np.array(first, np.int64), np.array(second, np.int64)


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


def _own_confidences(standing: Standing) -> NDArray[np.float32]:
    """Give the chance that each image is in the right cluster.

    For a member, sigmoid of its mean log-odds to the cluster's others; for an image alone, that of
    not belonging to the cluster it is nearest to.
    """
    alone = -np.nan_to_num(standing.best, nan=-30.0)
    logit = np.where(np.isnan(standing.own), alone, standing.own)
    return (1.0 / (1.0 + np.exp(-logit))).astype(np.float32)


def _by_confidence(
    face_ids: NDArray[np.int64],
    keys: NDArray[np.int64],
    confidences: NDArray[np.float32],
    config: ClustersConfig,
    photos: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Choose among nested groups by the sum of (2 confidence - 1) over their members.

    A group is taken whole unless the best choice among the groups inside it scores higher. Members
    below `min_confidence` leave and are alone; of two of one photo the less confident one leaves.
    """
    gain = np.rint((2 * confidences.astype(np.float64) - 1) * LOG_ODDS_STEPS).astype(np.int64)
    row = np.full(len(face_ids), len(keys) - 1)
    best = _group_sums(keys[-1], gain[-1])
    for level in range(len(keys) - 2, -1, -1):
        whole = _group_sums(keys[level], gain[level])
        inside = _group_sums(keys[level], np.where(_is_first(keys[level + 1]), best, 0))
        takes = whole >= inside
        row = np.where(takes, level, row)
        best = np.maximum(whole, inside)
    rows = np.arange(len(face_ids))
    own, chosen = confidences[row, rows], keys[row, rows]
    leaves = (own < np.float32(config.min_confidence)) | _less_sure_of_photo(own, chosen, photos)
    alone = leaves & (_group_sums(chosen, np.ones(len(chosen), np.int64)) > 1)
    # A leaver may be the image that its group is named after, so both parts of the name count.
    _, numbers = np.unique(np.stack([chosen, np.where(alone, rows + 1, 0)]), axis=1, return_inverse=True)
    smallest = _smallest_of(numbers.ravel(), face_ids)
    return smallest, np.where(alone, 1 - own, own).astype(np.float32)


def _group_sums(keys: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each image the sum over its group."""
    _, inverse = np.unique(keys, return_inverse=True)
    sums = np.zeros(inverse.max(initial=-1) + 1, np.int64)
    np.add.at(sums, inverse, values)
    return sums[inverse]


def _is_first(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark one image of each group."""
    marked = np.zeros(len(keys), bool)
    marked[np.unique(keys, return_index=True)[1]] = True
    return marked


def _smallest_of(labels: NDArray[np.int64], face_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Name each cluster by the smallest face id in it; face ids ascend, so by its first row."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return face_ids[first][inverse]


def _less_sure_of_photo(
    confidence: NDArray[np.float32], keys: NDArray[np.int64], photos: NDArray[np.int64] | None
) -> NDArray[np.bool_]:
    """Mark all but the most confident image of each photo within each group."""
    marked = np.zeros(len(keys), bool)
    if photos is None:
        return marked
    rows = np.flatnonzero(photos >= 0)
    order = rows[np.lexsort((rows, -confidence[rows], photos[rows], keys[rows]))]
    same = (keys[order][1:] == keys[order][:-1]) & (photos[order][1:] == photos[order][:-1])
    marked[order[1:][same]] = True
    return marked
