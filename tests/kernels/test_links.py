import numpy as np
import pytest

from faceclust_spark.kernels.links import (
    LOG_ODDS_STEP,
    log_odds_between,
    log_odds_of_face,
)
from faceclust_spark.kernels.refine import PairLogOdds

EMPTY = np.empty(0, dtype=np.int32)


def draw(size, seed, share):
    """Give a symmetric matrix of log-odds, NaN where not scored, and its packed form."""
    generator = np.random.default_rng(seed)
    first, second = np.triu_indices(size, 1)
    if share < 1:
        kept = generator.random(len(first)) < share
        first, second = first[kept], second[kept]
    steps = generator.integers(-3_000, 3_000, size=len(first)).astype(np.int16)
    matrix = np.full((size, size), np.nan)
    matrix[first, second] = matrix[second, first] = steps * LOG_ODDS_STEP
    if share == 1:
        return matrix, PairLogOdds(EMPTY, EMPTY, steps)
    return matrix, PairLogOdds(first.astype(np.int32), second.astype(np.int32), steps)


@pytest.mark.parametrize("size", [2, 3, 17])
@pytest.mark.parametrize("share", [1, 0.6])
def test_links_of_a_face_equal_the_matrix(size, share):
    matrix, pairs = draw(size, size, share)
    for row in range(size):
        np.testing.assert_array_equal(log_odds_of_face(pairs, size, row), matrix[row])


def test_a_face_alone_has_no_links():
    alone = PairLogOdds(EMPTY, EMPTY, EMPTY.astype(np.int16))
    assert np.isnan(log_odds_of_face(alone, 1, 0)).all()


@pytest.mark.parametrize("share", [1, 0.5])
def test_sum_between_two_sets_equals_the_matrix(share):
    matrix, pairs = draw(20, 4, share)
    rows = np.random.default_rng(5).permutation(20)
    these, those = rows[:6], rows[6:15]
    block = matrix[np.ix_(these, those)]
    found = log_odds_between(pairs, 20, these, those)
    assert found.pairs == np.isfinite(block).sum()
    assert found.log_odds == pytest.approx(np.nansum(block))


def test_a_group_without_pair_scores_has_no_links():
    unscored = PairLogOdds(EMPTY, EMPTY, EMPTY.astype(np.int16))
    assert np.isnan(log_odds_of_face(unscored, 5, 2)).all()
    assert log_odds_between(unscored, 5, np.array([0, 1]), np.array([2])) == (0, 0.0)
