import numpy as np
import pytest
from graphs import THRESHOLDS, components, config, random_graph

from faceclust_spark.kernels.forest import Edges, maximum_spanning_forest
from faceclust_spark.kernels.groups import (
    DENSITY_SAMPLE,
    cut_forest,
    ladder,
    mean_cosine,
)


def never_dense(ids):
    return -1.0


def members(groups, row):
    return {
        int(key): set(groups.face_ids[groups.keys[row] == key].tolist())
        for key in np.unique(groups.keys[row])
    }


@pytest.mark.parametrize("seed", range(8))
def test_without_a_cap_groups_are_connected_components(seed):
    ids, edges = random_graph(seed)
    groups = cut_forest(ids, maximum_spanning_forest(edges), THRESHOLDS, config(), never_dense)
    for row, threshold in enumerate(THRESHOLDS):
        assert members(groups, row) == {min(c): c for c in components(ids, edges, threshold)}


@pytest.mark.parametrize("seed", range(60))
def test_groups_nest_are_named_by_their_smallest_face_and_keep_the_cap(seed):
    ids, edges = random_graph(seed)
    cap = (2, 5, 12, 40)[seed % 4]
    settings = config(cap, core_growth=1.0)
    groups = cut_forest(ids, maximum_spanning_forest(edges), THRESHOLDS, settings, never_dense)
    assert groups.keys.shape == groups.levels.shape == (3, len(ids))
    for row, threshold in enumerate(THRESHOLDS):
        found = members(groups, row)
        assert all(min(faces) == key and len(faces) <= cap for key, faces in found.items())
        inside = components(ids, edges, threshold)
        assert all(any(faces <= whole for whole in inside) for faces in found.values())
        if row:
            assert all(len(set(groups.keys[row - 1][groups.keys[row] == key].tolist())) == 1 for key in found)


@pytest.mark.parametrize("seed", range(20))
def test_only_a_group_around_a_large_core_exceeds_the_cap(seed):
    ids, edges = random_graph(seed)
    groups = cut_forest(ids, maximum_spanning_forest(edges), THRESHOLDS, config(12), never_dense)
    cores = {key: len(faces) for key, faces in members(groups, 2).items()}
    assert max(cores.values()) <= 12
    for row in range(2):
        for faces in members(groups, row).values():
            largest = max(size for key, size in cores.items() if key in faces)
            assert len(faces) <= max(12, int(1.5 * largest))


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_connected_at_their_level(seed):
    ids, edges = random_graph(seed)
    groups = cut_forest(ids, maximum_spanning_forest(edges), THRESHOLDS, config(12), never_dense)
    for row in range(3):
        for key, faces in members(groups, row).items():
            levels = set(groups.levels[row][groups.keys[row] == key].tolist())
            assert len(levels) == 1
            level = np.float32(levels.pop())
            if len(faces) == 1:
                assert level == 1
                continue
            inside = np.isin(edges.first, list(faces)) & np.isin(edges.second, list(faces))
            own = Edges(*(column[inside] for column in edges))
            assert len(components(np.array(sorted(faces)), own, level)) == 1
            assert level >= THRESHOLDS[row]
            if level < THRESHOLDS[-1]:  # a link of that strength was the last to join
                above = np.nextafter(level, np.float32(2))
                assert len(components(np.array(sorted(faces)), own, above)) > 1


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("max_size", [6, 10**6])
def test_groups_do_not_depend_on_the_order_of_edges(seed, max_size):
    ids, edges = random_graph(seed)
    expected = cut_forest(ids, maximum_spanning_forest(edges), THRESHOLDS, config(max_size), never_dense)
    mixed = np.random.default_rng(seed).permutation(len(edges.first))
    forest = maximum_spanning_forest(Edges(*(column[mixed] for column in edges)))
    found = cut_forest(ids, forest, THRESHOLDS, config(max_size), never_dense)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_core_too_large_is_cut_at_the_first_level_that_suffices():
    # Two triangles at 0.9, joined at 0.665; the ladder's next level above it is 0.67.
    links = [(1, 2, 0.9), (2, 3, 0.9), (3, 4, 0.665), (4, 5, 0.9), (5, 6, 0.9), (6, 7, 0.35)]
    forest = star_forest(links)
    groups = cut_forest(np.arange(1, 8), forest, THRESHOLDS, config(5), never_dense)
    assert members(groups, 2) == {1: {1, 2, 3}, 4: {4, 5, 6}, 7: {7}}
    assert groups.levels[2].tolist() == pytest.approx([0.67] * 6 + [1])
    assert members(groups, 0) == {1: {1, 2, 3}, 4: {4, 5, 6, 7}}
    assert groups.levels[0].tolist() == pytest.approx([0.67] * 3 + [0.35] * 4)


def star_forest(links):
    first, second, cosine = (np.array(column) for column in zip(*links, strict=True))
    return maximum_spanning_forest(Edges(first, second, cosine.astype(np.float32)))


def person(size, cosine, start=0):
    return [(start, start + face, cosine) for face in range(1, size)]


def test_a_dense_person_stays_whole_and_may_gather_half_as_much_again():
    ids = np.arange(100)
    links = person(20, 0.7) + [(1, face, 0.5 - face / 1_000) for face in range(20, 60)]
    groups = cut_forest(ids, star_forest(links), THRESHOLDS, config(10), lambda faces: 0.65)
    assert members(groups, 2)[0] == set(range(20))
    assert members(groups, 1)[0] == members(groups, 0)[0] == set(range(30))  # 1.5 times, strongest first
    sparse = cut_forest(ids, star_forest(links), THRESHOLDS, config(10), never_dense)
    assert {len(faces) for faces in members(sparse, 2).values()} == {1}


@pytest.mark.parametrize(("dense_cosine", "whole"), [("auto", True), (0.35, True), (0.36, False)])
def test_density_is_compared_with_the_lowest_threshold_or_the_given_cosine(dense_cosine, whole):
    # 0.30000001192 is the float32 of the lowest threshold: reaching it is enough.
    measured = 0.35 if dense_cosine != "auto" else float(THRESHOLDS[0])
    settings = config(5, dense_cosine=dense_cosine)
    groups = cut_forest(
        np.arange(8), star_forest(person(8, 0.7)), THRESHOLDS, settings, lambda faces: np.float32(measured)
    )
    assert (len(members(groups, 0)) == 1) == whole


def test_density_is_measured_on_a_sample_of_the_component_only():
    asked = []

    def density(faces):
        asked.append(faces)
        return 1.0

    ids = np.arange(0, 2_000, 2)
    links = [(2 * a, 2 * b, c) for a, b, c in person(400, 0.7) + person(300, 0.8, start=500)]
    cut_forest(ids, star_forest(links), THRESHOLDS, config(10), density)
    assert [len(faces) for faces in asked] == [DENSITY_SAMPLE] * 2
    assert set(asked[0].tolist()) <= set(range(0, 800, 2))
    assert set(asked[1].tolist()) <= set(range(1_000, 1_600, 2))
    assert len(set(asked[0].tolist())) == DENSITY_SAMPLE


def test_links_join_the_strongest_first_and_are_refused_when_full():
    links = [(1, 2, 0.5), (3, 4, 0.5), (2, 3, 0.4), (4, 5, 0.35), (5, 6, 0.31)]
    groups = cut_forest(np.arange(1, 7), star_forest(links), THRESHOLDS, config(4), never_dense)
    assert members(groups, 1) == {1: {1, 2}, 3: {3, 4}, 5: {5}, 6: {6}}
    assert members(groups, 0) == {1: {1, 2, 3, 4}, 5: {5, 6}}


@pytest.mark.parametrize("thresholds", [[0.3], [0.3, 0.9]])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_faces_without_neighbours_are_groups_of_their_own(thresholds, count):
    empty = Edges(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    levels = np.array(thresholds, np.float32)
    groups = cut_forest(np.arange(count) * 7, empty, levels, config(), never_dense)
    np.testing.assert_array_equal(groups.keys, np.tile(np.arange(count) * 7, (len(levels), 1)))
    np.testing.assert_array_equal(groups.levels, np.ones((len(levels), count)))


def test_near_copies_stay_together_where_no_level_parts_them():
    groups = cut_forest(np.arange(9), star_forest(person(9, 1.0)), THRESHOLDS, config(3), never_dense)
    assert len(members(groups, 2)) == 1
    assert set(groups.levels[2].tolist()) == {1.0}


@pytest.mark.parametrize(("top", "step"), [(0.55, 0.01), (0.553, 0.01), (0.0, 0.3), (-0.2, 0.5), (1.0, 0.01)])
def test_the_ladder_is_absolute(top, step):
    levels = ladder(np.float32(top), step)
    assert levels[0] == np.float32(top)
    assert (np.diff(levels) > 0).all() and levels[-1] <= 1
    expected = [k * step for k in range(1, 1_000) if np.float32(top) < np.float32(k * step) <= 1]
    np.testing.assert_array_equal(levels[1:], np.array(expected, np.float32))


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_mean_cosine_equals_the_mean_over_pairs(count):
    vectors = np.random.default_rng(count).integers(-300, 300, size=(count, 64)).astype(np.int16)
    wide = vectors.astype(np.float64)
    pairs = (wide @ wide.T)[np.triu_indices(count, 1)]
    expected = pairs.mean() / (wide**2).sum(axis=1).mean() if count > 1 else 1.0
    assert mean_cosine(vectors) == pytest.approx(expected, abs=1e-12)
    assert mean_cosine(vectors[::-1]) == mean_cosine(vectors)
