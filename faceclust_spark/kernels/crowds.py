"""Cells that more faces visit than can meet each other pair by pair, divided into parts.

A gallery has at most 65,536 cells, for one process trains them on a sample. At 10^9 faces 150,000 visit each,
and to compare all of these with each other would be nearly all of the work. So whoever searches such a cell
divides it: k-means over its own visitors, who meet in the parts that they are nearest to. Sums and products
are exact whole numbers: the same visitors make the same parts on any machine.

How many pairs are left, and what is missed, of 256 components, edges above 0.4, one thread:

    visitors   pairs a face         recall   seconds
       8,192    4,096 -> 960        .998     0.24 -> 0.15
      16,384    8,192 -> 1,060      .998     0.95 -> 0.41
      60,000   30,000 -> 1,580      .995     11.2 -> 2.5
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.best import Place
from faceclust_spark.kernels.cells import FLAT_PROBED, Cells, mean_directions, probe_cells

FACES_PER_PART = 50
PROBED_PARTS = 6  # of each visitor
SAMPLED = 16  # visitors a part that k-means sees
ROUNDS = 3  # of k-means


_UNEVEN = 1.3  # times as many pairs as in parts of equal size


class Work(NamedTuple):
    """What the search of a cell takes, a visitor, about."""

    pairs: float  # compared
    parts: float  # that a visitor is compared with, training included


def visitor_work(visitors: float, largest_cell: int) -> Work:
    """Give what a cell takes that so many faces visit, with and without parts."""
    if visitors <= largest_cell:
        return Work(visitors / 2, 0.0)
    parts = part_count(int(visitors))
    sampled = min(1.0, SAMPLED * parts / visitors)
    return Work(_UNEVEN * visitors * PROBED_PARTS**2 / (2 * parts), parts * (1 + ROUNDS * sampled))


def part_count(visitors: int) -> int:
    """Give how many parts a cell of so many visitors has, at most."""
    return min(max(visitors // FACES_PER_PART, 1), FLAT_PROBED)


def train_parts(visitors: NDArray[np.int16]) -> Cells:
    """Train the parts of a cell by its visitors `(n, d)`, who come by ascending face id: a hash."""
    count = part_count(len(visitors))
    sample = visitors[:: max(1, len(visitors) // (count * SAMPLED))]
    centroids = sample[:: max(1, len(sample) // count)][:count]
    for _ in range(ROUNDS):
        home = probe_cells(sample, _as_cells(centroids), 1)[:, 0]
        order = np.argsort(home, kind="stable")
        starts = np.flatnonzero(np.diff(home[order], prepend=-1))
        centroids = mean_directions(sample[order], starts)
    return _as_cells(centroids)


def visit_parts(
    visitors: NDArray[np.int16], rows: NDArray[np.int64], gallery: int
) -> Iterator[tuple[Place, NDArray[np.int64]]]:
    """Give each part of a cell, and the places among the visitors of those who meet there, ascending.

    rows: of the visitors, in a gallery of so many. Shapes: `(n, d)`, `(n,)` ascending.
    """
    parts = train_parts(visitors)
    visited = np.sort(probe_cells(visitors, parts, PROBED_PARTS), axis=1)
    everyone = np.full((gallery, visited.shape[1]), -1, np.int32)
    everyone[rows] = visited
    order = np.argsort(visited.ravel(), kind="stable") // visited.shape[1]
    ends = np.cumsum(np.bincount(visited.ravel(), minlength=len(parts.centroids)))
    for part, some in enumerate(np.split(order, ends[:-1])):
        yield Place(part, everyone), some


def _as_cells(centroids: NDArray[np.int16]) -> Cells:
    return Cells(centroids, np.zeros(len(centroids), np.int32))
