"""Cells that are divided because too many faces visit them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_neighbours import (
    as_dict,
    assert_found_once,
    brute_force,
    brute_probes,
    make_faces,
    search_in_shards,
    some_cells,
)

from faceclust_spark.config import NeighboursConfig
from faceclust_spark.kernels import crowds
from faceclust_spark.kernels.best import EVERYWHERE
from faceclust_spark.kernels.cells import FLAT_PROBED, Cells, mean_directions, probe_cells
from faceclust_spark.kernels.crowds import (
    FACES_PER_PART,
    PROBED_PARTS,
    centred,
    part_count,
    train_parts,
    visit_parts,
    visitor_work,
)
from faceclust_spark.kernels.grid import grid_scale, normalise, quantise
from faceclust_spark.kernels.neighbours import find_neighbours

DIMENSION, LARGEST = 24, 300


def away_from_the_mean(vectors: np.ndarray) -> np.ndarray:
    """Directions from the mean in Python's own numbers."""
    mean = [round(sum(column) / len(vectors)) for column in vectors.T.tolist()]
    rows = []
    for row in vectors.tolist():
        away = [x - y for x, y in zip(row, mean, strict=True)]
        length = max(math.sqrt(sum(x * x for x in away)), 1.0)
        rows.append([round(grid_scale(len(row)) * (x / length)) for x in away])
    return np.array(rows, np.int16)


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
            away = away_from_the_mean(vectors[rows])
            parts = train_parts(away)
            in_part = np.zeros((len(rows), len(parts.centroids)), np.float32)
            np.put_along_axis(in_part, brute_probes(away, parts, PROBED_PARTS), 1, axis=1)
            if 2 * (in_part.sum(axis=0) ** 2).sum() < len(rows) ** 2:
                together = in_part @ in_part.T > 0
        own = np.ix_(rows, rows)
        met[own] |= together & ~decided[own]
        decided[own] = True
    return met


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few hundred faces be a crowd."""
    monkeypatch.setattr(crowds, "FACES_PER_PART", 3)


@pytest.mark.parametrize("probes", [1, 2, 3])
def test_faces_meet_in_the_parts_that_they_are_nearest_to(small_parts, probes: int) -> None:
    face_ids, vectors = make_faces(3_000, DIMENSION, seed=probes, copies=300)
    cells = some_cells(vectors, 4)
    config = NeighboursConfig(k=9, probes=probes, largest_cell=LARGEST)
    allowed = pairs_that_meet(face_ids, vectors, cells, probes)
    whole = find_neighbours(face_ids, vectors, cells, 0.5, NeighboursConfig(k=9, probes=probes))
    found = as_dict(find_neighbours(face_ids, vectors, cells, 0.5, config))
    assert found == brute_force(face_ids, vectors, 0.5, 9, allowed)
    assert found != as_dict(whole)  # it was divided


@pytest.mark.parametrize(("shards", "block"), [(1, 64), (2, 5), (5, 4_096), (12, 17)])
def test_shards_and_blocks_do_not_matter_to_parts(small_parts, shards: int, block: int) -> None:
    face_ids, vectors = make_faces(3_000, DIMENSION, seed=8, copies=300)
    cells, config = some_cells(vectors, 12), NeighboursConfig(k=9, probes=3, largest_cell=LARGEST)
    expected = as_dict(find_neighbours(face_ids, vectors, cells, 0.2, config))
    assert search_in_shards(face_ids, vectors, cells, config, shards, block) == expected
    whole = find_neighbours(face_ids, vectors, cells, 0.2, NeighboursConfig(k=9, probes=3))
    assert expected != as_dict(whole)  # it was divided


def test_a_pair_of_cells_in_parts_is_found_once(small_parts) -> None:
    face_ids, vectors = make_faces(3_000, DIMENSION, seed=5)
    assert_found_once(face_ids, vectors, NeighboursConfig(k=1_000, largest_cell=LARGEST))


def test_nearly_nothing_is_missed_for_less_than_half_of_the_pairs() -> None:
    face_ids, vectors = make_faces(8_000, 128, seed=1)
    cells = some_cells(vectors, 2)
    whole, limit, divided = (
        find_neighbours(face_ids, vectors, cells, 0.4, NeighboursConfig(k=9, probes=2, largest_cell=largest))
        for largest in (8_001, 8_000, 7_999)
    )
    np.testing.assert_array_equal(limit.neighbours, whole.neighbours)
    assert 0.99 * len(whole.neighbours) <= len(divided.neighbours) < len(whole.neighbours)
    assert compared(vectors) < 8_000**2 / 4


def compared(vectors: np.ndarray) -> float:
    """How many pairs are compared in parts."""
    return sum(len(some) ** 2 / 2 for _, some in visit_parts(vectors, np.arange(len(vectors))))


def make_crowd(seed: int, common: float) -> np.ndarray:
    """20,000 visitors of people of very different size, who have more or less in common."""
    generator = np.random.default_rng(seed)
    sizes = np.minimum(1 + generator.pareto(1.2, 20_000) * 3, 2_000).astype(int)
    person = generator.permutation(np.repeat(np.arange(20_000), sizes)[:20_000])
    people = normalise(generator.normal(size=(20_000, 64)))
    raw = normalise(people + common * people[0])[person] + 0.1 * generator.normal(size=(20_000, 64))
    return quantise(normalise(raw))


@pytest.mark.parametrize("common", [0.0, 1.0])
def test_the_law_tells_the_pairs_that_are_compared(common: float) -> None:
    found = np.mean([compared(make_crowd(seed, common)) / 20_000 for seed in (5, 6, 7)])
    assert visitor_work(20_000, 8_192).pairs == pytest.approx(found, rel=0.1)


def test_the_law_tells_the_comparisons_with_parts(monkeypatch) -> None:
    counted = []

    def probe(vectors: np.ndarray, cells: Cells, probes: int) -> np.ndarray:
        counted.append(len(vectors) * len(cells.centroids))
        return probe_cells(vectors, cells, probes)

    monkeypatch.setattr(crowds, "probe_cells", probe)
    compared(make_crowd(5, 0.0))
    assert visitor_work(20_000, 8_192).parts == pytest.approx(sum(counted) / 20_000, rel=0.1)


def test_visitors_alone_decide_over_the_parts(small_parts) -> None:
    _, vectors = make_faces(6_000, DIMENSION, seed=4)
    rows = np.arange(2_000) * 3
    parts = list(visit_parts(vectors, rows))
    visited = parts[0][0].visited
    assert visited.shape == (6_000, PROBED_PARTS)
    assert (np.diff(visited[rows], axis=1) > 0).all()
    for place, some in parts:
        np.testing.assert_array_equal(some, rows[(visited[rows] == place.cell).any(axis=1)])
    moved = list(visit_parts(vectors[rows], np.arange(2_000)))
    assert [(some * 3).tolist() for _, some in moved] == [some.tolist() for _, some in parts]


def test_a_cell_stays_whole_where_parts_would_not_pay(small_parts) -> None:
    _, vectors = make_faces(3_000, DIMENSION, seed=0)
    copies = vectors.copy()
    copies[::2] = copies[0]
    for visitors in (vectors[:1], vectors[:2], np.repeat(vectors[:1], 400, axis=0), vectors[:300], copies):
        rows = np.arange(len(visitors))
        ((place, some),) = visit_parts(visitors, rows)
        assert place is EVERYWHERE
        assert some is rows
    assert len(list(visit_parts(vectors, np.arange(3_000)))) > 500


@pytest.mark.parametrize(("visitors", "is_trained"), [(6_449, False), (6_450, True)])
def test_parts_too_few_to_pay_are_not_trained(monkeypatch, visitors: int, is_trained: bool) -> None:
    trained = []
    monkeypatch.setattr(crowds, "train_parts", lambda own: trained.append(len(own)) or train_parts(own))
    pairs = compared(make_faces(visitors, DIMENSION, seed=0)[1])
    assert is_trained == bool(trained) == (visitor_work(visitors, LARGEST).parts > 0)
    assert is_trained or pairs == visitors**2 / 2


def test_parts_are_small_until_there_are_as_many_as_a_face_is_compared_with() -> None:
    assert [part_count(visitors) for visitors in (1, 49, 50, 99, 100, 5_000)] == [1, 1, 1, 1, 2, 100]
    assert part_count(FACES_PER_PART * FLAT_PROBED) == part_count(10**7) == FLAT_PROBED
    work = [visitor_work(visitors, 8_192) for visitors in (8_192, 150_000, 1_000_000)]
    assert work[0] == (4_096, 0)
    assert work[1].pairs + work[1].parts < 150_000 / 2 / 6
    assert work[2].pairs > work[1].pairs


def test_directions_that_cancel_each_other_have_no_mean() -> None:
    vectors = np.array([[300, -20], [-300, 20], [0, 7]], np.int16)
    means = mean_directions(vectors, np.array([0, 2]))
    assert means.tolist() == [[0, 0], [0, grid_scale(2)]]
    with np.errstate(all="raise"):
        assert centred(vectors, np.array([1, 1])).tolist() == [[0, 0], [0, 0]]


def test_the_mean_is_that_of_all_blocks(monkeypatch) -> None:
    monkeypatch.setattr(crowds, "PROBE_BLOCK", 100)
    _, vectors = make_faces(500, DIMENSION, seed=2)
    vectors[:100] = vectors[0]
    rows = np.flatnonzero(np.arange(500) % 5)
    np.testing.assert_array_equal(centred(vectors, rows), away_from_the_mean(vectors[rows]))
