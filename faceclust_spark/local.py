"""Arrays in, labels out: the same kernels as the Spark pipeline, in the calling process.

For notebooks and galleries of up to about 10^5 faces. Starts no JVM and imports no pyspark; on the same
gallery and config the clusters equal those of the pipeline.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.assignment import NO_PHOTO, mint_cluster_ids
from faceclust_spark.kernels.encounters import Links, neighbour_links
from faceclust_spark.kernels.faces import prepare_faces
from faceclust_spark.kernels.forest import edges_of_lists, maximum_spanning_forest
from faceclust_spark.kernels.ids import is_missing
from faceclust_spark.kernels.in_memory import (
    cut_groups,
    find_cells,
    find_thresholds,
    place_faces,
    refine_gallery,
    scale_of,
)
from faceclust_spark.kernels.neighbours import find_neighbours
from faceclust_spark.kernels.rounds import Gallery, join_clusters
from faceclust_spark.kernels.standing import NO_CLUSTER

if TYPE_CHECKING:
    from faceclust_spark.kernels.groups import CoarseGroups
    from faceclust_spark.kernels.thresholds import Thresholds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clustering:
    """The clusters of a gallery, row by row as it was given.

    labels: int64 `(n,)`, 0 to the number of clusters - 1, in the order of the cluster ids.
    cluster_ids: str `(n,)`, the ids that the pipeline writes.
    confidences: float32 `(n,)`, 0 to 1: that the image is in the right cluster; that of one that is alone,
        that its person has no other image.
    statuses: str `(n,)`: `member`, `singleton` or `left`.
    runner_ups: int64 `(n,)`, the label of the next best cluster of each image, -1 where none is known.
    margins: float32 `(n,)`, log-odds by which its own cluster is ahead of that one, NaN where none is known.
    thresholds: the floor and the first thresholds, and how they were chosen.
    group_keys: int64 `(t, n)`, the coarse group of each image at each first threshold.
    """

    labels: NDArray[np.int64]
    cluster_ids: NDArray[np.str_]
    confidences: NDArray[np.float32]
    statuses: NDArray[np.str_]
    runner_ups: NDArray[np.int64]
    margins: NDArray[np.float32]
    thresholds: Thresholds
    group_keys: NDArray[np.int64]


class Grouped(NamedTuple):
    """A gallery's thresholds and coarse groups, and the links that they are made of."""

    thresholds: Thresholds
    coarse: CoarseGroups
    links: Links


def cluster(
    embeddings: NDArray[np.number],
    attributes: NDArray[np.number] | None = None,
    config: Config | None = None,
    *,
    image_ids: Sequence[str] | None = None,
    photo_ids: Sequence[str | None] | None = None,
) -> Clustering:
    """Cluster a gallery in memory.

    embeddings: `(n, d)`, normalised or not. attributes: `(n, a)`, NaN where missing, or None.
    image_ids: one for each row, unique; the row numbers otherwise. They decide ties, so equal clusters
    need equal ids. photo_ids: faces of one photo are kept apart, None where unknown.

    Raises DataError that lists the rows that cannot be used, ConfigError, ModelMismatchError.
    """
    from faceclust_spark.kernels.model import load_model

    config = config or Config()
    gallery, order = as_gallery(embeddings, attributes, image_ids, photo_ids, config)
    model = load_model(config.confidences.model)
    model.check(gallery.vectors.shape[1], config.ingest.embedding_model, config.ingest.attribute_names)
    model.check_rule(config.clusters.rule)
    grouped = group_faces(gallery.face_ids, gallery.vectors, gallery.norms, gallery.attributes, config)
    if grouped.thresholds.doubt:
        log.warning("%s", grouped.thresholds.doubt)
    scale = scale_of(grouped.thresholds)
    refined = refine_gallery(gallery, grouped.coarse, model, config, scale)
    placed = place_faces(grouped.coarse, refined, gallery.photos, config.clusters, model.calibration)
    if model.joiner is not None and config.clusters.rule == "correlation":
        if config.clusters.same_photo != "apart":
            gallery = gallery._replace(photos=np.full(len(order), NO_PHOTO))
        played = join_clusters(
            gallery, placed, grouped.links, model.joiner, scale, config.rounds, model.alone
        )
        placed = played.placed
    back = np.argsort(order)
    names, labels = np.unique(placed.labels, return_inverse=True)
    known = placed.runner_ups != NO_CLUSTER
    return Clustering(
        labels[back],
        mint_cluster_ids(placed.labels)[back],
        placed.confidences[back],
        placed.statuses[back],
        np.where(known, np.searchsorted(names, placed.runner_ups), NO_CLUSTER)[back],
        placed.margins[back],
        grouped.thresholds,
        grouped.coarse.keys[:, back],
    )


def as_gallery(
    embeddings: NDArray[np.number],
    attributes: NDArray[np.number] | None,
    image_ids: Sequence[str] | None,
    photo_ids: Sequence[str | None] | None,
    config: Config,
) -> tuple[Gallery, NDArray[np.int64]]:
    """Give a gallery as the kernels take it, and the given row of each of its rows; as `cluster`."""
    faces = prepare_faces(embeddings, attributes, image_ids, config.ingest.statistics_sample)
    order = np.argsort(faces.face_ids)
    photos = _photo_numbers(photo_ids, len(order))
    gallery = Gallery(faces.face_ids, faces.vectors, faces.attributes, faces.norms, photos)
    return gallery.take(order), order


def group_faces(
    face_ids: NDArray[np.int64],
    vectors: NDArray[np.int16],
    norms: NDArray[np.float32],
    attributes: NDArray[np.float32],
    config: Config,
) -> Grouped:
    """Find a gallery's neighbours and coarse groups [claims 2, 3].

    Shapes: `(n,)` ascending, grid vectors `(n, d)`, norms of the raw embeddings `(n,)`, standardised
    attributes `(n, a)`.
    """
    thresholds = find_thresholds(face_ids, vectors, norms, attributes, config)
    cells = find_cells(face_ids, vectors, config)
    lists = find_neighbours(face_ids, vectors, cells, thresholds.floor, config.neighbours)
    forest = maximum_spanning_forest(edges_of_lists(lists))
    coarse = cut_groups(face_ids, vectors, forest, thresholds.groups, config.coarse_groups)
    return Grouped(thresholds, coarse, neighbour_links(face_ids, lists))


def _photo_numbers(photo_ids: Sequence[str | None] | None, count: int) -> NDArray[np.int64]:
    """Number the photos; -1 where unknown."""
    if photo_ids is None:
        return np.full(count, -1, np.int64)
    if len(photo_ids) != count:
        raise DataError(f"{len(photo_ids)} photo ids for {count} faces: each face needs one, or None")
    numbers: dict[str | None, int] = {}
    return np.array(
        [-1 if is_missing(photo) else numbers.setdefault(photo, len(numbers)) for photo in photo_ids],
        np.int64,
    )
