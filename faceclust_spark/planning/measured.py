"""All that is measured on a sample, before anything is predicted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.kernels.cells import Cells, cell_count
from faceclust_spark.kernels.faces import PreparedFaces
from faceclust_spark.kernels.in_memory import scale_of
from faceclust_spark.kernels.thresholds import Thresholds, choose_thresholds
from faceclust_spark.planning.rates import (
    Rates,
    Search,
    prepare_sample,
    time_cells,
    time_groups,
    time_probes,
    time_refinement,
    time_search,
)
from faceclust_spark.planning.routing import edge_recall, routed_cells
from faceclust_spark.planning.sample import GallerySample
from faceclust_spark.planning.structure import Structure, structure_of

if TYPE_CHECKING:
    from faceclust_spark.kernels.model import Model

ENOUGH_RECALL = 0.85  # of links: a person hangs together by fewer; below it more cells are probed
MOST_PROBES = 64

log = logging.getLogger(__name__)


class Measured(NamedTuple):
    """What the sample tells of the gallery and of this machine."""

    thresholds: Thresholds  # of the gallery
    structure: Structure
    rates: Rates
    search: Search  # of the sample's own neighbours
    recall: float  # of its links at the middle threshold, where chance makes none
    vectors: NDArray[np.int16]  # (m, d) in random order
    routing: Cells  # by which the sample is routed as the gallery would be
    config: Config  # with the probes that were needed


def measure(sample: GallerySample, faces: int, config: Config, model: Model) -> Measured:
    """Run the kernels on the sample of a gallery of `faces` faces, and time them.

    The source's people are taken to be whole: of a larger gallery than the source there are more people, each
    with as many faces.
    """
    prepared, prepare = prepare_sample(sample)
    count = len(prepared.face_ids)
    thresholds = _thresholds(prepared, faces, config)
    if thresholds.doubt:
        log.warning("%s", thresholds.doubt)
    routing, train = time_cells(prepared.vectors, routed_cells(faces, count, config), config)
    found = _search(prepared, config)
    config = found.config
    order = np.argsort(prepared.face_ids)
    own = _thresholds(prepared, count, config)
    sampled, forest, cut = time_groups(found.search.lists, prepared.vectors[order], own, config)
    share = min(1.0, count / sample.rows)
    structure = structure_of(prepared.vectors, share, faces, sampled, config)
    refine, assign = time_refinement(structure.grouped, prepared, scale_of(thresholds), model, config)
    rates = Rates(
        prepare=prepare,
        train=train,
        probe=time_probes(prepared.vectors, routing, config.neighbours.probes),
        search=found.per_pair,
        merge=found.per_entry,
        forest=forest,
        cut=cut,
        refine=refine,
        assign=assign,
    )
    return Measured(
        thresholds, structure, rates, found.search, found.recall, prepared.vectors, routing, config
    )


class _Found(NamedTuple):
    """The sample's neighbours, by as many probes as were needed."""

    search: Search
    per_pair: float
    per_entry: float
    recall: float
    config: Config


def _search(prepared: PreparedFaces, config: Config) -> _Found:
    """Search the sample's own neighbours; with twice the probes where too many links are missed."""
    count = len(prepared.face_ids)
    order = np.argsort(prepared.face_ids)
    own = _thresholds(prepared, count, config)
    cells, _ = time_cells(prepared.vectors, cell_count(count, config.cells), config)
    while True:
        search, per_pair, per_entry = time_search(
            prepared.face_ids[order], prepared.vectors[order], cells, own.floor, config
        )
        recall = edge_recall(search.lists, prepared.vectors[order], own.groups[len(own.groups) // 2], config)
        probes = config.neighbours.probes
        if recall >= ENOUGH_RECALL or probes >= min(MOST_PROBES, len(cells.centroids)):
            return _Found(search, per_pair, per_entry, recall, config)
        neighbours = config.neighbours.model_copy(update={"probes": 2 * probes})
        config = config.model_copy(update={"neighbours": neighbours})


def _thresholds(prepared: PreparedFaces, faces: int, config: Config) -> Thresholds:
    some = slice(config.coarse_groups.random_pairs_sample)
    return choose_thresholds(
        prepared.vectors[some],
        faces,
        config.neighbours,
        config.coarse_groups,
        prepared.norms[some],
        prepared.attributes[some],
    )
