import numpy as np
import pytest

from faceclust_spark.config import ClustersConfig
from faceclust_spark.kernels.assignment import (
    assign_alone,
    assign_faces,
    highest_whole,
    mint_cluster_ids,
    name_photos,
    shared_photos,
)
from faceclust_spark.kernels.recluster import recluster
from faceclust_spark.kernels.refine import PairLogOdds, Refinement


@pytest.mark.parametrize("seed", range(20))
def test_highest_whole_equals_brute_force(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, 40))
    keys = np.zeros((4, n), dtype=np.int64)
    for row in range(1, 4):
        keys[row] = keys[row - 1] * 3 + generator.integers(3, size=n)
    labels = generator.integers(n, size=n)
    found = highest_whole(labels, keys)
    for face in range(n):
        cluster = keys[:, labels == labels[face]]
        whole = [row for row in range(4) if len(set(cluster[row].tolist())) == 1]
        assert found[face] == max(whole)


def test_photos_are_named_by_their_smallest_face():
    face_ids = np.array([3, 5, 8, 9, 12, 20])
    named = shared_photos(face_ids, [[5, 12], [3, 9, 20]])
    np.testing.assert_array_equal(named, [3, 5, -1, 3, 5, 3])
    for codes in ([7, 0, 4, 7, 0, 7], [1, 2, -1, 1, 2, 1]):
        np.testing.assert_array_equal(name_photos(face_ids, np.array(codes)), named)


def test_faces_without_photo_share_none():
    codes = np.array([-1, -1, 4])
    np.testing.assert_array_equal(name_photos(np.array([1, 2, 3]), codes), [-1, -1, -1])


def test_cluster_ids_are_sixteen_hexadecimal_digits():
    ids = mint_cluster_ids(np.array([0, 255, 2**63 - 1]))
    assert ids.tolist() == ["c0000000000000000", "c00000000000000ff", "c7fffffffffffffff"]


def assign(face_ids, keys, steps, photos=None):
    empty = np.empty(0, np.int32)
    refinement = Refinement(
        np.full(keys.shape, 0.5, np.float32), PairLogOdds(empty, empty, np.array(steps, np.int16))
    )
    thresholds = np.array([0.3, 0.5, 0.7], np.float32)[: len(keys)]
    given = (face_ids, thresholds, keys, refinement, ClustersConfig(bias=0), photos)
    return assign_faces(*given), recluster(face_ids, keys, *given[3:])


def test_a_face_is_a_member_or_left_and_its_threshold_that_of_the_group_of_its_cluster():
    face_ids = np.array([10, 20, 30, 40])
    keys = np.array([[10, 10, 10, 10], [10, 10, 30, 30], [10, 20, 30, 40]])
    # 10 and 20 belong together, 30 and 40 do not, nor does anyone else.
    found, clusters = assign(face_ids, keys, [500, -500, -500, -500, -500, -500])
    assert found.labels.tolist() == [10, 10, 30, 40]
    assert found.statuses.tolist() == ["member", "member", "left", "left"]
    np.testing.assert_array_equal(found.thresholds, np.array([0.5, 0.5, 0.7, 0.7], np.float32))
    np.testing.assert_array_equal(found.confidences, clusters.confidences)


def test_faces_of_one_photo_are_left_apart():
    face_ids, keys = np.array([10, 20]), np.array([[10, 10]])
    found, _ = assign(face_ids, keys, [500])
    assert found.statuses.tolist() == ["member", "member"]
    found, _ = assign(face_ids, keys, [500], photos=np.array([10, 10]))
    assert (found.labels.tolist(), found.statuses.tolist()) == ([10, 20], ["left", "left"])


def test_a_face_that_met_nobody_is_a_singleton():
    found, _ = assign(np.array([7]), np.array([[7], [7]]), [])
    assert (found.labels.tolist(), found.statuses.tolist()) == ([7], ["singleton"])
    np.testing.assert_array_equal(found.thresholds, np.float32([0.5]))


def test_faces_alone_are_assigned_at_once_as_each_by_itself():
    thresholds = np.array([0.3, 0.5], np.float32)
    together = assign_alone(np.array([7, 9]), thresholds)
    for row, face in enumerate((7, 9)):
        refinement = Refinement(np.ones((2, 1), np.float32), PairLogOdds(*(np.empty(0, np.int16),) * 3))
        keys = np.full((2, 1), face)
        given = np.array([face]), keys, refinement, ClustersConfig()
        clusters = recluster(*given)
        one = assign_faces(given[0], thresholds, *given[1:])
        assert one.labels.tolist() == clusters.labels.tolist() == [together.labels[row]]
        assert one.confidences.tolist() == clusters.confidences.tolist() == [together.confidences[row]]
        assert (
            one.thresholds[0] == thresholds[highest_whole(clusters.labels, keys)] == together.thresholds[row]
        )
        assert one.statuses.tolist() == [together.statuses[row]] == ["singleton"]
