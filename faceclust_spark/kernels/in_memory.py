"""The method on a gallery that one process holds: each step from arrays to arrays, on all cores.

`local.cluster` runs the steps one after the other; the pipeline writes a table after each, for galleries
that its driver holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from faceclust_spark.kernels import cells as cells_kernel
from faceclust_spark.kernels import thresholds as thresholds_kernel
from faceclust_spark.kernels.assignment import Assignment, assign_alone, assign_faces, name_photos
from faceclust_spark.kernels.grouping import batch_groups, gather_groups
from faceclust_spark.kernels.groups import CoarseGroups, cut_forest, mean_cosine
from faceclust_spark.kernels.ids import sample_rows
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.refine import refine_groups
from faceclust_spark.kernels.refined import RefinedGroup, batch_refined, join_refined, refined_groups
from faceclust_spark.kernels.rounds import Placed
from faceclust_spark.kernels.threads import map_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from faceclust_spark.config import ClustersConfig, CoarseGroupsConfig, Config
    from faceclust_spark.kernels.calibration import Calibration
    from faceclust_spark.kernels.cells import Cells
    from faceclust_spark.kernels.forest import Edges
    from faceclust_spark.kernels.model import Model
    from faceclust_spark.kernels.refine import Group
    from faceclust_spark.kernels.rounds import Gallery
    from faceclust_spark.kernels.thresholds import Thresholds

PAIRS_PER_BATCH = 100_000  # refined at once by a thread: bounds memory, does not change a bit


def find_thresholds(
    face_ids: NDArray[np.int64],
    vectors: NDArray[np.int16],
    norms: NDArray[np.float32],
    attributes: NDArray[np.float32],
    config: Config,
) -> Thresholds:
    """Choose floor and first thresholds from the gallery's sample [claims 2, 3].

    Shapes: `(n,)` ascending, grid vectors `(n, d)`, here and below; norms `(n,)`, attributes `(n, a)`.
    """
    groups = config.coarse_groups
    sample = sample_rows(face_ids, groups.random_pairs_sample, thresholds_kernel.SAMPLE)
    return thresholds_kernel.choose_thresholds(
        vectors[sample], len(face_ids), config.neighbours, groups, norms[sample], attributes[sample]
    )


def find_cells(face_ids: NDArray[np.int64], vectors: NDArray[np.int16], config: Config) -> Cells:
    """Train the cells on the gallery's sample."""
    size = cells_kernel.sample_size(len(face_ids), config.cells)
    sample = sample_rows(face_ids, size, cells_kernel.SAMPLE)
    return cells_kernel.train_cells(vectors[sample], len(face_ids), config.cells)


def cut_groups(
    face_ids: NDArray[np.int64],
    vectors: NDArray[np.int16],
    forest: Edges,
    thresholds: tuple[float, ...],
    config: CoarseGroupsConfig,
) -> CoarseGroups:
    """Cut the gallery's forest into coarse groups [claims 2, 3]; see `kernels.groups.cut_forest`."""
    return cut_forest(
        face_ids,
        forest,
        np.array(thresholds, np.float32),
        config,
        lambda ids: mean_cosine(vectors[np.searchsorted(face_ids, ids)]),
    )


def refine_gallery(
    gallery: Gallery, coarse: CoarseGroups, model: Model, config: Config, scale: Scale
) -> list[RefinedGroup]:
    """Refine every root group of several faces [claims 1, 4], by ascending root key.

    Rows of the gallery and of `coarse` are the same.
    """
    from faceclust_spark.kernels.graph_convolution import one_torch_thread

    met = ~alone_in_root(coarse)
    several = coarse._replace(face_ids=coarse.face_ids[met], keys=coarse.keys[:, met])
    groups = gather_groups(several, gallery.vectors[met], gallery.attributes[met], gallery.norms[met])

    def refine(batch: list[Group]) -> list[RefinedGroup]:
        refined = refine_groups(batch, model, config.confidences, config.similarities, scale)
        return refined_groups(batch, refined, coarse.thresholds)

    batches = batch_groups(groups, config.confidences, PAIRS_PER_BATCH)
    batches.sort(key=lambda batch: -sum(len(group.face_ids) ** 2 for group in batch))  # no long one is last
    with one_torch_thread():
        found = [one for batch in map_parts(refine, batches) for one in batch]
    return sorted(found, key=lambda group: group.root_key)


def place_faces(
    coarse: CoarseGroups,
    refined: list[RefinedGroup],
    photos: NDArray[np.int64],
    config: ClustersConfig,
    calibration: Calibration | None,
) -> Placed:
    """Place each face within its root group: claim 1, last step. Rows follow `coarse.face_ids`.

    refined: all root groups of several faces. photos: number of each face's photo, -1 = none.
    """
    face_ids = coarse.face_ids

    def assign(batch: list[RefinedGroup]) -> Assignment:
        group = join_refined(batch)
        own = photos[np.searchsorted(face_ids, group.face_ids)]
        named = name_photos(group.face_ids, own, [len(one.face_ids) for one in batch])
        return assign_faces(
            group.face_ids, group.thresholds, group.keys, group.refinement, config, named, calibration
        )

    alone = face_ids[alone_in_root(coarse)]
    batches = batch_refined(refined, PAIRS_PER_BATCH)
    found = [*map_parts(assign, batches), assign_alone(alone, coarse.thresholds)]
    order = np.argsort(np.concatenate([*(group.face_ids for group in refined), alone]))
    everyone = Assignment(*(np.concatenate(part)[order] for part in zip(*found, strict=True)))
    return Placed(
        everyone.labels, everyone.confidences, everyone.statuses, everyone.runner_ups, everyone.margins
    )


def alone_in_root(coarse: CoarseGroups) -> NDArray[np.bool_]:
    """Tell which faces' root groups hold no other face."""
    _, place, sizes = np.unique(coarse.keys[0], return_inverse=True, return_counts=True)
    alone: NDArray[np.bool_] = sizes[place] == 1
    return alone


def scale_of(thresholds: Thresholds) -> Scale:
    """Give what a gallery's images are measured by."""
    return Scale(thresholds.mean, thresholds.standard_deviation, thresholds.norms, thresholds.attributes)
