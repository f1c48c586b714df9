"""How many tasks a face visits, and what the search misses, told by the sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.kernels.cells import Cells, cell_count, cell_parts, probe_cells
from faceclust_spark.kernels.neighbours import NeighbourLists, search_faces
from faceclust_spark.kernels.recall import audit_recall

FACES_PER_CELL = 32  # of the sample: fewer would make cells of noise
AUDITED = 500  # faces whose neighbours are searched exactly
_ROUTED = 10_000  # faces whose visits are counted


def routed_cells(faces: int, sampled: int, config: Config) -> int:
    """Give with how many cells the sample is routed: those of the gallery, or as many as it can train."""
    return max(min(cell_count(faces, config.cells), sampled // FACES_PER_CELL), 1)


def visits_per_face(vectors: NDArray[np.int16], cells: Cells, shards: int, probes: int) -> float:
    """Give how many of `shards` tasks a face visits on average, `(m, d)` routed by these cells.

    A task is a stretch of neighbouring cells, however many there are. With one cell, search is exact, and
    everyone visits every task.
    """
    if len(cells.centroids) == 1:
        return float(shards)
    probed = probe_cells(vectors[:_ROUTED], cells, probes)
    visited = np.sort(cell_parts(cells, shards)[probed], axis=1)
    return float(1 + (np.diff(visited, axis=1) != 0).sum() / len(visited))


def gallery_visits(
    vectors: NDArray[np.int16], cells: Cells, gallery_cells: int, shards: int, probes: int
) -> float:
    """Give how many of `shards` tasks a face visits in a gallery of more cells than the sample can train.

    Few shards cut the sample's cells where they cut the gallery's. Where they are many, that is too many
    visits, and shards fewer by the square root of the cells' ratio are too few: their mean was within 16 % of
    the visits counted with 1,024 and 4,096 cells, 4 to 256 shards, told by 100 and 400 cells.
    """
    found = visits_per_face(vectors, cells, shards, probes)
    own = len(cells.centroids)
    if gallery_cells <= own or shards <= own**0.5:
        return found
    fewer = max(1, round(shards * (own / gallery_cells) ** 0.5))
    return (found + visits_per_face(vectors, cells, fewer, probes)) / 2


def edge_recall(lists: NeighbourLists, vectors: NDArray[np.int16], lowest: float, config: Config) -> float:
    """Give the share of the true neighbours of cosine >= `lowest` that the sample's own search has found.

    Rows of vectors `(m, d)` follow the lists' face ids; 500 of them are searched exactly.
    """
    face_ids, k = lists.face_ids, config.neighbours.k
    some = np.linspace(0, len(face_ids) - 1, min(AUDITED, len(face_ids))).astype(np.int64)
    exact = search_faces(face_ids[some], vectors[some], face_ids, vectors, lowest, k)
    lengths = np.diff(lists.offsets)[some]
    inside = np.concatenate([np.arange(lists.offsets[row], lists.offsets[row + 1]) for row in some])
    found = NeighbourLists(
        face_ids[some],
        np.concatenate([[0], np.cumsum(lengths)]),
        lists.neighbours[inside],
        lists.cosines[inside],
    )
    recall = audit_recall(exact, found, lowest).edge_recall
    return 1.0 if recall is None else recall
