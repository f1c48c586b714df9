"""One root group, with all that decides about its faces: for pictures and for looking into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.groups import CoarseGroups
from faceclust_spark.kernels.in_memory import place_faces, refine_gallery, scale_of
from faceclust_spark.kernels.rounds import Gallery, sigmoid
from faceclust_spark.kernels.similarities import attribute_similarities, face_similarities
from faceclust_spark.local import as_gallery, group_faces

if TYPE_CHECKING:
    from faceclust_spark.kernels.refine import PairLogOdds

_STEPS = 256.0  # of log-odds in one unit: kernels.refine.LOG_ODDS_STEPS, without torch


class GroupView(NamedTuple):
    """A root group: n faces by cluster, the largest first, then by face id.

    Clusters are those of the group by itself, before rounds.
    """

    rows: NDArray[np.int64]  # (n,) of the gallery as it was given
    clusters: NDArray[np.int64]  # (n,) from 0
    thresholds: NDArray[np.float32]  # (t,) ascending
    group_keys: NDArray[np.int64]  # (t, n) coarse group at each threshold
    cosines: NDArray[np.float32]  # (n, n) face similarity matrix
    attributes: NDArray[np.float32] | None  # (n, n) attribute similarity matrix; None: there are none
    confidences: NDArray[np.float32]  # (t, n) that the face is assigned to its coarse group
    probabilities: NDArray[np.float32]  # (n, n) refined: that two faces are one person; NaN: not scored


def view_group(
    embeddings: NDArray[np.number],
    row: int,
    attributes: NDArray[np.number] | None = None,
    config: Config | None = None,
    *,
    image_ids: Sequence[str] | None = None,
    photo_ids: Sequence[str | None] | None = None,
) -> GroupView:
    """Show what decides about the root group of a row of the gallery; arguments as `cluster`.

    Raises DataError for a row that is not there or is alone in its group, and what `cluster` raises.
    """
    from faceclust_spark.kernels.model import load_model

    config = config or Config()
    gallery, order = as_gallery(embeddings, attributes, image_ids, photo_ids, config)
    if not 0 <= row < len(order):
        raise DataError(f"row {row} of a gallery of {len(order)} faces: give one from 0 to {len(order) - 1}")
    grouped = group_faces(gallery.face_ids, gallery.vectors, gallery.norms, gallery.attributes, config)
    roots = grouped.coarse.keys[0]
    own = np.flatnonzero(roots == roots[np.flatnonzero(order == row)[0]])
    if len(own) < 2:
        raise DataError(f"row {row} is alone in its root group: there is nothing to compare it with")
    gallery, coarse = _part(gallery, grouped.coarse, own)
    model = load_model(config.confidences.model)
    (refined,) = refine_gallery(gallery, coarse, model, config, scale_of(grouped.thresholds))
    placed = place_faces(coarse, [refined], gallery.photos, config.clusters, model.calibration)
    by_cluster, clusters = _by_cluster(placed.labels)
    square = np.ix_(by_cluster, by_cluster)
    named = attribute_similarities(gallery.attributes)[square] if gallery.attributes.shape[1] else None
    return GroupView(
        order[own][by_cluster],
        clusters,
        coarse.thresholds,
        coarse.keys[:, by_cluster],
        face_similarities(gallery.vectors)[square],
        named,
        refined.refinement.confidences[:, by_cluster],
        _matrix(refined.refinement.pairs, len(own))[square],
    )


def _part(gallery: Gallery, coarse: CoarseGroups, rows: NDArray[np.int64]) -> tuple[Gallery, CoarseGroups]:
    keys, levels = coarse.keys[:, rows], coarse.levels[:, rows]
    part = gallery.take(rows)
    return part, CoarseGroups(part.face_ids, coarse.thresholds, keys, levels)


def _by_cluster(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the order of rows, and the number of each one's cluster in that order."""
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    number = np.empty(len(sizes), np.int64)
    number[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    order = np.argsort(number[inverse], kind="stable")
    return order, number[inverse][order]


def _matrix(pairs: PairLogOdds, size: int) -> NDArray[np.float32]:
    """Give the probability of each pair, 1 on the diagonal."""
    first, second = (pairs.first, pairs.second) if len(pairs.first) else np.triu_indices(size, 1)
    matrix = np.full((size, size), np.nan, np.float32)
    matrix[first, second] = sigmoid(pairs.log_odds.astype(np.float32) / np.float32(_STEPS))
    matrix[second, first] = matrix[first, second]
    np.fill_diagonal(matrix, 1.0)
    return matrix
