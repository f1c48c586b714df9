import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from faceclust_spark.config import SimilaritiesConfig
from faceclust_spark.kernels.grid import normalise, quantise
from faceclust_spark.kernels.similarities import attribute_similarities, face_similarities, fuse


def random_attributes(count=40, width=6, missing=0.3, seed=0):
    generator = np.random.default_rng(seed)
    attributes = generator.normal(size=(count, width)).astype(np.float32)
    attributes[generator.random(attributes.shape) < missing] = np.nan
    attributes[3] = np.nan
    attributes[5] = 0.0
    return attributes


def brute_force(attributes):
    count = len(attributes)
    matrix = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            shared = [k for k in range(attributes.shape[1]) if not np.isnan(attributes[[i, j], k]).any()]
            x, y = (attributes[row, shared].astype(np.float64) for row in (i, j))
            lengths = np.sqrt((x @ x) * (y @ y))
            matrix[i, j] = 1.0 if i == j else (x @ y / lengths if lengths else 0.0)
    return matrix


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.8])
def test_attribute_similarities_equal_brute_force(missing):
    attributes = random_attributes(missing=missing)
    found = attribute_similarities(attributes)
    np.testing.assert_allclose(found, brute_force(attributes), atol=1e-6)
    np.testing.assert_array_equal(found, found.T)
    assert found.dtype == np.float32
    assert found.min() >= -1 and found.max() <= 1
    np.testing.assert_array_equal(np.diag(found), 1)


def test_complete_attributes_equal_scikit_learn():
    attributes = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float32)
    np.testing.assert_allclose(attribute_similarities(attributes), cosine_similarity(attributes), atol=1e-6)


def test_parallel_attributes_stay_within_the_range():
    line = np.outer([1, 2, 1e-20, -3, 1e18], [0.1, 0.7, 0.3]).astype(np.float32)
    signs = np.sign(line[:, 0])
    found = attribute_similarities(line)
    np.testing.assert_allclose(found, np.outer(signs, signs), atol=1e-6)
    assert np.abs(found).max() <= 1


@pytest.mark.parametrize("shape", [(4, 0), (1, 3), (0, 2)])
def test_nothing_to_compare_is_zero_beside_the_image_itself(shape):
    empty = np.full(shape, np.nan, np.float32)
    np.testing.assert_array_equal(attribute_similarities(empty), np.eye(shape[0]))


def test_face_similarities_are_cosines_with_a_diagonal_of_one():
    units = normalise(np.random.default_rng(2).normal(size=(50, 128)))
    found = face_similarities(quantise(units))
    np.testing.assert_allclose(found, cosine_similarity(units), atol=2e-3)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 1)
    assert found.dtype == np.float32


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.9, 1.0])
def test_weighted_sum(weight):
    face, attribute = matrices()
    found = fuse(face, attribute, SimilaritiesConfig(fusion="weighted_sum", face_weight=weight))
    np.testing.assert_allclose(found, weight * face + (1 - weight) * attribute, atol=1e-6)
    assert found.dtype == np.float32


def test_product_never_makes_two_negatives_a_positive():
    face, attribute = matrices()
    found = fuse(face, attribute, SimilaritiesConfig(fusion="product"))
    for f, a, both in zip(face.ravel(), attribute.ravel(), found.ravel(), strict=True):
        assert both == pytest.approx(f * (1 + a) / 2 if f > 0 else f, abs=1e-6)
    assert (np.sign(found) <= np.sign(face)).all()
    assert found.dtype == np.float32


@pytest.mark.parametrize("fusion", ["weighted_sum", "product"])
def test_fusion_stays_within_the_range_and_keeps_self_similarity(fusion):
    face, attribute = matrices()
    found = fuse(face, attribute, SimilaritiesConfig(fusion=fusion))
    assert np.abs(found).max() <= 1
    np.testing.assert_allclose(np.diag(found), 1, rtol=1e-6)


@pytest.mark.parametrize("fusion", ["weighted_sum", "product"])
def test_without_attributes_faces_decide(fusion):
    face, _ = matrices()
    np.testing.assert_array_equal(fuse(face, None, SimilaritiesConfig(fusion=fusion)), face)


def matrices():
    face = face_similarities(quantise(normalise(np.random.default_rng(3).normal(size=(40, 64)))))
    return face, attribute_similarities(random_attributes())
