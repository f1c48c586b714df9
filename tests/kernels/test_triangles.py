"""All pairs of a group at once, against the same pairs described one by one."""

import numpy as np
import pytest

from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise
from faceclust_spark.kernels.nearest import Scale, nearest_by_matrix, nearest_members, standardise
from faceclust_spark.kernels.relations import node_inputs, pair_inputs
from faceclust_spark.kernels.triangles import TILE, sorting_network, triangle_inputs, triangle_rows

SCALE = Scale(0.05, 0.09)
SIZES = [1, 2, 3, 12, TILE - 1, TILE, TILE + 1, TILE + 2, 2 * TILE + 2]


def random_group(size, attributes=5, noise=1.0):
    generator = np.random.default_rng((size, attributes))
    centres = normalise(generator.normal(size=(3, 32)))
    strangers = normalise(generator.normal(size=(size, 32)))
    vectors = quantise(normalise(centres[generator.integers(3, size=size)] + noise * strangers))
    if size > 8:
        vectors[-4:] = vectors[:4]
    own = generator.normal(size=(size, attributes)).astype(np.float32)
    own[generator.random(own.shape) < 0.25] = np.nan
    own[0] = np.nan
    own[:, 1:2] = 0
    return vectors, own


def described_at_once(vectors, attributes):
    cosines = cosine_matrix(vectors, vectors)
    nearest = nearest_by_matrix(cosines, SCALE)
    return triangle_inputs(standardise(cosines, SCALE), nearest, nodes_of(vectors, nearest), attributes)


def nodes_of(vectors, nearest):
    return node_inputs(nearest, len(vectors), (vectors[:, 0] / np.float32(1_000)).astype(np.float32))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("noise", [0.3, 1.2])
@pytest.mark.parametrize("attributes", [0, 1, 5, 12, 33])
def test_all_pairs_at_once_have_the_bits_of_pairs_one_by_one(size, noise, attributes):
    vectors, own = random_group(size, attributes, noise)
    first, second = np.triu_indices(size, 1)
    similarity = standardise(cosine_matrix(vectors, vectors)[first, second], SCALE)
    nearest = nearest_members(vectors, SCALE)
    expected = pair_inputs(first, second, similarity, nearest, nodes_of(vectors, nearest), own)
    found = described_at_once(vectors, own)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", SIZES)
def test_the_nearest_by_a_matrix_are_the_nearest(size):
    vectors, _ = random_group(size)
    found = nearest_by_matrix(cosine_matrix(vectors, vectors), SCALE)
    for one, other in zip(found, nearest_members(vectors, SCALE), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize("size", [0, 1, 2, 3, 30])
def test_the_upper_triangle_row_by_row(size):
    for found, expected in zip(triangle_rows(size), np.triu_indices(size, 1), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.int64


@pytest.mark.parametrize("count", range(1, 13))
def test_a_sorting_network_sorts_all_zeros_and_ones(count):
    # And so everything else: the zero-one principle (Knuth, volume 3, 5.3.4).
    values = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    expected = np.sort(values, axis=1)
    for one, other in sorting_network(count):
        values[:, [one, other]] = np.sort(values[:, [one, other]], axis=1)
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("count", [13, 16, 17, 33, 100])
def test_a_sorting_network_sorts_numbers(count):
    values = np.random.default_rng(count).integers(count, size=(200, count))
    expected = np.sort(values, axis=1)
    for one, other in sorting_network(count):
        values[:, [one, other]] = np.sort(values[:, [one, other]], axis=1)
    np.testing.assert_array_equal(values, expected)
