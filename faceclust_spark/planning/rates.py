"""How fast this machine is: the kernels of the pipeline, called on the sample and timed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.kernels.assignment import assign_faces
from faceclust_spark.kernels.cells import Cells, cell_parts, probe_cells, sample_size, train_cells
from faceclust_spark.kernels.faces import PreparedFaces, prepare_faces
from faceclust_spark.kernels.forest import edges_of_lists, maximum_spanning_forest
from faceclust_spark.kernels.grouping import batch_groups, gather_groups, scored_pairs
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.neighbours import (
    NeighbourLists,
    join_lists,
    merge_lists,
    search_cells,
    search_slice,
)
from faceclust_spark.kernels.refine import Group, refine_groups
from faceclust_spark.kernels.refined import RefinedGroup, join_refined, refined_groups
from faceclust_spark.kernels.threads import one_thread
from faceclust_spark.kernels.thresholds import Thresholds
from faceclust_spark.planning.laws import training_cost
from faceclust_spark.planning.sample import GallerySample
from faceclust_spark.planning.structure import Grouped, cut_lists

if TYPE_CHECKING:
    from faceclust_spark.kernels.model import Model

PARTS = 8  # shares of the search: one is a task
PREPARED = 10_000  # faces that preparing is timed on
REFINED = 1_500_000  # pairs that refining is timed on
_BATCH = 500_000  # pairs refined at once, as the pipeline does
_WARM_UP = 200  # faces that are worked on before the clock starts: numba compiles, faiss and torch load


class Rates(NamedTuple):
    """Seconds of one core for each unit of work, as measured on this machine."""

    prepare: float  # a face: checked, hashed, put on the grid
    train: float  # a comparison of a round of k-means, for all rounds
    probe: float  # a face compared with a cell
    search: float  # a pair compared
    merge: float  # an entry of a list
    forest: float  # an edge, to the forest of a task
    cut: float  # a face, from the one forest to groups
    refine: float  # a pair scored
    assign: float  # a pair read back, to clusters


class Search(NamedTuple):
    """The search of the sample's own neighbours."""

    pairs: float  # compared, a face
    imbalance: float  # pairs, relative to cells of equal size
    partial_entries: float  # entries of all tasks' lists, relative to the merged ones
    lists: NeighbourLists


class Clock:
    """Adds up CPU seconds: of this process, so that others at work on the machine do not count."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the block's seconds."""
        start = time.process_time()
        yield
        self.seconds += time.process_time() - start


def prepare_sample(sample: GallerySample) -> tuple[PreparedFaces, float]:
    """Give the sample as ingest would store it, and the seconds a face."""
    some = slice(0, PREPARED)
    clock = Clock()
    with clock.running():
        prepare_faces(sample.embeddings[some], sample.attributes[some], sample.image_ids[some])
    faces = prepare_faces(sample.embeddings, sample.attributes, sample.image_ids)
    return faces, clock.seconds / len(sample.image_ids[some])


def time_cells(vectors: NDArray[np.int16], cells: int, config: Config) -> tuple[Cells, float]:
    """Train `cells` cells on the sample; gives them, and seconds a comparison of laws.training_cost."""
    count = len(vectors)
    setting = config.cells.model_copy(update={"cells": cells})
    size = sample_size(count, setting)
    train_cells(vectors[:_WARM_UP], min(count, _WARM_UP), config.cells.model_copy(update={"cells": 2}))
    clock = Clock()
    with one_thread(), clock.running():
        trained = train_cells(vectors[:size], count, setting)
    return trained, clock.seconds / max(training_cost(cells, size), 1.0)


def time_probes(vectors: NDArray[np.int16], cells: Cells, probes: int) -> float:
    """Give the seconds for which a face is compared with one cell."""
    some = vectors[:PREPARED]
    probe_cells(some[:_WARM_UP], cells, probes)
    clock = Clock()
    with one_thread(), clock.running():
        probe_cells(some, cells, probes)
    return clock.seconds / (len(some) * len(cells.centroids))


def time_search(
    face_ids: NDArray[np.int64], vectors: NDArray[np.int16], cells: Cells, floor: float, config: Config
) -> tuple[Search, float, float]:
    """Search the sample's neighbours as tasks do. Gives them, seconds a pair, and seconds a merged entry."""
    parts, pairs, searching = _search_parts(face_ids, vectors, cells, floor, config)
    even = len(vectors) * config.neighbours.probes**2 / (2 * len(cells.centroids))
    merging = Clock()
    with merging.running():
        lists = merge_lists(parts, config.neighbours.k)
    entries = sum(len(part.neighbours) for part in parts)
    found = Search(
        pairs=pairs / len(vectors),
        imbalance=pairs / len(vectors) / even if len(cells.centroids) > 1 else 1.0,
        partial_entries=entries / max(len(lists.neighbours), 1),
        lists=lists,
    )
    return found, searching / pairs, merging.seconds / max(entries + len(face_ids), 1)


def _search_parts(
    face_ids: NDArray[np.int64], vectors: NDArray[np.int16], cells: Cells, floor: float, config: Config
) -> tuple[list[NeighbourLists], int, float]:
    """Give the lists of each part, the pairs compared, and the seconds; each pair once but in one cell.

    No cell is divided here: what that saves in a gallery is told by the laws.
    """
    own, clock = config.neighbours.model_copy(update={"largest_cell": len(vectors)}), Clock()
    some = slice(0, _WARM_UP)
    if len(cells.centroids) == 1:
        search_slice(face_ids[some], vectors[some], 0, 1, floor, own.k)
        with one_thread(), clock.running():
            parts = [search_slice(face_ids, vectors, part, PARTS, floor, own.k) for part in range(PARTS)]
        return parts, len(vectors) ** 2, clock.seconds
    probed = probe_cells(vectors, cells, own.probes)
    of_part = cell_parts(cells, PARTS)
    search_cells(face_ids[some], vectors[some], probed[some], of_part == 0, floor, own)
    parts = []
    with one_thread(), clock.running():
        for part in range(PARTS):
            searched = of_part == part
            here = np.flatnonzero(searched[probed].any(axis=1))
            parts.append(search_cells(face_ids[here], vectors[here], probed[here], searched, floor, own))
    visitors = np.bincount(probed.ravel(), minlength=len(cells.centroids)).astype(np.int64)
    return parts, int((visitors * (visitors + 1) // 2).sum()), clock.seconds


def time_groups(
    lists: NeighbourLists, vectors: NDArray[np.int16], thresholds: Thresholds, config: Config
) -> tuple[Grouped, float, float]:
    """Group the sample by its neighbours. Gives the groups, seconds an edge and seconds a face."""
    spanning = Clock()
    edges = edges_of_lists(lists)
    maximum_spanning_forest(edges_of_lists(_few(lists)))
    with spanning.running():
        forest = maximum_spanning_forest(edges)
    cutting = Clock()
    with cutting.running():
        grouped = cut_lists(lists, forest, vectors, thresholds, config)
    return grouped, spanning.seconds / max(len(edges.first), 1), cutting.seconds / len(vectors)


def time_refinement(
    grouped: Grouped, prepared: PreparedFaces, scale: Scale, model: Model, config: Config
) -> tuple[float, float]:
    """Refine root groups until 1.5 million pairs are scored, and cluster them; gives seconds a pair for both.

    prepared: any faces; their attributes and norms are dealt out to the groups' faces in turn.
    """
    coarse = grouped.coarse
    dealt = np.arange(len(coarse.face_ids)) % len(prepared.face_ids)
    attributes, norms = prepared.attributes[dealt], prepared.norms[dealt]
    groups = _some_groups(gather_groups(coarse, grouped.vectors, attributes, norms), config)
    if not groups:
        return 0.0, 0.0
    refine_groups(groups[:1], model, config.confidences, config.similarities, scale)
    refining, assigning = Clock(), Clock()
    for number, batch in enumerate(batch_groups(groups, config.confidences, _BATCH)):
        with refining.running():
            refined = refine_groups(batch, model, config.confidences, config.similarities, scale)
        together = refined_groups(batch, refined, coarse.thresholds)
        if number == 0:
            _assign(together[:1], config)
        with assigning.running():
            _assign(together, config)
    scored = sum(scored_pairs(len(group.face_ids), config.confidences) for group in groups)
    return refining.seconds / scored, assigning.seconds / scored


def _assign(groups: list[RefinedGroup], config: Config) -> None:
    group = join_refined(groups)
    assign_faces(group.face_ids, group.thresholds, group.keys, group.refinement, config.clusters)


def _some_groups(groups: Sequence[Group], config: Config) -> list[Group]:
    """Take groups of two and more in a random order until their pairs are enough."""
    taken, pairs = [], 0
    for number in np.random.default_rng(0).permutation(len(groups)).tolist():
        if pairs >= REFINED:
            break
        own = scored_pairs(len(groups[number].face_ids), config.confidences)
        if own:
            taken.append(groups[number])
            pairs += own
    return taken


def _few(lists: NeighbourLists) -> NeighbourLists:
    end = lists.offsets[min(_WARM_UP, len(lists.face_ids))]
    part = NeighbourLists(
        lists.face_ids[:_WARM_UP],
        lists.offsets[: _WARM_UP + 1],
        lists.neighbours[:end],
        lists.cosines[:end],
    )
    return join_lists([part])
