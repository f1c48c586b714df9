import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from sklearn.metrics.cluster import pair_confusion_matrix

from faceclust_spark.config import Config
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.diagnostics import (
    UNKNOWN,
    calibrate,
    number_labels,
    sample_pairs,
    score_components,
)
from faceclust_spark.kernels.faces import quantise_faces
from faceclust_spark.kernels.grid import cosine_matrix


def gallery(seed=0, people=40, size=6):
    generator = np.random.default_rng(seed)
    person = generator.permutation(np.repeat(np.arange(people), size))
    centres = generator.normal(size=(people, 32))
    return quantise_faces(centres[person] + generator.normal(size=(len(person), 32))).vectors, person


def test_labels_are_numbered_in_their_order_and_unknown_ones_are_told_apart():
    assert number_labels(["b", None, "a", "b"], 4).tolist() == [1, UNKNOWN, 0, 1]
    assert number_labels([2.0, float("nan"), 1.0], 3).tolist() == [1, UNKNOWN, 0]
    assert number_labels(np.array([7, 5]), 2).tolist() == [1, 0]


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="2 labels for 3 faces"):
        number_labels(["a", "b"], 3)


def test_pairs_of_a_small_gallery_are_all_pairs():
    vectors, person = gallery()
    person[:30] = UNKNOWN
    found = sample_pairs(vectors, person, 5)
    cosines = cosine_matrix(vectors, vectors)
    np.fill_diagonal(cosines, np.nan)
    off = ~np.isnan(cosines)
    np.testing.assert_array_equal(np.sort(found.random), np.sort(cosines[off]))
    nearest = np.sort(np.where(off, cosines, -2), axis=1)[:, -5:]
    np.testing.assert_array_equal(np.sort(found.nearest), np.sort(nearest.ravel()))
    known = (person[:, None] >= 0) & (person >= 0) & off
    same = person[:, None] == person
    np.testing.assert_array_equal(np.sort(found.same), np.sort(cosines[known & same]))
    np.testing.assert_array_equal(np.sort(found.different), np.sort(cosines[known & ~same]))


def test_of_a_larger_gallery_500_faces_are_compared():
    vectors, person = gallery(people=100)
    found = sample_pairs(vectors, person, 7)
    assert len(found.random) == 500 * 599
    assert len(found.same) + len(found.different) == len(found.random)
    assert len(found.nearest) == 500 * 7


@pytest.mark.parametrize("seed", range(3))
def test_components_are_scored_as_by_another_path(seed):
    vectors, person = gallery(seed)
    person[:20] = UNKNOWN
    levels = [0.3, 0.5, 0.7]
    # Every face keeps all its neighbours, so that the graph is that of all pairs.
    config = Config.model_validate({"neighbours": {"k": len(vectors)}})
    known, cosines = person >= 0, cosine_matrix(vectors, vectors)
    for level, found in zip(levels, score_components(vectors, person, levels, config), strict=True):
        _, components = connected_components(cosines >= np.float32(level), directed=False)
        (_, wrong), (missed, hits) = pair_confusion_matrix(person[known], components[known])
        assert found.pairwise_precision == pytest.approx(hits / (hits + wrong))
        assert found.pairwise_recall == pytest.approx(hits / (hits + missed))


def test_confidences_are_compared_with_the_truth():
    person = np.array([0, 0, 0, 1, 1, 1, 2, UNKNOWN])
    cluster = np.array([0, 0, 0, 0, 1, 1, 2, 0])
    sure = np.array([0.95, 0.91, 0.35, 0.31, 1.0, 0.97, 0.5, 0.5])
    found = calibrate(person, cluster, sure, 10)
    assert found.faces.tolist() == [2, 4]  # the face alone and the one without a label are left out
    np.testing.assert_allclose(found.confidence, [0.33, (0.95 + 0.91 + 1.0 + 0.97) / 4])
    assert found.share.tolist() == [0.5, 1.0]
    # Wilson's interval of 1 in 2 and of 4 in 4, by hand.
    np.testing.assert_allclose(found.low, [0.0945, 0.5101], atol=1e-4)
    np.testing.assert_allclose(found.high, [0.9055, 1.0], atol=1e-4)


def test_confidences_without_a_cluster_of_two_are_refused():
    with pytest.raises(DataError, match="no cluster holds two"):
        calibrate(np.array([0, UNKNOWN, 1]), np.array([0, 0, 1]), np.ones(3), 10)
