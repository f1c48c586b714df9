"""Single pairs out of a root group's packed log-odds: what decided over two faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from faceclust_spark.kernels.refine import LOG_ODDS_STEPS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from faceclust_spark.kernels.refine import PairLogOdds

LOG_ODDS_STEP = 1 / LOG_ODDS_STEPS


class Between(NamedTuple):
    """The scored pairs between two sets of faces: how many, and the sum of their log-odds."""

    pairs: int
    log_odds: float


def log_odds_of_face(pairs: PairLogOdds, size: int, row: int) -> NDArray[np.float32]:
    """Give the log-odds of one face with every face of its group of `size`; NaN where not scored.

    Returns float32 `(size,)`, in natural units; the face itself is NaN.
    """
    result = np.full(size, np.nan, dtype=np.float32)
    if len(pairs.first):
        for mine, other in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
            at = np.flatnonzero(mine == row)
            result[other[at]] = pairs.log_odds[at] * np.float32(LOG_ODDS_STEP)
    elif len(pairs.log_odds):
        others = np.delete(np.arange(size), row)
        places = triangle_places(np.minimum(others, row), np.maximum(others, row), size)
        result[others] = pairs.log_odds[places] * np.float32(LOG_ODDS_STEP)
    return result


def triangle_places(first: NDArray[np.int64], second: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Give the place of each pair, first < second, in the upper triangle read row by row."""
    return first * size - first * (first + 1) // 2 + second - first - 1


def log_odds_between(
    pairs: PairLogOdds, size: int, these: NDArray[np.int64], those: NDArray[np.int64]
) -> Between:
    """Count and sum the scored pairs between two sets of rows that have none in common."""
    if len(pairs.first):
        side = np.zeros(size, dtype=np.int8)
        side[these], side[those] = 1, 2
        found = pairs.log_odds[side[pairs.first] + side[pairs.second] == 3]
    elif not len(pairs.log_odds):  # a model of the patent's letter scores no pairs
        found = pairs.log_odds
    else:
        low = np.minimum(these[:, None], those[None, :])
        high = np.maximum(these[:, None], those[None, :])
        found = pairs.log_odds[triangle_places(low, high, size)].ravel()
    return Between(len(found), float(found.sum(dtype=np.int64)) * LOG_ODDS_STEP)
