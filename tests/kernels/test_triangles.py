"""All pairs of a group at once, against the same pairs described one by one."""

import numpy as np
import pytest

from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise
from faceclust_spark.kernels.nearest import Scale, nearest_by_matrix, nearest_members, standardise
from faceclust_spark.kernels.readings import QUALITIES
from faceclust_spark.kernels.relations import node_inputs, pair_inputs
from faceclust_spark.kernels.triangles import TILE, triangle_inputs, triangle_rows

SCALE = Scale(0.05, 0.09)
SIZES = [1, 2, 3, 12, TILE - 1, TILE, TILE + 1, TILE + 2, 2 * TILE + 2]


def random_group(size, noise=1.0):
    generator = np.random.default_rng(size)
    centres = normalise(generator.normal(size=(3, 32)))
    strangers = normalise(generator.normal(size=(size, 32)))
    vectors = quantise(normalise(centres[generator.integers(3, size=size)] + noise * strangers))
    if size > 8:
        vectors[-4:] = vectors[:4]
    return vectors


def described_at_once(vectors):
    cosines = cosine_matrix(vectors, vectors)
    nearest = nearest_by_matrix(cosines, SCALE)
    return triangle_inputs(standardise(cosines, SCALE), nearest, nodes_of(vectors, nearest))


def nodes_of(vectors, nearest):
    return node_inputs(nearest, len(vectors), (vectors[:, :QUALITIES] / np.float32(1_000)).astype(np.float32))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("noise", [0.3, 1.2])
def test_all_pairs_at_once_have_the_bits_of_pairs_one_by_one(size, noise):
    vectors = random_group(size, noise)
    first, second = np.triu_indices(size, 1)
    similarity = standardise(cosine_matrix(vectors, vectors)[first, second], SCALE)
    nearest = nearest_members(vectors, SCALE)
    expected = pair_inputs(first, second, similarity, nearest, nodes_of(vectors, nearest))
    found = described_at_once(vectors)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", SIZES)
def test_the_nearest_by_a_matrix_are_the_nearest(size):
    vectors = random_group(size)
    found = nearest_by_matrix(cosine_matrix(vectors, vectors), SCALE)
    for one, other in zip(found, nearest_members(vectors, SCALE), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize("size", [0, 1, 2, 3, 30])
def test_the_upper_triangle_row_by_row(size):
    for found, expected in zip(triangle_rows(size), np.triu_indices(size, 1), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.int64
