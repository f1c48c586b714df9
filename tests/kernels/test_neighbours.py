from __future__ import annotations

import numpy as np
import pytest

from faceclust_spark.config import NeighboursConfig
from faceclust_spark.kernels.cells import Cells, cell_parts, probe_cells
from faceclust_spark.kernels.grid import dots_to_cosines, grid_scale, normalise, quantise
from faceclust_spark.kernels.neighbours import (
    BLOCK,
    NeighbourLists,
    find_neighbours,
    join_lists,
    lowest_dot,
    merge_lists,
    search_cells,
    search_faces,
    search_slice,
)


def make_faces(count: int, dimension: int, seed: int, copies: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Faces of people of about six faces; the last `copies` are copies of the first ones."""
    generator = np.random.default_rng(seed)
    people = generator.normal(size=(max(count // 6, 1), dimension))
    raw = people[generator.integers(0, len(people), count)] + 0.7 * generator.normal(size=(count, dimension))
    if copies:
        raw[-copies:] = raw[:copies]
    return generator.permutation(10 * count)[:count].astype(np.int64), quantise(normalise(raw))


def one_cell(dimension: int) -> Cells:
    return Cells(np.zeros((1, dimension), np.int16), np.zeros(1, np.int32))


def some_cells(vectors: np.ndarray, count: int) -> Cells:
    return Cells(vectors[:: len(vectors) // count][:count], (np.arange(count) // 4).astype(np.int32))


def brute_force(
    face_ids: np.ndarray, vectors: np.ndarray, floor: float, k: int, allowed: np.ndarray | None = None
) -> dict[int, list[tuple[int, np.float32]]]:
    """All pairs, whole numbers only, sorted by Python."""
    wide = vectors.astype(np.int64)
    dots = np.einsum("id,jd->ij", wide, wide)
    cosines = dots.astype(np.float32) * np.float32(1 / grid_scale(vectors.shape[1]) ** 2)
    cosines = np.minimum(cosines, np.float32(1))
    kept = cosines >= np.float32(floor)
    np.fill_diagonal(kept, False)
    if allowed is not None:
        kept &= allowed
    result = {}
    for row, face in enumerate(face_ids.tolist()):
        pairs = [(int(face_ids[j]), cosines[row, j]) for j in np.flatnonzero(kept[row])]
        result[face] = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k]
    return result


def as_dict(lists: NeighbourLists) -> dict[int, list[tuple[int, np.float32]]]:
    assert (np.diff(lists.face_ids) > 0).all()
    assert len(lists.offsets) == len(lists.face_ids) + 1
    assert lists.offsets[-1] == len(lists.neighbours) == len(lists.cosines)
    assert (lists.offsets.dtype, lists.neighbours.dtype, lists.cosines.dtype) == (
        np.int64,
        np.int64,
        np.float32,
    )
    return {
        int(face): list(zip(lists.neighbours[a:b].tolist(), lists.cosines[a:b], strict=True))
        for face, a, b in zip(lists.face_ids, lists.offsets[:-1], lists.offsets[1:], strict=True)
    }


def visited_pairs(vectors: np.ndarray, cells: Cells, probes: int) -> np.ndarray:
    """Which pairs count: those that probe the same cell."""
    visits = np.zeros((len(vectors), len(cells.centroids)), int)
    np.put_along_axis(visits, brute_probes(vectors, cells, probes), 1, axis=1)
    return visits @ visits.T > 0


def brute_probes(vectors: np.ndarray, cells: Cells, probes: int) -> np.ndarray:
    dots = vectors.astype(np.int64) @ cells.centroids.astype(np.int64).T
    return np.argsort(-dots, axis=1, kind="stable")[:, :probes]


@pytest.mark.parametrize("count", [1, 2, 3, 50, 333])
@pytest.mark.parametrize(("floor", "k"), [(0.4, 5), (-1.0, 4), (0.2, 1_000), (0.9999, 3)])
def test_one_cell_equals_brute_force(count: int, floor: float, k: int) -> None:
    face_ids, vectors = make_faces(count, 32, seed=count, copies=count // 5)
    found = find_neighbours(face_ids, vectors, one_cell(32), floor, NeighboursConfig(k=k))
    assert as_dict(found) == brute_force(face_ids, vectors, floor, k)


@pytest.mark.parametrize("probes", [1, 2, 5, 12])
@pytest.mark.parametrize(("floor", "k"), [(0.3, 3), (-1.0, 7), (0.0, 1_000)])
def test_cells_equal_brute_force_over_visited_pairs(probes: int, floor: float, k: int) -> None:
    face_ids, vectors = make_faces(240, 24, seed=probes, copies=60)
    cells = some_cells(vectors, 12)
    found = find_neighbours(face_ids, vectors, cells, floor, NeighboursConfig(k=k, probes=probes))
    allowed = visited_pairs(vectors, cells, probes)
    assert as_dict(found) == brute_force(face_ids, vectors, floor, k, allowed)


def test_all_cells_probed_is_exact() -> None:
    face_ids, vectors = make_faces(200, 16, seed=3)
    found = find_neighbours(face_ids, vectors, some_cells(vectors, 9), 0.1, NeighboursConfig(k=6, probes=9))
    assert as_dict(found) == brute_force(face_ids, vectors, 0.1, 6)


def search_in_shards(
    face_ids: np.ndarray,
    vectors: np.ndarray,
    cells: Cells,
    config: NeighboursConfig,
    shards: int,
    block: int = BLOCK,
) -> dict[int, list[tuple[int, np.float32]]]:
    """What tasks that each know some faces, shuffled, find at a floor of 0.2."""
    shuffled = np.random.default_rng(shards).permutation(len(face_ids))
    ids, mixed = face_ids[shuffled], vectors[shuffled]
    probed, shard_of_cell = probe_cells(mixed, cells, config.probes), cell_parts(cells, shards)
    found = []
    for shard in reversed(range(shards)):
        searched = shard_of_cell == shard
        here = searched[probed].any(axis=1)
        found.append(search_cells(ids[here], mixed[here], probed[here], searched, 0.2, config, block))
    return as_dict(merge_lists(found, config.k))


def assert_found_once(face_ids: np.ndarray, vectors: np.ndarray, config: NeighboursConfig) -> None:
    """One cell after the other finds each pair once."""
    cells = some_cells(vectors, 8)
    probed = probe_cells(vectors, cells, config.probes)
    pairs = []
    for cell in range(8):
        searched = np.arange(8) == cell
        found = as_dict(search_cells(face_ids, vectors, probed, searched, 0.0, config))
        pairs += [(face, other) for face, others in found.items() for other, _ in others]
    assert len(pairs) == len(set(pairs)) > 0


@pytest.mark.parametrize("shards", [1, 2, 5, 12])
@pytest.mark.parametrize("block", [1, 7, 64, 4_096])
def test_shards_and_blocks_do_not_matter(shards: int, block: int) -> None:
    face_ids, vectors = make_faces(240, 24, seed=8, copies=40)
    cells, config = some_cells(vectors, 12), NeighboursConfig(k=4, probes=3)
    expected = find_neighbours(face_ids, vectors, cells, 0.2, config)
    assert search_in_shards(face_ids, vectors, cells, config, shards, block) == as_dict(expected)


@pytest.mark.parametrize("shards", [1, 2, 5, 12])
@pytest.mark.parametrize("dimension", [32, 128])
def test_shards_do_not_matter_to_near_copies(shards: int, dimension: int) -> None:
    generator = np.random.default_rng(dimension)
    raw = np.repeat(generator.normal(size=(100, dimension)), 20, axis=0)
    vectors = quantise(normalise(raw + 0.002 * generator.normal(size=raw.shape)))
    face_ids = generator.permutation(len(vectors)).astype(np.int64)
    cells, config = some_cells(vectors, 12), NeighboursConfig(k=40, probes=4)
    found = search_in_shards(face_ids, vectors, cells, config, shards)
    assert found == brute_force(face_ids, vectors, 0.2, 40, visited_pairs(vectors, cells, 4))
    cosines = np.array([cosine for others in found.values() for _, cosine in others[:15]])
    assert cosines.max() <= 1
    assert (cosines > 1 - 1e-6).mean() > 0.2  # many would be above it


def test_a_pair_is_found_once() -> None:
    face_ids, vectors = make_faces(200, 16, seed=5)
    assert_found_once(face_ids, vectors, NeighboursConfig(k=1_000))


@pytest.mark.parametrize("parts", [1, 3, 101, 150])
def test_slices_join_to_the_whole(parts: int) -> None:
    face_ids, vectors = make_faces(101, 16, seed=6)
    slices = [search_slice(face_ids, vectors, part, parts, 0.1, 5) for part in range(parts)]
    assert as_dict(join_lists(slices)) == brute_force(face_ids, vectors, 0.1, 5)


@pytest.mark.parametrize("block", [1, 10, 4_096])
def test_some_faces_among_others(block: int) -> None:
    face_ids, vectors = make_faces(90, 16, seed=7)
    some = np.argsort(face_ids)[::7]
    expected = brute_force(face_ids, vectors, 0.1, 5)
    parts = [
        search_faces(face_ids[some], vectors[some], face_ids[rows], vectors[rows], 0.1, 5, block)
        for rows in (np.arange(50, 90), np.arange(0), np.arange(50))
    ]
    assert as_dict(merge_lists(parts, 5)) == {face: expected[face] for face in face_ids[some].tolist()}


def test_copies_tie_to_the_smaller_face_id() -> None:
    vectors = np.repeat(make_faces(1, 32, seed=0)[1], 6, axis=0)
    face_ids = np.array([50, 10, 40, 20, 60, 30])
    found = as_dict(find_neighbours(face_ids, vectors, one_cell(32), 0.5, NeighboursConfig(k=3)))
    assert [face for face, _ in found[10]] == [20, 30, 40]
    assert [face for face, _ in found[60]] == [10, 20, 30]


def test_merge_cuts_to_k_and_counts_repeated_pairs_once() -> None:
    first = NeighbourLists(
        np.array([1, 2]), np.array([0, 2, 3]), np.array([7, 8, 9]), np.array([0.9, 0.5, 0.4], np.float32)
    )
    second = NeighbourLists(
        np.array([1]), np.array([0, 3]), np.array([5, 7, 6]), np.array([0.9, 0.9, 0.5], np.float32)
    )
    empty = NeighbourLists(np.array([3]), np.array([0, 0]), np.empty(0, np.int64), np.empty(0, np.float32))
    merged = as_dict(merge_lists([first, empty, second], 3))
    expected = {1: [(5, 0.9), (7, 0.9), (6, 0.5)], 2: [(9, 0.4)], 3: []}
    assert merged == {
        face: [(other, np.float32(cosine)) for other, cosine in found] for face, found in expected.items()
    }


@pytest.mark.parametrize("dimension", [16, 128, 512])
def test_lowest_dot_is_where_the_cosine_reaches_the_floor(dimension: int) -> None:
    step = np.float32(1 / grid_scale(dimension) ** 2)
    for floor in np.random.default_rng(0).uniform(-1, 1, 200).tolist():
        lowest = lowest_dot(floor, dimension)
        assert lowest * step >= np.float32(floor)
        assert (lowest - np.float32(1)) * step < np.float32(floor)


@pytest.mark.parametrize("dimension", [1, 2, 16, 32, 100, 128, 256, 512, 1_000, 2_048, 4_096])
def test_no_two_dot_products_up_to_a_cosine_of_one_have_the_same_cosine(dimension: int) -> None:
    highest = lowest_dot(1.0, dimension)
    cosines = dots_to_cosines(np.arange(highest // 2, highest + 1, dtype=np.float32), dimension)
    assert (np.diff(cosines) > 0).all()
    assert cosines[-1] == 1
