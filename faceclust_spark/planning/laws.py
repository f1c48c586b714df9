"""How counts, bytes and memory follow from a gallery's size, its structure and the settings.

n faces of d components and a attributes, t first thresholds; all sizes in bytes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from faceclust_spark.config import Config
from faceclust_spark.kernels.cells import FLAT_TRAINED, cell_count, sample_size
from faceclust_spark.kernels.crowds import PROBED_PARTS, visitor_work
from faceclust_spark.kernels.grouping import scored_pairs
from faceclust_spark.kernels.ids import sure_sample
from faceclust_spark.kernels.relations import PAIR_INPUTS
from faceclust_spark.planning.structure import Structure

STAGES = ("ingest", "thresholds", "cells", "neighbours", "coarse_groups", "confidences", "clusters")
REFINED_AT_ONCE = 500_000  # pairs of a batch
_WORKER = 300 << 20  # a Python worker with torch and faiss loaded
_ORDERED = 2_500.0  # comparisons that take as long as giving a cell its place
EDGE_BYTES = 300.0  # that the one task for the forest holds for each edge, sorted copies included
_READ_AT_ONCE = 128 << 20  # bytes of a table that a task of Spark reads by its defaults
_RANDOM_PAIRS = 2_000  # faces that thresholds are chosen by, by default
_ROW = 24  # a row's own bytes in a shuffle


class Gallery(NamedTuple):
    """The gallery that is planned for."""

    faces: int
    dimension: int
    attributes: int
    value_bytes: int  # of a component in the source: 4 or 8
    thresholds: int


class Counts(NamedTuple):
    """Units of work for the whole gallery."""

    cells: int
    shards: int
    visits: float  # tasks that a face visits
    compared: float  # pairs
    divided: float  # faces with parts of the cells that they visit, as comparisons
    partial_entries: float  # entries of the lists that tasks send to be merged
    entries: float  # neighbours kept
    refined: float  # pairs
    refined_of_one: int  # pairs of the largest root group
    groups: float  # root groups
    trained_on: int  # faces that the driver trains cells on


def count_work(
    gallery: Gallery,
    structure: Structure,
    visits: float,
    shards: int,
    imbalance: float,
    partial: float,
    config: Config,
) -> Counts:
    """Count what a run does.

    A cell has n p / c visitors, p the probes, and all pairs of them are compared: n^2 p^2 / (2 c), more where
    cells differ in size (imbalance), fewer where they are so large that they are divided (kernels.crowds).
    With one cell each face meets each, in both directions.
    """
    faces = gallery.faces
    cells = cell_count(faces, config.cells)
    probes = min(config.neighbours.probes, cells)
    visitors = faces * probes / cells
    work = visitor_work(visitors, config.neighbours.largest_cell)
    uneven = 1.0 if work.pairs < visitors / 2 else imbalance  # pairs in parts grow with their visitors
    compared = float(faces) ** 2 if cells == 1 else uneven * faces * probes * work.pairs
    return Counts(
        cells=cells,
        shards=shards,
        visits=visits,
        compared=compared,
        divided=0.0 if cells == 1 else faces * probes * work.parts,
        partial_entries=0.0 if cells == 1 else faces * structure.entries * partial,
        entries=faces * structure.entries,
        refined=faces * structure.pairs,
        refined_of_one=scored_pairs(structure.largest, config.confidences),
        groups=faces * structure.groups,
        trained_on=sample_size(faces, config.cells),
    )


def training_cost(cells: int, trained_on: int) -> float:
    """Give the comparisons of one round of k-means, about, and what it costs to order the cells as such.

    Each face with each cell, or from 257 cells on with each shard and then with each cell of its shard.
    """
    if cells <= 1:
        return 0.0
    compared = trained_on * (float(cells) if cells <= FLAT_TRAINED else 2.0 * math.sqrt(cells))
    return compared + _ORDERED * cells


def table_bytes(gallery: Gallery, counts: Counts, pairs: float) -> dict[str, float]:
    """Give the size of each large table, as Parquet with Spark's own compression.

    Vectors and log-odds do not compress; the other figures are those of tables of 100,000 and 200,000
    faces.
    """
    faces, levels = gallery.faces, gallery.thresholds
    return {
        "faces": 62.0 * faces,
        "vectors": faces * (2.0 * gallery.dimension + 4.0 * gallery.attributes + 53.0),
        "neighbours": 12.0 * counts.entries + 5.0 * faces,
        "forest": 20.0 * faces,
        "coarse_groups": 14.0 * levels * faces,
        "refinements": 2.0 * pairs + 27.0 * faces,
        "confidences": 9.5 * levels * faces,
        "clusters": 35.0 * faces,
        "cluster_summary": 5.5 * faces,
    }


def shuffle_bytes(
    gallery: Gallery, counts: Counts, structure: Structure, parallelism: int
) -> dict[str, float]:
    """Give what each stage sends between tasks: columns as they are, and a row's own bytes.

    Thresholds and cells: the sample, or of less than twice as many faces each partition's part of it.
    Neighbours: the face to each shard that it visits, lists back. Coarse groups: each task's own forest,
    which keeps nearly all edges where there are many tasks. Confidences and clusters: members, with their
    vectors, twice; once where Spark broadcasts what they are joined to, which it does up to about 10^5 faces.
    """
    faces, levels = gallery.faces, gallery.thresholds
    vector = 2 * gallery.dimension + _ROW
    described = vector + 4 * gallery.attributes + 8 * levels + 44
    together = faces * (1.0 - structure.alone)
    partitions = max(parallelism, math.ceil(faces * vector / _READ_AT_ONCE))
    edges = faces * min(structure.entries, float(parallelism))
    return {
        "ingest": 110.0 * faces,
        "thresholds": vector * _sampled(faces, _RANDOM_PAIRS, partitions),
        "cells": vector * _sampled(faces, counts.trained_on, partitions) if counts.cells > 1 else 0.0,
        "neighbours": faces * counts.visits * (vector + 44) + 12.0 * counts.partial_entries,
        "coarse_groups": 20.0 * edges + 60.0 * faces,
        "confidences": 40.0 * levels * faces + 2.0 * described * together,
        "clusters": 2.0 * counts.refined + 120.0 * faces + 2.0 * (vector + 60) * together,
    }


def _sampled(faces: int, size: int, partitions: int) -> float:
    """Give how many rows travel for a sample (stages.vectors)."""
    enough = sure_sample(size)
    return float(enough if faces > 2 * enough else min(faces, partitions * size))


def source_bytes(gallery: Gallery) -> float:
    """Give the bytes of the source's rows in memory."""
    row = float(gallery.value_bytes) * gallery.dimension + 4.0 * gallery.attributes + 80.0
    return gallery.faces * row


def moved_bytes(gallery: Gallery, tables: dict[str, float], shuffles: dict[str, float]) -> dict[str, float]:
    """Give what each stage reads, writes to a shuffle, reads back from it, and writes to tables."""
    own = {
        "ingest": 2 * source_bytes(gallery) + tables["vectors"] + tables["faces"],
        "thresholds": tables["vectors"],
        "cells": tables["vectors"],
        "neighbours": tables["vectors"] + tables["neighbours"],
        "coarse_groups": tables["neighbours"] + tables["forest"] + tables["coarse_groups"],
        "confidences": 2 * tables["coarse_groups"]
        + tables["vectors"]
        + tables["refinements"]
        + tables["confidences"],
        "clusters": tables["refinements"] + tables["faces"] + tables["vectors"] + tables["clusters"],
    }
    return {stage: own[stage] + 2 * shuffles[stage] for stage in STAGES}


def task_memory(gallery: Gallery, counts: Counts, config: Config) -> dict[str, float]:
    """Give what the Python worker of one task holds, about, and the driver for cells.

    Neighbours: all visitors of a shard, twice while batches are joined, and their best k; of a cell that
    is divided its visitors once more. Coarse groups: the one forest and its sorted copies, in a single
    task. Confidences: a batch of pairs, and the largest group that the sample tells of.
    """
    dimension, k, probes = gallery.dimension, config.neighbours.k, config.neighbours.probes
    visitors = gallery.faces * counts.visits / max(counts.shards, 1)
    crowd = gallery.faces * probes / counts.cells if counts.divided else 0.0
    batch = REFINED_AT_ONCE + counts.refined_of_one
    forest = min(gallery.faces, config.coarse_groups.max_forest_edges)
    return {
        "cells": counts.trained_on * dimension * 14.0,
        "neighbours": _WORKER
        + visitors * (4.0 * dimension + 8.0 * probes + 8.0 * k + 32.0)
        + crowd * (2.0 * dimension + 16.0 * PROBED_PARTS),
        "coarse_groups": _WORKER + EDGE_BYTES * forest,
        "confidences": _WORKER + 4.0 * (PAIR_INPUTS + 8) * min(batch, REFINED_AT_ONCE + counts.refined),
    }
