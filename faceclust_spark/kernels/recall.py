"""How many of the true neighbours the search has found, from a sample of faces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from faceclust_spark.kernels.neighbours import NeighbourLists

SAMPLE = "recall_audit"  # purpose of the sample, see ids.sample_rows
NO_FLOOR = -2.0  # below any cosine


class Recall(NamedTuple):
    """Shares are 0 to 1, None where there is nothing to find.

    edge_recall: of the true K nearest neighbours at or above the floor. That is what clusters are made of.
    recall_at_k: of the true K nearest neighbours, whatever their cosine; those below the floor are never
    found.
    """

    sampled_faces: int
    true_edges: int  # of the sampled faces: true K nearest neighbours at or above the floor
    edge_recall: float | None
    recall_at_k: float | None


def audit_recall(exact: NeighbourLists, found: NeighbourLists, floor: float) -> Recall:
    """Compare the lists of a sample of faces with those of an exact search without a floor.

    Both hold the same faces, each once, and were cut to the same K.

    Raises ValueError where they do not hold the same faces.
    """
    order = np.argsort(found.face_ids)
    if not np.array_equal(found.face_ids[order], np.sort(exact.face_ids)):
        raise ValueError("the audit needs the lists of the sampled faces, neither more nor fewer")
    true_edges = edges_found = all_found = 0
    for face in range(len(exact.face_ids)):
        true = slice(exact.offsets[face], exact.offsets[face + 1])
        row = order[np.searchsorted(found.face_ids, exact.face_ids[face], sorter=order)]
        listed = found.neighbours[found.offsets[row] : found.offsets[row + 1]]
        hit = np.isin(exact.neighbours[true], listed)
        edge = exact.cosines[true] >= np.float32(floor)
        true_edges += int(edge.sum())
        edges_found += int((hit & edge).sum())
        all_found += int(hit.sum())
    return Recall(
        len(exact.face_ids),
        true_edges,
        edges_found / true_edges if true_edges else None,
        all_found / len(exact.neighbours) if len(exact.neighbours) else None,
    )
