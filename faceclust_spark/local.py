"""Arrays in, labels out: the same kernels as the Spark pipeline, in the calling process.

For notebooks and galleries of up to about 10^5 faces. Starts no JVM and imports no pyspark; on the same
gallery and config the clusters equal those of the pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.errors import DataError
from faceclust_spark.kernels import cells as cells_kernel
from faceclust_spark.kernels import thresholds as thresholds_kernel
from faceclust_spark.kernels.assignment import (
    NO_PHOTO,
    Assignment,
    assign_alone,
    assign_faces,
    mint_cluster_ids,
    name_photos,
)
from faceclust_spark.kernels.faces import prepare_faces
from faceclust_spark.kernels.forest import edges_of_lists, maximum_spanning_forest
from faceclust_spark.kernels.grouping import batch_groups, gather_groups
from faceclust_spark.kernels.groups import CoarseGroups, cut_forest, mean_cosine
from faceclust_spark.kernels.ids import sample_rows
from faceclust_spark.kernels.neighbours import find_neighbours
from faceclust_spark.kernels.recluster import NO_CLUSTER
from faceclust_spark.kernels.relations import Scale
from faceclust_spark.kernels.rounds import Gallery, Links, Placed, join_clusters, neighbour_links
from faceclust_spark.kernels.threads import map_parts
from faceclust_spark.kernels.thresholds import Thresholds, choose_thresholds

if TYPE_CHECKING:
    from faceclust_spark.kernels.model import Model
    from faceclust_spark.kernels.refine import Group

PAIRS_PER_BATCH = 100_000  # refined at once by a thread: bounds memory, does not change a bit


@dataclass(frozen=True)
class Clustering:
    """The clusters of a gallery, row by row as it was given.

    labels: int64 `(n,)`, 0 to the number of clusters - 1, in the order of the cluster ids.
    cluster_ids: str `(n,)`, the ids that the pipeline writes.
    confidences: float32 `(n,)`, 0 to 1: that the image is in the right cluster.
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
    faces = prepare_faces(embeddings, attributes, image_ids, config.ingest.statistics_sample)
    order = np.argsort(faces.face_ids)
    face_ids, vectors, standardised = faces.face_ids[order], faces.vectors[order], faces.attributes[order]
    model = load_model(config.confidences.model)
    model.check(vectors.shape[1], config.ingest.embedding_model, config.ingest.attribute_names)
    model.check_rule(config.clusters.rule)
    photos = _photo_numbers(photo_ids, len(order))[order]
    grouped = group_faces(face_ids, vectors, config)
    placed = _refine(grouped, vectors, standardised, photos, model, config)
    if model.joiner is not None and config.clusters.rule == "correlation":
        apart = photos if config.clusters.same_photo == "apart" else np.full(len(order), NO_PHOTO)
        gallery, scale = Gallery(face_ids, vectors, standardised, apart), scale_of(grouped.thresholds)
        placed = join_clusters(gallery, placed, grouped.links, model.joiner, scale, config.rounds)
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


def group_faces(face_ids: NDArray[np.int64], vectors: NDArray[np.int16], config: Config) -> Grouped:
    """Find a gallery's neighbours and coarse groups [claims 2, 3].

    Shapes: `(n,)` ascending, grid vectors `(n, d)`.
    """
    count = len(face_ids)
    sample = sample_rows(face_ids, config.coarse_groups.random_pairs_sample, thresholds_kernel.SAMPLE)
    thresholds = choose_thresholds(vectors[sample], count, config.neighbours, config.coarse_groups)
    size = cells_kernel.sample_size(count, config.cells)
    sample = sample_rows(face_ids, size, cells_kernel.SAMPLE)
    cells = cells_kernel.train_cells(vectors[sample], count, config.cells)
    lists = find_neighbours(face_ids, vectors, cells, thresholds.floor, config.neighbours)
    coarse = cut_forest(
        face_ids,
        maximum_spanning_forest(edges_of_lists(lists)),
        np.array(thresholds.groups, np.float32),
        config.coarse_groups,
        lambda ids: mean_cosine(vectors[np.searchsorted(face_ids, ids)]),
    )
    return Grouped(thresholds, coarse, neighbour_links(face_ids, lists))


def _refine(
    grouped: Grouped,
    vectors: NDArray[np.int16],
    attributes: NDArray[np.float32],
    photos: NDArray[np.int64],
    model: Model,
    config: Config,
) -> Placed:
    """Place each face within its root group."""
    from faceclust_spark.kernels.graph_convolution import one_torch_thread
    from faceclust_spark.kernels.refine import refine_groups

    face_ids, levels = grouped.coarse.face_ids, grouped.coarse.thresholds
    scale = scale_of(grouped.thresholds)
    _, place, sizes = np.unique(grouped.coarse.keys[0], return_inverse=True, return_counts=True)
    alone = sizes[place] == 1
    met = np.flatnonzero(~alone)
    coarse = grouped.coarse._replace(face_ids=face_ids[met], keys=grouped.coarse.keys[:, met])

    def refine(batch: list[Group]) -> list[Assignment]:
        refined = refine_groups(batch, model, config.confidences, config.similarities, scale)
        found = []
        for group, refinement in zip(batch, refined, strict=True):
            own = name_photos(group.face_ids, photos[np.searchsorted(face_ids, group.face_ids)])
            what = (group.face_ids, levels, group.keys, refinement, config.clusters, own, model.calibration)
            found.append(assign_faces(*what))
        return found

    groups = gather_groups(coarse, vectors[met], attributes[met])
    batches = batch_groups(groups, config.confidences, PAIRS_PER_BATCH)
    batches.sort(key=lambda batch: -sum(len(group.face_ids) ** 2 for group in batch))  # no long one is last
    with one_torch_thread():
        found = [one for batch in map_parts(refine, batches) for one in batch]
    found.append(assign_alone(face_ids[alone], levels))
    ids = np.concatenate([*(group.face_ids for batch in batches for group in batch), face_ids[alone]])
    order = np.argsort(ids)
    everyone = Assignment(*(np.concatenate(part)[order] for part in zip(*found, strict=True)))
    return Placed(
        everyone.labels, everyone.confidences, everyone.statuses, everyone.runner_ups, everyone.margins
    )


def scale_of(thresholds: Thresholds) -> Scale:
    """Give centre and spread of a gallery's random pairs."""
    return Scale(thresholds.mean, thresholds.standard_deviation)


def _photo_numbers(photo_ids: Sequence[str | None] | None, count: int) -> NDArray[np.int64]:
    """Number the photos; -1 where unknown."""
    if photo_ids is None:
        return np.full(count, -1, np.int64)
    if len(photo_ids) != count:
        raise DataError(f"{len(photo_ids)} photo ids for {count} faces: each face needs one, or None")
    numbers: dict[str, int] = {}
    return np.array(
        [-1 if photo is None else numbers.setdefault(photo, len(numbers)) for photo in photo_ids], np.int64
    )
