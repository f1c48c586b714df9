import numpy as np
import pytest

from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise
from faceclust_spark.kernels.summaries import find_extremes, summarise_clusters


def draw(n, dimension, seed):
    generator = np.random.default_rng(seed)
    return quantise(normalise(generator.normal(size=(n, dimension)) + 0.5))


@pytest.mark.parametrize(("n", "dimension"), [(2, 8), (3, 128), (57, 16), (200, 512)])
@pytest.mark.parametrize("block", [1, 7, 64, 4_096])
def test_extremes_equal_brute_force(n, dimension, block):
    vectors = draw(n, dimension, seed=n)
    cosines = cosine_matrix(vectors, vectors)
    without_self = cosines.astype(np.float64)
    np.fill_diagonal(without_self, 0.0)
    means = without_self.sum(axis=1) / (n - 1)
    found = find_extremes(vectors, block)
    assert means[found.medoid] == pytest.approx(means.max(), abs=1e-12)
    assert np.float32(found.lowest) == cosines[~np.eye(n, dtype=bool)].min()


def test_medoid_tie_goes_to_the_earlier_row():
    vectors = draw(1, 32, seed=1).repeat(3, axis=0)
    assert find_extremes(vectors).medoid == 0
    pair = draw(2, 32, seed=2)
    assert find_extremes(pair).medoid == 0


def test_one_member_has_no_lowest_cosine():
    found = find_extremes(draw(1, 32, seed=3))
    assert found.medoid == 0
    assert np.isnan(found.lowest)


def test_clusters_together_are_described_as_each_by_itself():
    sizes = [1, 2, 3, 1, 300, 7, 256, 257, 2]
    vectors = draw(sum(sizes), 64, seed=5)
    vectors[3:6] = vectors[3]  # three equal ones: the medoid is the first
    confidences = np.random.default_rng(6).random(len(vectors)).astype(np.float32)
    starts = np.cumsum([0, *sizes[:-1]])
    found = summarise_clusters(vectors, confidences, starts)
    for place, (start, size) in enumerate(zip(starts.tolist(), sizes, strict=True)):
        own = slice(start, start + size)
        alone = find_extremes(vectors[own])
        assert found.medoids[place] == start + alone.medoid
        np.testing.assert_array_equal(found.lowest[place], np.float32(alone.lowest))
        total = sum(confidences[own].astype(np.float64).tolist())
        assert found.mean_confidences[place] == np.float32(total / size)
