from __future__ import annotations

import numpy as np
import pytest

from faceclust_spark.config import NeighboursConfig
from faceclust_spark.kernels.cells import Cells
from faceclust_spark.kernels.grid import normalise, quantise
from faceclust_spark.kernels.neighbours import NeighbourLists, find_neighbours, search_faces
from faceclust_spark.kernels.recall import NO_FLOOR, Recall, audit_recall


def lists(content: dict[int, list[tuple[int, float]]]) -> NeighbourLists:
    pairs = [pair for found in content.values() for pair in found]
    return NeighbourLists(
        np.array(list(content), np.int64),
        np.cumsum([0, *(len(found) for found in content.values())]),
        np.array([face for face, _ in pairs], np.int64),
        np.array([cosine for _, cosine in pairs], np.float32),
    )


def test_counts_by_hand() -> None:
    exact = lists({3: [(1, 0.9), (2, 0.6), (4, 0.2)], 1: [(3, 0.9), (2, 0.3), (4, 0.1)]})
    found = lists({1: [(3, 0.9)], 3: [(1, 0.9)]})
    assert audit_recall(exact, found, 0.5) == Recall(2, 3, 2 / 3, 2 / 6)


def test_nothing_to_find() -> None:
    empty: dict[int, list[tuple[int, float]]] = {1: [], 2: []}
    assert audit_recall(lists(empty), lists(empty), 0.5) == Recall(2, 0, None, None)
    exact = lists({1: [(2, 0.4)], 2: [(1, 0.4)]})
    assert audit_recall(exact, lists(empty), 0.5) == Recall(2, 0, None, 0.0)


def test_other_faces_are_refused() -> None:
    with pytest.raises(ValueError, match="neither more nor fewer"):
        audit_recall(lists({1: []}), lists({2: []}), 0.5)


def test_exact_search_has_full_recall_and_cells_have_less() -> None:
    generator = np.random.default_rng(0)
    people = generator.normal(size=(40, 24))
    raw = people[generator.integers(0, 40, 400)] + 0.8 * generator.normal(size=(400, 24))
    face_ids, vectors = np.arange(400), quantise(normalise(raw))
    some = np.arange(0, 400, 9)
    exact = search_faces(face_ids[some], vectors[some], face_ids, vectors, NO_FLOOR, 5)
    recalls = []
    for cells in (1, 16):
        centroids = Cells(vectors[:cells], np.zeros(cells, np.int32))
        found = find_neighbours(face_ids, vectors, centroids, 0.3, NeighboursConfig(k=5, probes=1))
        content = {
            face: list(zip(found.neighbours[a:b].tolist(), found.cosines[a:b].tolist(), strict=True))
            for face, a, b in zip(found.face_ids.tolist(), found.offsets, found.offsets[1:], strict=False)
            if face in some
        }
        recalls.append(audit_recall(exact, lists(content), 0.3))
    assert recalls[0].edge_recall == 1.0
    assert recalls[1].edge_recall is not None and 0.2 < recalls[1].edge_recall < 1.0
    assert recalls[0].true_edges == recalls[1].true_edges
