"""The forest and the components of a graph beyond one task, against one process and scipy."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from faceclust_spark.config import CoarseGroupsConfig
from faceclust_spark.kernels.forest import Edges, maximum_spanning_forest
from faceclust_spark.kernels.neighbours import NeighbourLists
from faceclust_spark.stages.contraction_rounds import COMPONENT, components
from faceclust_spark.stages.forest import forest
from faceclust_spark.stages.neighbours import lists_to_batches
from faceclust_spark.tables import columns as c
from faceclust_spark.tables.scratch import FOREST_SCRATCH

LIMIT = 200
CHAIN, STAR, GIANT, PAIRS = 10_000, 2_000, 3_000, 400


@pytest.fixture(scope="module")
def graph() -> tuple[np.ndarray, Edges]:
    """Draw a chain that weakens from end to end, a star of ties, a giant component, and many pairs."""
    generator = np.random.default_rng(5)
    chain = np.arange(CHAIN)
    star = CHAIN + np.arange(STAR)
    giant = CHAIN + STAR + generator.integers(0, GIANT, size=(2, 3 * GIANT))
    pairs = CHAIN + STAR + GIANT + np.arange(2 * PAIRS).reshape(2, -1)
    ends = [(chain[:-1], chain[1:]), (np.full(STAR - 1, star[0]), star[1:]), giant, pairs]
    first, second = np.hstack([np.array(pair) for pair in ends])
    cosine = [
        np.linspace(1, 0.3, CHAIN - 1),
        generator.choice([0.4, 0.6], STAR - 1),
        generator.uniform(0.3, 1, 3 * GIANT).round(2),
        generator.uniform(0.3, 1, PAIRS),
    ]
    count = CHAIN + STAR + GIANT + 2 * PAIRS
    ids = generator.choice(2**62, count, replace=False)  # not in the order of the chain
    first, second = ids[first], ids[second]
    low, high = np.minimum(first, second), np.maximum(first, second)
    rows = np.unique(np.stack([low, high])[:, low < high], axis=1, return_index=True)
    weights = np.concatenate(cosine).astype(np.float32)[low < high][rows[1]]
    return np.sort(ids), Edges(rows[0][0], rows[0][1], weights)


def lists_of(ids, edges):
    """Give the edges as neighbour lists of their first faces."""
    counts = np.bincount(np.searchsorted(ids, edges.first), minlength=len(ids))
    return NeighbourLists(ids, np.concatenate([[0], np.cumsum(counts)]), edges.second, edges.cosine)


def test_a_forest_beyond_one_task_and_its_components(spark, graph, scratch):
    ids, edges = graph
    materialise, written = scratch
    lists = pa.Table.from_batches(lists_to_batches(lists_of(ids, edges)))
    config = CoarseGroupsConfig(max_forest_edges=LIMIT)
    found = forest(spark.createDataFrame(lists).repartition(5), len(ids), config, 4, materialise)
    expected = maximum_spanning_forest(edges)
    stored = materialise(found.edges, f"forest_chosen_{found.rounds % 2}")
    rows = stored.select(c.FACE_A, c.FACE_B, c.COSINE).toArrow()
    order = np.lexsort((expected.second, expected.first))
    rows = rows.sort_by([(c.FACE_A, "ascending"), (c.FACE_B, "ascending")])
    for name, column in zip(rows.column_names, expected, strict=True):
        np.testing.assert_array_equal(rows[name].to_numpy(), column[order])
    assert 2 <= found.rounds <= np.log2(len(ids) / LIMIT)  # a round at least halves the vertices
    passes = sum(name.startswith("contraction_labels") for name in written)
    assert passes <= found.rounds * np.log2(len(ids)) / 2

    strong = stored.where(stored[c.COSINE] >= 0.5)
    check_components(components(strong, LIMIT, 4, materialise), ids, edges, np.float32(0.5))
    assert set(written) <= set(FOREST_SCRATCH)


def check_components(found, ids, edges, threshold):
    kept = edges.cosine >= threshold
    first, second = np.searchsorted(ids, edges.first[kept]), np.searchsorted(ids, edges.second[kept])
    matrix = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(ids), len(ids)))
    expected = connected_components(matrix, directed=False)[1]
    rows = found.toArrow().sort_by(c.FACE_ID)
    touched = np.unique(np.concatenate([first, second]))
    np.testing.assert_array_equal(rows[c.FACE_ID].to_numpy(), ids[touched])
    names = rows[COMPONENT].to_numpy()
    assert np.isin(names, ids[touched]).all()
    both = np.unique(np.stack([expected[touched], names]), axis=1).shape[1]
    assert both == len(np.unique(names)) == len(np.unique(expected[touched]))
