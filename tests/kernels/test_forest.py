import networkx as nx
import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from faceclust_spark.kernels.forest import (
    Edges,
    component_keys,
    edges_of_lists,
    join_edges,
    maximum_spanning_forest,
    strongest_path,
)
from faceclust_spark.kernels.neighbours import NeighbourLists

SEEDS = range(12)


def random_edges(seed, levels=6, faces=60, count=150, lowest=-1.0):
    """Draw edges between sparse 63-bit ids; few distinct cosines, so ties abound."""
    generator = np.random.default_rng(seed)
    ids = np.unique(generator.integers(0, 2**63, size=faces))
    drawn = generator.integers(0, len(ids), size=(2, count))
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    code = np.unique(low[low < high] * len(ids) + high[low < high])
    steps = np.linspace(lowest, 1.0, levels).astype(np.float32)
    code = generator.permutation(code)
    cosine = generator.choice(steps, size=len(code))
    return Edges(ids[code // len(ids)], ids[code % len(ids)], cosine), ids


def matrix_of(edges, ids):
    place = (np.searchsorted(ids, edges.first), np.searchsorted(ids, edges.second))
    # scipy takes 0 for no edge and the lowest for the best: 1 .. 3 stand for cosines 1 .. -1.
    return coo_matrix((2.0 - edges.cosine.astype(np.float64), place), shape=(len(ids), len(ids))).tocsr()


def same_partition(one, other):
    assert len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


def take(edges, rows):
    return Edges(*(column[rows] for column in edges))


def assert_equal(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [2, 6, 10_000])
def test_weight_and_size_equal_scipy(seed, levels):
    edges, ids = random_edges(seed, levels)
    forest = maximum_spanning_forest(edges)
    tree = minimum_spanning_tree(matrix_of(edges, ids))
    assert len(forest.first) == tree.nnz
    assert (2.0 - forest.cosine.astype(np.float64)).sum() == pytest.approx(tree.sum(), abs=1e-9)
    assert (np.diff(forest.cosine) <= 0).all()
    given = set(zip(*(column.tolist() for column in edges), strict=True))
    assert set(zip(*(column.tolist() for column in forest), strict=True)) <= given


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [4, 10_000])
def test_components_equal_scipy_at_every_threshold(seed, levels):
    edges, ids = random_edges(seed, levels)
    forest = maximum_spanning_forest(edges)
    for threshold in [*np.unique(edges.cosine), np.float32(2)]:
        _, expected = connected_components(
            matrix_of(take(edges, edges.cosine >= threshold), ids), directed=False
        )
        kept = take(forest, forest.cosine >= threshold)
        found = component_keys(np.searchsorted(ids, kept.first), np.searchsorted(ids, kept.second), len(ids))
        same_partition(found.tolist(), expected.tolist())
        for key in np.unique(found):
            assert np.flatnonzero(found == key)[0] == key


@pytest.mark.parametrize("seed", SEEDS)
def test_the_forest_is_unique(seed):
    edges, _ = random_edges(seed, levels=3)
    forest = maximum_spanning_forest(edges)
    rows = np.random.default_rng(seed).permutation(len(edges.first))
    assert_equal(maximum_spanning_forest(take(edges, rows)), forest)
    repeated = np.concatenate([rows, rows[: len(rows) // 2]])
    assert_equal(maximum_spanning_forest(take(edges, repeated)), forest)
    assert_equal(maximum_spanning_forest(forest), forest)


@pytest.mark.parametrize("seed", SEEDS)
def test_ties_fall_to_the_smaller_ids(seed):
    edges, ids = random_edges(seed, levels=3)
    rows = sorted(range(len(edges.first)), key=lambda i: (-edges.cosine[i], edges.first[i], edges.second[i]))
    graph, expected = nx.Graph(), []
    graph.add_nodes_from(ids.tolist())
    for row in rows:
        a, b = int(edges.first[row]), int(edges.second[row])
        if not nx.has_path(graph, a, b):
            graph.add_edge(a, b)
            expected.append(row)
    assert_equal(maximum_spanning_forest(edges), take(edges, expected))


@pytest.mark.parametrize("parts", [1, 2, 5, 40])
@pytest.mark.parametrize("seed", range(4))
def test_the_forest_of_a_union_is_the_forest_of_the_forests(seed, parts):
    edges, _ = random_edges(seed, levels=4, count=300)
    # An edge may stand in several parts, as a pair does that was found from both sides.
    part = np.random.default_rng(seed).integers(0, parts, size=(2, len(edges.first)))
    forests = [
        maximum_spanning_forest(take(edges, np.flatnonzero((part == p).any(axis=0)))) for p in range(parts)
    ]
    assert_equal(maximum_spanning_forest(join_edges(forests)), maximum_spanning_forest(edges))


def test_negative_zero_and_signs_are_ordered_as_numbers():
    cosines = np.array([-1.0, -0.5, -1e-30, -0.0, 0.0, 1e-30, 0.5, 1.0], np.float32)
    count = len(cosines)
    star = Edges(np.zeros(count, np.int64), np.arange(1, count + 1), cosines)
    forest = maximum_spanning_forest(star)
    assert forest.second.tolist() == [8, 7, 6, 4, 5, 3, 2, 1]  # equal zeros by the smaller id


@pytest.mark.parametrize("seed", SEEDS)
def test_strongest_path_is_the_minimax_path(seed):
    edges, ids = random_edges(seed, levels=8, count=90)
    forest = maximum_spanning_forest(edges)
    graph = nx.Graph()
    graph.add_nodes_from(ids.tolist())
    graph.add_weighted_edges_from(zip(*(column.tolist() for column in edges), strict=True))
    touched = set(forest.first.tolist()) | set(forest.second.tolist())
    pairs = np.random.default_rng(seed).choice(ids, size=(40, 2))
    for start, end in pairs.tolist():
        path = strongest_path(forest, start, end)
        if start == end:
            assert (path is None) == (start not in touched) and (path is None or len(path.first) == 0)
        elif not nx.has_path(graph, start, end):
            assert path is None
        else:
            assert float(path.cosine.min()) == widest(graph, start, end)
            assert walk(path, start) == end


def widest(graph, start, end):
    """Give the highest weakest edge of any path: the level below which the two come together."""
    for level in sorted({w for _, _, w in graph.edges(data="weight")}, reverse=True):
        strong = nx.Graph([(a, b) for a, b, w in graph.edges(data="weight") if w >= level])
        if start in strong and end in strong and nx.has_path(strong, start, end):
            return level
    return None


def walk(path, start):
    place, seen = start, {start}
    for a, b in zip(path.first.tolist(), path.second.tolist(), strict=True):
        assert place in (a, b)
        place = b if place == a else a
        assert place not in seen
        seen.add(place)
    return place


def test_a_long_chain_is_walked_from_end_to_end():
    count = 3_000
    chain = Edges(
        np.arange(count, dtype=np.int64), np.arange(1, count + 1), np.linspace(1, 0, count, dtype=np.float32)
    )
    path = strongest_path(maximum_spanning_forest(chain), count, 0)
    np.testing.assert_array_equal(path.first, np.arange(count)[::-1])


def test_paths_of_unknown_faces_and_of_an_empty_forest():
    forest = Edges(np.array([3]), np.array([7]), np.array([0.5], np.float32))
    assert strongest_path(forest, 3, 5) is None
    assert strongest_path(forest, 9, 3) is None
    assert strongest_path(join_edges([]), 3, 7) is None


def test_lists_become_edges_with_the_smaller_id_first():
    lists = NeighbourLists(
        np.array([2, 5, 9]),
        np.array([0, 2, 3, 4]),
        np.array([9, 5, 2, 2]),
        np.array([0.9, 0.8, 0.8, 0.9], np.float32),
    )
    edges = edges_of_lists(lists)
    assert edges.first.tolist() == [2, 2, 2, 2]
    assert edges.second.tolist() == [9, 5, 5, 9]
    forest = maximum_spanning_forest(edges)
    assert (forest.first.tolist(), forest.second.tolist()) == ([2, 2], [9, 5])


def test_no_edges_make_no_forest():
    empty = join_edges([])
    assert [len(column) for column in maximum_spanning_forest(empty)] == [0, 0, 0]
    assert [column.dtype for column in empty] == [np.int64, np.int64, np.float32]
    assert component_keys(empty.first, empty.second, 3).tolist() == [0, 1, 2]
