"""How images stand to clusters, and which of them move to another one."""

import numpy as np
import pytest

from faceclust_spark.kernels.refine import PairLogOdds
from faceclust_spark.kernels.standing import NO_CLUSTER, mean_log_odds, move_to_nearer

EMPTY = np.empty(0, np.int32)
CAUGHT = 5  # row of the image that stands in the wrong cluster


def pair_up(seed, size, dense, steps=2_000):
    """Draw log-odds of all pairs, or of some; and a matrix of them, NaN where unknown."""
    generator = np.random.default_rng(seed)
    first, second = np.triu_indices(size, 1)
    values = generator.integers(-steps, steps, size=len(first)).astype(np.int16)
    kept = np.ones(len(first), bool) if dense else generator.random(len(first)) < 0.4
    first, second, values = first[kept], second[kept], values[kept]
    matrix = np.full((size, size), np.nan)
    matrix[first, second] = matrix[second, first] = values / 256
    rows = (EMPTY, EMPTY) if dense else (first.astype(np.int32), second.astype(np.int32))
    return PairLogOdds(*rows, values), matrix


def smallest_rows(labels):
    return np.array([labels.tolist().index(label) for label in labels.tolist()])


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_mean_log_odds_equal_brute_force(seed, dense):
    size = 14
    pairs, matrix = pair_up(seed, size, dense)
    labels = np.random.default_rng(seed).integers(5, size=size)
    own, best, rival = mean_log_odds(labels, pairs, size)
    for row in range(size):
        means = {}
        for label in set(labels.tolist()):
            known = [x for x in matrix[row, labels == label].tolist() if not np.isnan(x)]
            if known:
                means[label] = sum(known) / len(known)
        assert own[row] == pytest.approx(means.pop(labels[row], np.nan), nan_ok=True)
        assert best[row] == pytest.approx(max(means.values(), default=np.nan), nan_ok=True)
        first = min((label for label in means if means[label] == max(means.values())), default=NO_CLUSTER)
        assert rival[row] == first


def move_slowly(labels, matrix, lead, photos):
    """Look at one image after the other, with sums over the matrix."""
    wanted = {}
    for row, own in enumerate(labels):
        others = (labels == own) & (np.arange(len(labels)) != row)
        if np.isnan(matrix[row, others]).all():
            continue
        means = {
            label: np.nanmean(matrix[row, labels == label])
            for label in sorted(set(labels.tolist()) - {own})
            if not np.isnan(matrix[row, labels == label]).all()
        }
        best = max(means, key=lambda label: (means[label], -label), default=None)
        if best is None or means[best] <= 0 or means[best] - np.nanmean(matrix[row, others]) <= lead:
            continue
        if np.nansum(matrix[np.ix_(others, labels == best)]) >= 0:
            continue
        wanted[row] = best
    left = {labels[row] for row in wanted}
    moved, shown = labels.copy(), {(a, p) for a, p in zip(labels, photos, strict=True) if p >= 0}
    for row, best in wanted.items():
        if best in left:
            continue
        if photos[row] < 0 or (best, photos[row]) not in shown:
            moved[row] = best
        shown.add((best, photos[row]))
    return smallest_rows(moved)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("lead", [0.0, 1.5])
@pytest.mark.parametrize("apart", [True, False])
def test_moves_equal_slow_ones(dense, lead, apart):
    moves = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        size = int(generator.integers(3, 25))
        pairs, matrix = pair_up(seed, size, dense)
        labels = smallest_rows(generator.integers(1 + size // 4, size=size))
        photos = generator.integers(-1, 4, size=size)
        standing = mean_log_odds(labels, pairs, size)
        found = move_to_nearer(labels, standing, pairs, lead, photos if apart else None)
        expected = move_slowly(labels, matrix, lead, photos if apart else np.full(size, -1))
        np.testing.assert_array_equal(found, expected)
        moves += (found != labels).sum()
    assert moves > 10


def caught(between):
    """Give 5 images of one person with one of another, who has 3 more; log-odds `between` these two."""
    size, people = 9, np.array([0, 0, 0, 0, 0, 0, 6, 6, 6])
    matrix = np.where(people[:, None] == people, 6.0, between)
    matrix[CAUGHT, :5] = matrix[:5, CAUGHT] = 2.0
    matrix[CAUGHT, 6:] = matrix[6:, CAUGHT] = 4.0
    values = np.rint(matrix[np.triu_indices(size, 1)] * 256).astype(np.int16)
    pairs = PairLogOdds(EMPTY, EMPTY, values)
    return people, mean_log_odds(people, pairs, size), pairs


def test_an_image_goes_where_it_is_nearer():
    labels, standing, pairs = caught(between=-1.0)
    assert move_to_nearer(labels, standing, pairs, 1.9, None).tolist() == [0] * 5 + [5] * 4
    assert move_to_nearer(labels, standing, pairs, 2.0, None) is labels  # no more than the lead


def test_no_image_goes_to_a_part_of_its_own_person():
    labels, standing, pairs = caught(between=0.5)
    assert move_to_nearer(labels, standing, pairs, 0.0, None) is labels


def test_no_image_goes_where_its_photo_is_shown():
    labels, standing, pairs = caught(between=-1.0)
    photos = np.full(9, -1)
    photos[[CAUGHT, 7]] = 3
    assert move_to_nearer(labels, standing, pairs, 0.0, photos) is labels
    photos[7] = 4
    assert move_to_nearer(labels, standing, pairs, 0.0, photos)[CAUGHT] == CAUGHT


def test_two_images_that_want_each_other_stay():
    links = {(0, 1): 5.8, (2, 3): 5.8, (1, 3): 25, (1, 2): -5, (0, 3): -5, (0, 2): -12}
    first, second = np.array(list(links)).T.astype(np.int32)
    pairs = PairLogOdds(first, second, np.rint(np.array(list(links.values())) * 256).astype(np.int16))
    labels = np.array([0, 0, 2, 2])
    standing = mean_log_odds(labels, pairs, 4)
    assert (standing.best - standing.own).round(1).tolist() == [-14.3, 4.2, -14.3, 4.2]
    assert move_to_nearer(labels, standing, pairs, 1.0, None) is labels


def test_nobody_moves_within_one_cluster_or_without_pairs():
    none = PairLogOdds(EMPTY, EMPTY, np.empty(0, np.int16))
    alone = np.array([0])
    assert move_to_nearer(alone, mean_log_odds(alone, none, 1), none, 0.0, None) is alone
    pairs, _ = pair_up(0, 6, dense=True)
    one = np.zeros(6, np.int64)
    assert move_to_nearer(one, mean_log_odds(one, pairs, 6), pairs, 0.0, None) is one
