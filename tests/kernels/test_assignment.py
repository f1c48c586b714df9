import numpy as np
import pytest

from faceclust_spark.kernels.assignment import (
    highest_whole,
    mint_cluster_ids,
    name_photos,
    shared_photos,
)


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
