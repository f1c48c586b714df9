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
from faceclust_spark.kernels.standing import (
    NO_CLUSTER,
    Standing,
    mean_log_odds,
    move_to_nearer,
    pair_rows,
)

NEEDS_PAIRS = (
    "clusters.rule=correlation needs refined similarities, and a model of kind `literal` gives none: "
    "set clusters.rule=confidence, or use another model"
)


class Clustering(NamedTuple):
    """Each image's cluster, by the smallest face id in it, its confidence, and what else it might be."""

    labels: NDArray[np.int64]  # (n,)
    confidences: NDArray[np.float32]  # (n,) 0 to 1
    runner_ups: NDArray[np.int64]  # (n,) label of the next best cluster, or NO_CLUSTER
    margins: NDArray[np.float32]  # (n,) log-odds by which the own cluster is ahead of it, or NaN


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
    have gone; then images that are clearly nearer to another person's cluster move there. `confidence`,
    the patent's letter: of the nested groups the best set that does not overlap, from which images of low
    confidence leave.

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
    standing = mean_log_odds(labels, refinement.pairs, size)
    if config.move_lead is not None:
        moved = move_to_nearer(labels, standing, refinement.pairs, config.move_lead, apart)
        if moved is not labels:
            labels, standing = moved, mean_log_odds(moved, refinement.pairs, size)
    # To stay alone is worth log-odds of 0: as likely as not.
    margins = (np.nan_to_num(standing.own) - standing.best).astype(np.float32)
    confidences = _own_confidences(standing)
    if calibration is not None:
        sizes = np.bincount(labels)[labels]
        member = (sizes > 1) & ~np.isnan(standing.own)
        inputs = calibration_inputs(standing.own[member], margins[member], sizes[member])
        confidences[member] = calibrate(calibration, inputs)
    rivals = np.where(standing.rival == NO_CLUSTER, NO_CLUSTER, face_ids[standing.rival])
    return Clustering(face_ids[labels], confidences, rivals, margins)


def _links(
    pairs: PairLogOdds, size: int, config: ClustersConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give rows and weights of the links: log-odds less the bias, clipped."""
    first, second = pair_rows(pairs, size)
    limit = round(config.clip * LOG_ODDS_STEPS)
    weight = pairs.log_odds.astype(np.int64) - round(config.bias * LOG_ODDS_STEPS)
    return first, second, np.clip(weight, -limit, limit)


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
