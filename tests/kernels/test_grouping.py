import numpy as np
import pytest

from faceclust_spark.config import ConfidencesConfig
from faceclust_spark.kernels.grouping import (
    batch_groups,
    gather_groups,
    scored_pairs,
    split_groups,
)
from faceclust_spark.kernels.groups import CoarseGroups


def random_coarse(n, seed):
    generator = np.random.default_rng(seed)
    face_ids = np.sort(generator.choice(10**12, size=n, replace=False))
    keys = np.empty((3, n), dtype=np.int64)
    labels = np.zeros(n, dtype=np.int64)
    for row, parts in enumerate((5, 4, 4)):  # each threshold cuts the groups of the one below
        labels = labels * parts + generator.integers(parts, size=n)
        for label in np.unique(labels):
            keys[row, labels == label] = face_ids[labels == label].min()
    thresholds = np.array([0.3, 0.4, 0.5], dtype=np.float32)
    return CoarseGroups(face_ids, thresholds, keys, np.zeros((3, n), dtype=np.float32))


@pytest.mark.parametrize("n", [1, 2, 60])
def test_every_face_is_in_the_group_of_its_root_key(n):
    coarse = random_coarse(n, seed=n)
    vectors = np.arange(n * 2, dtype=np.int16).reshape(n, 2)
    attributes = np.arange(n, dtype=np.float32).reshape(n, 1)
    norms = np.arange(n, dtype=np.float32) + 5
    groups = gather_groups(coarse, vectors, attributes, norms)
    assert [g.keys[0, 0] for g in groups] == sorted(set(coarse.keys[0].tolist()))
    for group in groups:
        rows = np.flatnonzero(coarse.keys[0] == group.keys[0, 0])
        np.testing.assert_array_equal(group.face_ids, coarse.face_ids[rows])
        np.testing.assert_array_equal(group.vectors, vectors[rows])
        np.testing.assert_array_equal(group.attributes, attributes[rows])
        np.testing.assert_array_equal(group.norms, norms[rows])
        np.testing.assert_array_equal(group.keys, coarse.keys[:, rows])


def test_a_group_without_attributes_has_none_of_any_width():
    attributes = np.array([[np.nan, np.nan], [np.nan, np.nan], [1.0, np.nan]], dtype=np.float32)
    ids = np.array([1, 2, 3])
    roots = np.array([1, 1, 3])
    vectors, norms = np.zeros((3, 4), np.int16), np.ones(3, np.float32)
    groups = split_groups(roots, ids, vectors, attributes, norms, roots[None])
    assert [g.attributes.shape for g in groups] == [(2, 0), (1, 2)]


def test_no_rows_give_no_groups():
    empty = np.empty(0, dtype=np.int64)
    vectors = np.empty((0, 0), dtype=np.int16)
    nothing = vectors.astype(np.float32)
    assert split_groups(empty, empty, vectors, nothing, nothing.reshape(-1), empty[None]) == []


def test_batches_keep_the_order_and_end_where_they_are_full():
    groups = gather_groups(
        random_coarse(80, seed=5),
        np.zeros((80, 2), np.int16),
        np.zeros((80, 0), np.float32),
        np.ones(80, np.float32),
    )
    config = ConfidencesConfig(dense_size=12, block_neighbours=3, block_negatives=2)
    for limit in (1, 100, 10**9):
        batches = batch_groups(groups, config, limit)
        assert [g for batch in batches for g in batch] == groups
        for batch in batches:
            costs = [scored_pairs(len(g.face_ids), config) for g in batch]
            assert sum(costs[:-1]) < limit
    assert batch_groups([], config, 5) == []


def test_scored_pairs_below_and_above_the_dense_size():
    config = ConfidencesConfig(dense_size=100, block_neighbours=10, block_negatives=5)
    assert [scored_pairs(n, config) for n in (1, 2, 100, 101)] == [0, 1, 4_950, 1_515]
    config = ConfidencesConfig(dense_size=100, block_neighbours=64, block_negatives=32)
    assert [scored_pairs(n, config) for n in (101, 192, 193, 194)] == [5_050, 18_336, 18_528, 18_624]
