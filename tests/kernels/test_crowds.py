"""Cells that are divided because too many faces visit them."""

from __future__ import annotations

import numpy as np
import pytest
from test_neighbours import as_dict, brute_force, brute_probes, make_faces, some_cells

from faceclust_spark.config import NeighboursConfig
from faceclust_spark.kernels.cells import FLAT_PROBED, Cells
from faceclust_spark.kernels.crowds import (
    FACES_PER_PART,
    PROBED_PARTS,
    part_count,
    train_parts,
    visit_parts,
    visitor_work,
)
from faceclust_spark.kernels.neighbours import find_neighbours

DIMENSION, LARGEST = 24, 300


def pairs_that_meet(face_ids: np.ndarray, vectors: np.ndarray, cells: Cells, probes: int) -> np.ndarray:
    """Which pairs meet: in the smallest cell that both visit, and there in a part, where it is divided."""
    visits = np.zeros((len(vectors), len(cells.centroids)), bool)
    np.put_along_axis(visits, brute_probes(vectors, cells, probes), True, axis=1)
    met = np.zeros((len(vectors), len(vectors)), bool)
    decided = met.copy()
    for cell in range(len(cells.centroids)):
        rows = np.flatnonzero(visits[:, cell])
        rows = rows[np.argsort(face_ids[rows])]
        together = np.ones((len(rows), len(rows)), bool)
        if len(rows) > LARGEST:
            parts = train_parts(vectors[rows])
            in_part = np.zeros((len(rows), len(parts.centroids)), int)
            np.put_along_axis(in_part, brute_probes(vectors[rows], parts, PROBED_PARTS), 1, axis=1)
            together = in_part @ in_part.T > 0
        own = np.ix_(rows, rows)
        met[own] |= together & ~decided[own]
        decided[own] = True
    return met


@pytest.mark.parametrize("probes", [1, 2, 3])
def test_faces_meet_in_the_parts_that_they_are_nearest_to(probes: int) -> None:
    face_ids, vectors = make_faces(3_000, DIMENSION, seed=probes, copies=300)
    cells = some_cells(vectors, 4)
    config = NeighboursConfig(k=9, probes=probes, largest_cell=LARGEST)
    allowed = pairs_that_meet(face_ids, vectors, cells, probes)
    whole = find_neighbours(face_ids, vectors, cells, 0.5, NeighboursConfig(k=9, probes=probes))
    found = as_dict(find_neighbours(face_ids, vectors, cells, 0.5, config))
    assert found == brute_force(face_ids, vectors, 0.5, 9, allowed)
    assert found != as_dict(whole)  # it was divided


def test_nearly_nothing_is_missed_for_less_than_half_of_the_pairs() -> None:
    face_ids, vectors = make_faces(6_000, 128, seed=1)
    cells = some_cells(vectors, 2)
    whole, divided = (
        find_neighbours(face_ids, vectors, cells, 0.4, NeighboursConfig(k=9, probes=2, largest_cell=largest))
        for largest in (len(face_ids), len(face_ids) - 1)
    )
    assert len(divided.neighbours) >= 0.99 * len(whole.neighbours)
    assert visitor_work(6_000, 5_999).pairs < visitor_work(6_000, 6_000).pairs / 2 == 1_500


def test_visitors_alone_decide_over_the_parts() -> None:
    _, vectors = make_faces(900, DIMENSION, seed=4)
    rows = np.arange(900) * 3
    parts = list(visit_parts(vectors, rows, 3_000))
    visited = parts[0][0].visited
    assert visited.shape == (3_000, PROBED_PARTS)
    assert (np.diff(visited[rows], axis=1) > 0).all()
    for place, some in parts:
        np.testing.assert_array_equal(some, np.flatnonzero((visited[rows] == place.cell).any(axis=1)))


def test_copies_and_few_visitors_have_one_part() -> None:
    _, vectors = make_faces(1, DIMENSION, seed=0)
    for copies in (1, 2, 400):
        (only,) = visit_parts(np.repeat(vectors, copies, axis=0), np.arange(copies), copies)
        assert only[0].cell == 0
        assert only[1].tolist() == list(range(copies))


def test_parts_are_small_until_there_are_as_many_as_a_face_is_compared_with() -> None:
    assert [part_count(visitors) for visitors in (1, 49, 50, 5_000)] == [1, 1, 1, 100]
    assert part_count(FACES_PER_PART * FLAT_PROBED) == part_count(10**7) == FLAT_PROBED
    work = [visitor_work(visitors, 8_192) for visitors in (8_192, 150_000, 1_000_000)]
    assert work[0] == (4_096, 0)
    assert work[1].pairs < 1_500
    assert work[1].pairs + work[1].parts < 150_000 / 2 / 6
    assert work[2].pairs > work[1].pairs
