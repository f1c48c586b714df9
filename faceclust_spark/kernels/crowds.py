"""Cells that more faces visit than can meet each other pair by pair, divided into parts.

A gallery has at most 65,536 cells, for one process trains them on a sample. At 10^9 faces 150,000 visit each,
and to compare all of these with each other would be most of the work. So whoever searches such a cell
divides it: k-means over its own visitors, who meet in the parts that they are nearest to. What all visitors
have in common is taken away before: parts that lie where all are near would have most of the visits. Sums and
products are exact whole numbers: the same visitors make the same parts on any machine.

Edges above 0.4 of 256 components, one thread:

    visitors   pairs a face         recall   seconds
       8,192    4,096 -> 1,650      .999     0.26 -> 0.24
      17,000    8,500 -> 1,710      .999     0.98 -> 0.56
      60,000   30,000 -> 2,350      .996     11.5 -> 3.1
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.best import EVERYWHERE, Place
from faceclust_spark.kernels.cells import FLAT_PROBED, PROBE_BLOCK, Cells, mean_directions, probe_cells
from faceclust_spark.kernels.grid import quantise

FACES_PER_PART = 50
PROBED_PARTS = 8  # of each visitor
SAMPLED = 16  # visitors a part that k-means sees, at least; up to twice as many
ROUNDS = 3  # of k-means
_FEW_PARTS = 2 * PROBED_PARTS**2  # so few leave half of the pairs or more, however visitors spread
_UNEVEN = 1.3  # times as many pairs as in parts of equal size


class Work(NamedTuple):
    """What the search of a cell takes, a visitor, about."""

    pairs: float  # compared
    parts: float  # that a visitor is compared with, training included


def visitor_work(visitors: float, largest_cell: int) -> Work:
    """Give what a cell takes that so many faces visit, with and without parts."""
    whole, parts = visitors / 2, part_count(int(visitors))
    if visitors <= largest_cell or parts <= _FEW_PARTS:
        return Work(whole, 0.0)
    sampled = min(1.0, SAMPLED * parts / visitors)
    pairs = _UNEVEN * whole * PROBED_PARTS**2 / parts
    return Work(pairs if pairs < whole / 2 else whole, parts * (1 + ROUNDS * sampled))


def part_count(visitors: int) -> int:
    """Give how many parts a cell of so many visitors has, at most."""
    return min(max(visitors // FACES_PER_PART, 1), FLAT_PROBED)


def visit_parts(
    vectors: NDArray[np.int16], rows: NDArray[np.int64]
) -> Iterator[tuple[Place, NDArray[np.int64]]]:
    """Give each part of a cell, and the rows of those who meet there, ascending.

    One part for all where parts would leave half of the pairs or more: below 6,450 visitors, or where half of
    them are copies, say.
    vectors: of a gallery `(n, d)`, by ascending face id. rows: of those who visit the cell, `(v,)` ascending.
    """
    if part_count(len(rows)) <= _FEW_PARTS:
        yield EVERYWHERE, rows
        return
    own = centred(vectors, rows)
    parts = train_parts(own)
    visited = np.sort(probe_cells(own, parts, PROBED_PARTS), axis=1)
    sizes = np.bincount(visited.ravel(), minlength=len(parts.centroids))
    if 2 * int((sizes * sizes).sum()) >= len(rows) ** 2:
        yield EVERYWHERE, rows
        return
    everyone = np.full((len(vectors), visited.shape[1]), -1, np.int32)
    everyone[rows] = visited
    order = np.argsort(visited.ravel(), kind="stable") // visited.shape[1]
    for part, some in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        yield Place(part, everyone), rows[some]


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


def centred(vectors: NDArray[np.int16], rows: NDArray[np.int64]) -> NDArray[np.int16]:
    """Give the direction of each of these rows from their mean, on the grid, `(v, d)`; 0: it has none."""
    blocks = [slice(start, start + PROBE_BLOCK) for start in range(0, len(rows), PROBE_BLOCK)]
    total = np.sum([vectors[rows[block]].sum(axis=0, dtype=np.int64) for block in blocks], axis=0)
    mean = np.rint(total / len(rows)).astype(np.int64)
    found = np.empty((len(rows), vectors.shape[1]), np.int16)
    for block in blocks:
        away = vectors[rows[block]] - mean
        lengths = np.sqrt((away * away).sum(axis=1).astype(np.float64))
        found[block] = quantise(away / np.maximum(lengths, 1.0)[:, None])
    return found


def _as_cells(centroids: NDArray[np.int16]) -> Cells:
    return Cells(centroids, np.zeros(len(centroids), np.int32))
