"""Root groups put together: clustered as each by itself, bit for bit."""

import numpy as np
import pytest

from faceclust_spark.config import ClustersConfig
from faceclust_spark.kernels.assignment import Assignment, assign_faces, name_photos
from faceclust_spark.kernels.calibration import Calibration
from faceclust_spark.kernels.refine import PairLogOdds, Refinement
from faceclust_spark.kernels.refined import RefinedGroup, batch_refined, join_refined

THRESHOLDS = np.array([0.3, 0.5], np.float32)
CALIBRATION = Calibration(0.3, 0.5, 0.2, -0.1)


def draw_group(generator, face_ids):
    """Draw a group of any size above one; of large ones some pairs only, as blocks leave them."""
    size = len(face_ids)
    first, second = (side.astype(np.int32) for side in np.triu_indices(size, 1))
    if size > 12:
        kept = np.sort(generator.choice(len(first), len(first) // 2, replace=False))
        first, second = first[kept], second[kept]
    steps = generator.integers(-900, 1_100, len(first)).astype(np.int16)
    pairs = PairLogOdds(first, second, steps)
    if size <= 12:
        pairs = pairs._replace(first=first[:0], second=second[:0])
    cut = generator.integers(1, size + 1)
    keys = np.stack([np.full(size, face_ids[0]), np.where(np.arange(size) < cut, *face_ids[[0, cut % size]])])
    return RefinedGroup(
        int(face_ids[0]),
        face_ids,
        THRESHOLDS,
        keys,
        Refinement(generator.random((2, size), np.float32), pairs),
    )


@pytest.fixture(scope="module")
def groups():
    generator = np.random.default_rng(4)
    sizes = [2, 2, 3, 30, 5, 2, 12, 13, 4, 7]
    ids = np.split(generator.permutation(1_000)[: sum(sizes)], np.cumsum(sizes)[:-1])
    return [draw_group(generator, np.sort(own)) for own in ids]


@pytest.mark.parametrize("rule", ["correlation", "confidence"])
@pytest.mark.parametrize("pairs", [1, 50, 10**9])
def test_groups_together_are_clustered_as_each_by_itself(groups, rule, pairs):
    config = ClustersConfig(rule=rule)
    photos = dict(zip(range(1_000), np.random.default_rng(5).integers(-40, 60, 1_000).clip(-1), strict=True))

    def assign(batch):
        group = join_refined(batch)
        own = np.array([photos[face] for face in group.face_ids.tolist()])
        named = name_photos(group.face_ids, own, [len(one.face_ids) for one in batch])
        return assign_faces(*group[1:3], group.keys, group.refinement, config, named, CALIBRATION)

    alone = [assign([group]) for group in groups]
    batches = batch_refined(groups, pairs)
    assert [group.root_key for batch in batches for group in batch] == [group.root_key for group in groups]
    together = [assign(batch) for batch in batches]
    for name in Assignment._fields:
        expected, found = (np.concatenate([getattr(one, name) for one in some]) for some in (alone, together))
        np.testing.assert_array_equal(found, expected, name)
    assert {"member", "left"} == set(np.concatenate([one.statuses for one in alone]).tolist())


def test_batches_end_where_they_are_full(groups):
    batches = batch_refined(groups, 50)
    assert 1 < len(batches) < len(groups)
    for batch in batches:
        assert sum(len(group.refinement.pairs.log_odds) for group in batch[:-1]) < 50


def test_a_photo_of_one_face_in_each_of_two_groups_keeps_nobody_apart():
    face_ids = np.array([3, 8, 9, 1, 4])
    photos = np.array([7, 7, 5, 5, 7])
    np.testing.assert_array_equal(name_photos(face_ids, photos, [3, 2]), [3, 3, -1, -1, -1])
