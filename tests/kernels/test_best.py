import itertools

import numpy as np
import pytest

from faceclust_spark.kernels.best import (
    CHUNK,
    EVERYWHERE,
    Place,
    empty_best,
    flatten_best,
    keep_pairs,
    keep_rows,
)


def random_dots(rows, columns, seed=0):
    """Draw whole numbers, few of them, so that ties abound."""
    return np.random.default_rng(seed).integers(-6, 7, size=(rows, columns)).astype(np.float32)


def no_candidates(rows, k, lowest, highest=2.0**24):
    return empty_best(rows, k, np.float32(lowest), np.float32(highest))


def sorted_best(pairs, rows, k, lowest):
    """The best k of each row's (dot, row) candidates: larger dots first, then smaller rows."""
    kept = [
        sorted({p for p in pairs.get(row, []) if p[0] >= lowest}, key=lambda p: (-p[0], p[1]))[:k]
        for row in range(rows)
    ]
    return [[row for _, row in own] for own in kept], [[dot for dot, _ in own] for own in kept]


def as_lists(best):
    offsets, rows, dots = flatten_best(best)
    cut = [slice(a, b) for a, b in itertools.pairwise(offsets)]
    return [rows[c].tolist() for c in cut], [dots[c].tolist() for c in cut]


@pytest.mark.parametrize("k", [1, 2, 7, 100])
@pytest.mark.parametrize("lowest", [-100, 0, 3])
@pytest.mark.parametrize("block", [1, 5, CHUNK, CHUNK + 1, 90])
def test_rows_equal_a_sort(k, lowest, block):
    dots = random_dots(10, 90)
    own = np.array([4, -1, 0, 89, -1, 31, 32, 33, -1, 64])
    best = no_candidates(10, k, lowest)
    for start in range(0, 90, block):
        keep_rows(dots[:, start : start + block], 0, start, own, best)
    pairs = {r: [(d, c) for c, d in enumerate(dots[r].tolist()) if c != own[r]] for r in range(10)}
    assert as_lists(best) == sorted_best(pairs, 10, k, lowest)


def test_rows_of_a_later_block():
    dots, own = random_dots(6, 20), np.full(6, -1)
    whole, parts = no_candidates(6, 4, 0), no_candidates(6, 4, 0)
    keep_rows(dots, 0, 0, own, whole)
    for row in range(0, 6, 2):
        keep_rows(dots[row : row + 2], row, 0, own, parts)
    assert as_lists(parts) == as_lists(whole)


@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("block", [4, 33, 70])
@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_offered_to_both_in_the_smallest_cell_they_share(k, block, seed):
    generator = np.random.default_rng(seed)
    count, cells, lowest = 70, 6, 1
    probed = np.sort(generator.permuted(np.tile(np.arange(cells), (count, 1)), axis=1)[:, :3], axis=1)
    probed = probed.astype(np.int32)
    dots = np.triu(random_dots(count, count, seed), 1)
    dots = dots + dots.T
    best = no_candidates(count, k, lowest)
    for cell in generator.permutation(cells):
        visitors = np.flatnonzero((probed == cell).any(axis=1))
        for top in range(0, len(visitors), block):
            for left in range(top, len(visitors), block):
                rows, columns = visitors[top : top + block], visitors[left : left + block]
                some = dots[np.ix_(rows, columns)]
                keep_pairs(some, rows, columns, Place(int(cell), probed), EVERYWHERE, best)
    pairs = {
        row: [
            (dots[row, other], other)
            for other in range(count)
            if other != row and set(probed[row]) & set(probed[other])
        ]
        for row in range(count)
    }
    assert as_lists(best) == sorted_best(pairs, count, k, lowest)


def test_pairs_of_a_cell_in_parts_are_offered_where_they_share_both():
    generator = np.random.default_rng(7)
    count, k = 60, 100
    cells, parts = (
        np.sort(generator.permuted(np.tile(np.arange(8), (count, 1)), axis=1)[:, :2], axis=1).astype(np.int32)
        for _ in range(2)
    )
    dots = np.triu(random_dots(count, count, 7), 1)
    dots = dots + dots.T
    best = no_candidates(count, k, -100)
    for cell, part in itertools.product(range(8), range(8)):
        here = np.flatnonzero((cells == cell).any(axis=1) & (parts == part).any(axis=1))
        some = dots[np.ix_(here, here)]
        keep_pairs(some, here, here, Place(cell, cells), Place(part, parts), best)
    pairs = {
        row: [
            (dots[row, other], other)
            for other in range(count)
            if other != row and set(cells[row]) & set(cells[other]) and set(parts[row]) & set(parts[other])
        ]
        for row in range(count)
    }
    assert as_lists(best) == sorted_best(pairs, count, k, -100)


def test_nothing_offered_is_nothing_found():
    offsets, rows, dots = flatten_best(no_candidates(3, 4, 0))
    assert (offsets.tolist(), rows.tolist(), dots.tolist()) == ([0, 0, 0, 0], [], [])


def test_the_largest_grid_products_and_row_numbers_are_kept_apart():
    best = no_candidates(1, 3, -(2.0**24))
    dots = np.array([[-(2.0**24), 2.0**24, 2.0**24 - 1, 0]], np.float32)
    keep_rows(dots, 0, 2**31, np.array([-1]), best)
    assert as_lists(best) == ([[2**31 + 1, 2**31 + 2, 2**31 + 3]], [[2.0**24, 2.0**24 - 1, 0.0]])


def test_what_exceeds_the_highest_is_as_good_as_it():
    best = no_candidates(4, 2, 0, highest=4)
    dots, own = np.array([[3, 5, 4, 6]] * 4, np.float32), np.arange(4)
    keep_rows(dots, 0, 0, own, best)
    assert as_lists(best) == ([[1, 2], [2, 3], [1, 3], [1, 2]], [[4, 4]] * 4)
    best = no_candidates(4, 2, 0, highest=4)
    keep_pairs(np.tile(dots[0] + 1, (4, 1)), own, own, EVERYWHERE, EVERYWHERE, best)
    assert as_lists(best) == ([[1, 2], [0, 2], [0, 1], [0, 1]], [[4, 4]] * 4)
