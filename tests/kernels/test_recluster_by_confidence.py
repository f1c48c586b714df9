"""The rule `confidence`: the best choice among nested groups, against an enumeration of all choices."""

import itertools

import numpy as np
import pytest

from faceclust_spark.config import ClustersConfig
from faceclust_spark.kernels.recluster import recluster
from faceclust_spark.kernels.refine import PairLogOdds, Refinement

NONE = PairLogOdds(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int16))


def hierarchy(seed, size=None, thresholds=3):
    """Draw nested groups, and confidences in few steps, so that scores tie."""
    generator = np.random.default_rng(seed)
    size = size or int(generator.integers(1, 12))
    face_ids = np.sort(generator.choice(2**62, size, replace=False))
    labels, keys = np.zeros(size, np.int64), np.empty((thresholds, size), np.int64)
    for row in range(thresholds):
        for label in np.unique(labels):
            keys[row, labels == label] = face_ids[labels == label].min()
        labels = 3 * labels + generator.integers(3, size=size)
    confidences = (generator.integers(0, 9, size=(thresholds, size)) / 8).astype(np.float32)
    return face_ids, keys, confidences


def recluster_by_confidence(face_ids, keys, confidences, photos=None, **changes):
    config = ClustersConfig(rule="confidence", **changes)
    return recluster(face_ids, keys, Refinement(confidences, NONE), config, photos)


def choices(keys, row, members):
    """Give every way to cover the members by groups of this row or of those inside it."""
    yield [(row, frozenset(members))]
    if row + 1 < len(keys):
        names = sorted({keys[row + 1, member] for member in members})
        inside = [[member for member in members if keys[row + 1, member] == name] for name in names]
        for parts in itertools.product(*(list(choices(keys, row + 1, part)) for part in inside)):
            yield [group for part in parts for group in part]


def score(choice, confidences):
    # In steps of 1/256, as log-odds are; eighths are exact in them.
    return sum(2 * float(confidences[row, member]) - 1 for row, group in choice for member in group)


def best_choice(keys, confidences):
    """Of the choices with the highest score, the one with the largest groups."""
    every = list(choices(keys, 0, list(range(keys.shape[1]))))
    return min(every, key=lambda choice: (-score(choice, confidences), len(choice), [r for r, _ in choice]))


@pytest.mark.parametrize("seed", range(60))
def test_the_best_set_of_groups_is_chosen(seed):
    face_ids, keys, confidences = hierarchy(seed)
    found = recluster_by_confidence(face_ids, keys, confidences, min_confidence=0.0)
    expected = np.empty(len(face_ids), np.int64)
    own = np.empty(len(face_ids), np.float32)
    for row, group in best_choice(keys, confidences):
        rows = sorted(group)
        expected[rows], own[rows] = face_ids[rows].min(), confidences[row, rows]
    np.testing.assert_array_equal(found.labels, expected)
    np.testing.assert_array_equal(found.confidences, own)


@pytest.mark.parametrize("seed", range(40))
def test_images_of_low_confidence_leave_and_are_alone(seed):
    face_ids, keys, confidences = hierarchy(seed)
    stay = recluster_by_confidence(face_ids, keys, confidences, min_confidence=0.0)
    found = recluster_by_confidence(face_ids, keys, confidences, min_confidence=0.5)
    for label in np.unique(stay.labels):
        members = np.flatnonzero(stay.labels == label)
        sure = [row for row in members if stay.confidences[row] >= 0.5]
        if len(members) == 1:
            assert found.labels[members[0]] == face_ids[members[0]]
            assert found.confidences[members[0]] == stay.confidences[members[0]]
            continue
        for row in members:
            kept = row in sure
            assert found.labels[row] == (face_ids[min(sure)] if kept else face_ids[row])
            own = stay.confidences[row]
            assert found.confidences[row] == pytest.approx(own if kept else 1 - own)


@pytest.mark.parametrize("same_photo", ["apart", "allowed"])
@pytest.mark.parametrize("seed", range(40))
def test_of_one_photo_the_surest_stays(seed, same_photo):
    face_ids, keys, confidences = hierarchy(seed, size=20)
    photos = np.random.default_rng(seed).integers(-1, 6, size=20)
    free = recluster_by_confidence(face_ids, keys, confidences, min_confidence=0.0)
    found = recluster_by_confidence(
        face_ids, keys, confidences, photos, min_confidence=0.0, same_photo=same_photo
    )
    if same_photo == "allowed":
        np.testing.assert_array_equal(found.labels, free.labels)
        return
    expected = np.empty(20, np.int64)
    for label in np.unique(free.labels):
        members = np.flatnonzero(free.labels == label).tolist()
        leave = set()
        for a, b in itertools.combinations(members, 2):
            if photos[a] == photos[b] >= 0:
                leave.add(b if free.confidences[a] >= free.confidences[b] else a)
        stay = [row for row in members if row not in leave]
        expected[stay] = face_ids[stay].min()
        expected[sorted(leave)] = face_ids[sorted(leave)]
    np.testing.assert_array_equal(found.labels, expected)


@pytest.mark.parametrize("seed", range(40))
def test_every_image_is_in_one_cluster_named_by_its_smallest_face(seed):
    face_ids, keys, confidences = hierarchy(seed, size=25)
    photos = np.random.default_rng(seed).integers(-1, 9, size=25)
    found = recluster_by_confidence(face_ids, keys, confidences, photos)
    assert found.labels.shape == found.confidences.shape == (25,)
    assert found.confidences.dtype == np.float32
    for label in np.unique(found.labels):
        members = np.flatnonzero(found.labels == label)
        assert face_ids[members].min() == label
        assert len({keys[0, row] for row in members}) == 1
        known = photos[members][photos[members] >= 0].tolist()
        assert len(known) == len(set(known))


def test_two_groups_of_equal_score_inside_and_whole_stay_whole():
    face_ids = np.array([1, 2, 3, 4])
    keys = np.array([[1, 1, 1, 1], [1, 1, 3, 3]])
    even = np.full((2, 4), 0.75, np.float32)
    assert recluster_by_confidence(face_ids, keys, even).labels.tolist() == [1, 1, 1, 1]
    even[1, 0] += 1 / 256
    assert recluster_by_confidence(face_ids, keys, even).labels.tolist() == [1, 1, 3, 3]


def test_the_image_that_names_the_group_may_leave():
    face_ids = np.array([10, 20, 30])
    confidences = np.array([[0.2, 0.9, 0.8]], np.float32)
    found = recluster_by_confidence(face_ids, np.full((1, 3), 10), confidences)
    assert found.labels.tolist() == [10, 20, 20]
    assert found.confidences.tolist() == pytest.approx([0.8, 0.9, 0.8])
