"""From a refined root group to what is told of each of its faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from faceclust_spark.kernels.recluster import recluster
from faceclust_spark.kernels.standing import NO_CLUSTER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from faceclust_spark.config import ClustersConfig
    from faceclust_spark.kernels.calibration import Calibration
    from faceclust_spark.kernels.refine import Refinement

MEMBER = "member"  # shares its cluster
SINGLETON = "singleton"  # met nobody: its root group holds no other face
LEFT = "left"  # met somebody, and was left alone by re-clustering

NO_PHOTO = -1


class Assignment(NamedTuple):
    """Where each face of a root group ends. All of shape `(n,)`, rows as the group's.

    labels: int64, the smallest face id of the face's cluster. confidences: float32, 0 to 1.
    thresholds: float32, of the smallest coarse group that holds the whole cluster.
    statuses: str, `member`, `singleton` or `left`. runner_ups: int64, label of the next best cluster, or
    NO_CLUSTER; margins: float32, log-odds by which the own cluster is ahead of it, or NaN.
    """

    labels: NDArray[np.int64]
    confidences: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    statuses: NDArray[np.str_]
    runner_ups: NDArray[np.int64]
    margins: NDArray[np.float32]


def assign_faces(
    face_ids: NDArray[np.int64],
    thresholds: NDArray[np.float32],
    keys: NDArray[np.int64],
    refinement: Refinement,
    config: ClustersConfig,
    photos: NDArray[np.int64] | None = None,
    calibration: Calibration | None = None,
) -> Assignment:
    """Cluster root groups again and say what came of each face. Claim 1, last step.

    Rows are those of one root group, or of several put together (`kernels.grouping.join_refined`).

    photos: int64 `(n,)` as `shared_photos` gives them, or None where no two faces share one.
    calibration: the model's, see `recluster`.

    Shapes: `(n,)` ascending in each root group, `(t,)` ascending, `(t, n)` lowest threshold first.
    """
    if len(face_ids) == 1:
        return assign_alone(face_ids, thresholds)
    clustering = recluster(face_ids, keys, refinement, config, photos, calibration)
    labels, inverse, sizes = np.unique(clustering.labels, return_inverse=True, return_counts=True)
    return Assignment(
        labels=labels[inverse],
        confidences=clustering.confidences,
        thresholds=thresholds[highest_whole(clustering.labels, keys)],
        statuses=np.where(sizes[inverse] > 1, MEMBER, LEFT),
        runner_ups=clustering.runner_ups,
        margins=clustering.margins,
    )


def assign_alone(face_ids: NDArray[np.int64], thresholds: NDArray[np.float32]) -> Assignment:
    """Say what comes of faces whose root groups hold no other face: each is sure of its own cluster."""
    count = len(face_ids)
    return Assignment(
        labels=face_ids,
        confidences=np.ones(count, np.float32),
        thresholds=np.full(count, thresholds[-1]),
        statuses=np.full(count, SINGLETON),
        runner_ups=np.full(count, NO_CLUSTER),
        margins=np.full(count, np.nan, np.float32),
    )


def highest_whole(labels: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give, for each face, the highest row of `keys` at which one group holds its whole cluster.

    Groups nest, so a cluster that one group holds is also held at every lower threshold; row 0 is the
    root group, which holds all. Shapes: `(n,)`, `(t, n)` to int64 `(n,)`.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=labels[order[:1]] - 1))
    ordered = keys[:, order]
    lows = np.minimum.reduceat(ordered, starts, axis=1)
    highs = np.maximum.reduceat(ordered, starts, axis=1)
    # Counting the whole rows finds the highest one, because they are the lowest ones.
    highest = (lows == highs).sum(axis=0) - 1
    result = np.empty(len(labels), dtype=np.int64)
    result[order] = np.repeat(highest, np.diff([*starts, len(labels)]))
    return result


def shared_photos(face_ids: NDArray[np.int64], photos: Iterable[Sequence[int]]) -> NDArray[np.int64]:
    """Give each face the smallest face id among the group's faces of the same photo, else -1.

    photos: the faces of each photo that shows several faces of the group. A photo is named by its
    faces, so it has one name in every process. Shapes: `(n,)` ascending to int64 `(n,)`.
    """
    result = np.full(len(face_ids), NO_PHOTO, dtype=np.int64)
    for together in photos:
        result[np.searchsorted(face_ids, np.asarray(together))] = min(together)
    return result


def name_photos(
    face_ids: NDArray[np.int64], photos: NDArray[np.int64], sizes: Sequence[int] | None = None
) -> NDArray[np.int64]:
    """Give what `shared_photos` gives, from any numbering of the photos (-1 = none) of the group.

    sizes: of several groups put together; each has names of its own, none for a photo that it holds once.
    Shapes: `(n,)` ascending in each group, `(n,)` to int64 `(n,)`.
    """
    if sizes is not None:
        group = np.repeat(np.arange(len(sizes)), sizes)
        photos = np.where(photos < 0, photos, photos + group * (photos.max(initial=0) + 1))
    _, first, inverse, counts = np.unique(photos, return_index=True, return_inverse=True, return_counts=True)
    shared = (counts[inverse] > 1) & (photos != NO_PHOTO)
    return np.where(shared, face_ids[first[inverse]], np.int64(NO_PHOTO))


def mint_cluster_ids(labels: NDArray[np.int64]) -> NDArray[np.str_]:
    """Give the cluster ids of a first run: `c` and 16 hexadecimal digits of the smallest face id."""
    return np.array([f"c{label:016x}" for label in labels.tolist()], dtype="U17")
