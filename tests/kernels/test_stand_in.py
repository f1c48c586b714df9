import numpy as np
import pytest
from scipy.stats import norm

from faceclust_spark.kernels.grid import cosine_matrix
from faceclust_spark.kernels.people import Likeness
from faceclust_spark.kernels.stand_in import draw_stand_in, stand_in_dimension, thin_people
from faceclust_spark.kernels.thresholds import Thresholds

LIKENESS = Likeness(mean=0.7, spread=0.1, linked=1.0)


def thresholds(lowest, mean=0.05, spread=0.08):
    return Thresholds(lowest - 0.05, (lowest, lowest + 0.1), mean, spread, "given", "given")


@pytest.mark.parametrize("gallery", [10_000, 1_000_000, 10**9])
def test_a_face_has_as_many_chance_links_as_in_the_gallery(gallery):
    lowest = 0.05 + 0.08 * norm.isf(1.5 / gallery)
    dimension = stand_in_dimension(4_000, gallery, thresholds(lowest))
    faces = draw_stand_in(np.ones(4_000, np.int64), LIKENESS, dimension, seed=3)
    links = (cosine_matrix(faces, faces) >= lowest - 0.05).sum(axis=1) - 1
    # In few dimensions the tail is thinner than the normal law's.
    assert 0.5 < links.mean() < 1.8


@pytest.mark.parametrize("lowest", [0.05, 0.06, 0.94])
def test_every_threshold_has_a_dimension(lowest):
    assert 8 <= stand_in_dimension(4_000, 10**6, thresholds(lowest)) <= 4_096


def test_faces_of_a_person_resemble_each_other_as_asked():
    faces = draw_stand_in(np.array([300, 300]), LIKENESS, 512, seed=0)
    cosines = cosine_matrix(faces, faces)[np.triu_indices(600, 1)]
    same = cosines > 0.2
    assert same.mean() == pytest.approx((300 * 299) / (600 * 599 / 2), rel=0.02)
    assert cosines[same].mean() == pytest.approx(0.7**2, abs=0.02)
    assert abs(cosines[~same].mean()) < 0.7**2 * 4 / 512**0.5  # what two random centres have


def test_a_seed_gives_the_same_stand_in():
    sizes = np.array([1, 5, 9])
    assert np.array_equal(draw_stand_in(sizes, LIKENESS, 32, 4), draw_stand_in(sizes, LIKENESS, 32, 4))
    assert not np.array_equal(draw_stand_in(sizes, LIKENESS, 32, 4), draw_stand_in(sizes, LIKENESS, 32, 5))


def test_a_share_of_people_has_that_share_of_their_faces():
    thinned = thin_people(np.full(2_000, 10), 0.2, seed=0)
    assert thinned.sum() == pytest.approx(4_000, rel=0.05)
    assert len(thinned) == pytest.approx(2_000 * (1 - 0.8**10), rel=0.05)
    assert thinned.min() == 1
    assert np.array_equal(thin_people(np.array([3, 7]), 1.0, seed=0), [3, 7])
