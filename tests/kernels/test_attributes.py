import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from faceclust_spark.kernels.attributes import attribute_statistics, standardise


def sample_of(seed=0, count=100):
    generator = np.random.default_rng(seed)
    sample = np.stack(
        [
            generator.normal(40, 12, count),
            generator.integers(0, 2, count),
            generator.lognormal(size=count),
            np.full(count, 0.1),
            generator.normal(1e6, 1.0, count),
        ],
        axis=1,
    ).astype(np.float32)
    sample[generator.random(sample.shape) < 0.15] = np.nan
    return sample


@pytest.mark.parametrize("seed", range(3))
def test_statistics_and_scores_equal_scikit_learn(seed):
    sample, later = sample_of(seed), sample_of(seed + 100)
    varying = [0, 1, 2, 4]
    oracle = StandardScaler().fit(sample[:, varying].astype(np.float64))
    found = attribute_statistics(sample)
    np.testing.assert_allclose(found.means[varying], oracle.mean_, rtol=1e-9)
    np.testing.assert_allclose(found.standard_deviations[varying], oracle.scale_, rtol=1e-9)
    np.testing.assert_array_equal(found.counts, (~np.isnan(sample)).sum(axis=0))
    scores = standardise(later, found)
    expected = oracle.transform(later[:, varying].astype(np.float64))
    np.testing.assert_allclose(scores[:, varying], np.clip(expected, -6, 6), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(np.isnan(scores), np.isnan(later))


@pytest.mark.parametrize("seed", range(3))
def test_statistics_have_the_same_bits_in_any_order(seed):
    sample = sample_of(seed)
    mixed = sample[np.random.default_rng(seed).permutation(len(sample))]
    for one, other in zip(attribute_statistics(sample), attribute_statistics(mixed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_value_that_never_changes_is_constant_whatever_its_rounding():
    sample = np.full((1_000, 2), 0.1, np.float32)  # 0.1 has no exact mean in floats
    sample[5, 1] = np.nan
    found = attribute_statistics(sample)
    np.testing.assert_array_equal(found.standard_deviations, [0, 0])
    np.testing.assert_array_equal(standardise(sample[4:6] + 3, found), [[0, 0], [0, np.nan]])


@pytest.mark.parametrize("count", [100, 700, 2_000])
def test_statistics_of_many_values_are_those_without_the_outermost(count):
    sample = np.random.default_rng(count).lognormal(size=(count, 3)).astype(np.float32)
    sample[np.random.default_rng(1).random(sample.shape) < 0.1] = np.nan
    sample = np.concatenate([sample, np.ones((15, 3), np.float32)])
    found = attribute_statistics(sample)
    for column, mean, deviation, known in zip(sample.T, *found, strict=True):
        values = np.sort(column[~np.isnan(column)].astype(np.float64))
        cut = max(1, len(values) // 500)
        assert known == len(values)
        assert mean == pytest.approx(values[cut:-cut].mean(), rel=1e-12)
        assert deviation == pytest.approx(values[cut:-cut].std(), rel=1e-12)
    mixed = attribute_statistics(sample[np.random.default_rng(2).permutation(len(sample))])
    for one, other in zip(found, mixed, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("count", [100, 7_482])
@pytest.mark.parametrize("wrong", [-26_885.0, 1e9])
def test_a_few_wrong_values_do_not_hide_an_attribute(wrong, count):
    """Of 7,482 poses one was -26,885: a spread of 311 in place of .04 made all others alike."""
    sample = np.random.default_rng(0).normal(0.57, 0.04, size=(count, 1)).astype(np.float32)
    sample[34] = wrong
    found = attribute_statistics(sample)
    assert found.means == pytest.approx([0.57], abs=0.01)
    assert found.standard_deviations == pytest.approx([0.04], rel=0.15)
    assert found.counts.tolist() == [count]
    assert standardise(sample, found)[34] == np.sign(wrong) * 6


def test_what_few_rows_have_is_still_told():
    sample = np.zeros((5_000, 1), np.float32)
    sample[:4] = 1.0  # fewer than are left out as outliers
    found = attribute_statistics(sample)
    assert found.means == pytest.approx([0.0008])
    assert standardise(sample, found)[:5, 0].tolist() == [6, 6, 6, 6, pytest.approx(-0.028, abs=0.001)]


def test_values_that_are_not_finite_are_missing():
    sample = np.array([[1, np.inf], [3, -np.inf], [np.nan, np.nan]], np.float32)
    found = attribute_statistics(sample)
    np.testing.assert_array_equal(found.means, [2, 0])
    np.testing.assert_array_equal(found.standard_deviations, [1, 0])
    np.testing.assert_array_equal(found.counts, [2, 0])
    scores = standardise(np.array([[np.inf, 7], [5, np.nan]], np.float32), found)
    np.testing.assert_array_equal(scores, [[np.nan, 0], [3, np.nan]])


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (0, 0)])
def test_nothing_known_and_no_attributes(shape):
    found = attribute_statistics(np.empty(shape, np.float32))
    assert [len(part) for part in found] == [shape[1]] * 3
    assert standardise(np.empty((4, shape[1]), np.float32), found).shape == (4, shape[1])


def test_scores_are_row_by_row():
    sample = sample_of()
    found = attribute_statistics(sample)
    whole = standardise(sample, found)
    parts = [standardise(sample[start : start + 33], found) for start in range(0, len(sample), 33)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.dtype == np.float32
