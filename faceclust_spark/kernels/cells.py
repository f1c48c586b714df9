"""k-means cells that divide a gallery, and the nearest cells of a face."""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import CellsConfig
from faceclust_spark.kernels.grid import normalise, quantise
from faceclust_spark.kernels.threads import map_parts

SAMPLE = "cells"  # purpose of the sample, see ids.sample_rows
FACES_PER_CELL = 50
MOST_CELLS = 65_536
PROBE_BLOCK = 4_096
FLAT_TRAINED = 256  # up to here all cells are trained at once, beyond shard by shard
FLAT_PROBED = 4_096  # cells that a face is compared with: beyond, those of its nearest shards
LARGEST_SAMPLE = 1 << 20  # faces: 512 MB at 256-d in the process that trains
COARSE_SAMPLE = 256  # faces a shard that the shards are trained on


class Cells(NamedTuple):
    """Centroids on the grid, in an order in which neighbours stand together, and the shard of each.

    Shards are groups of neighbouring cells, about the square root of their number, ascending.
    """

    centroids: NDArray[np.int16]  # (c, d)
    shards: NDArray[np.int32]  # (c,) ascending from 0


def cell_count(faces: int, config: CellsConfig) -> int:
    """Give the number of cells for a gallery of `faces` faces.

    `auto`: one, which is exact search, up to `exact_below` faces; beyond, the power of two next to
    one cell for 50 faces. Smaller cells and more probes find more for the same products: at 10^6 faces, edges
    above 0.4, 9 probes of 4,096 cells find .971 at 10,700 pairs a face, 10 of 16,384 find .991 at 4,200.
    """
    if config.cells != "auto":
        return min(config.cells, max(faces, 1))
    if faces <= config.exact_below:
        return 1
    return min(1 << max(0, round(math.log2(faces / FACES_PER_CELL))), MOST_CELLS)


def sample_size(faces: int, config: CellsConfig) -> int:
    """Give how many faces the cells are trained on."""
    cells = cell_count(faces, config)
    return min(faces, LARGEST_SAMPLE, 1 if cells == 1 else cells * config.sample_per_cell)


def train_cells(sample: NDArray[np.int16], faces: int, config: CellsConfig) -> Cells:
    """Train the cells by spherical k-means on a sample `(m, d)` in sampling order.

    One thread for each k-means: its floating-point sums, and so the cells, are the same wherever it runs, and
    on any number of cores. Cells are stored; all later stages take them as given.
    """
    count = min(cell_count(faces, config), max(len(sample), 1))
    if count == 1:
        return Cells(np.zeros((1, sample.shape[1]), np.int16), np.zeros(1, np.int32))
    train = _train_flat if count <= FLAT_TRAINED else _train_shards
    return train(sample, count, config)


def cell_parts(cells: Cells, parts: int) -> NDArray[np.int32]:
    """Divide the cells between `parts` tasks, so that each has neighbouring ones. Returns int32 `(c,)`."""
    count = len(cells.centroids)
    return (np.arange(count) * min(parts, count) // count).astype(np.int32)


def probe_cells(
    vectors: NDArray[np.int16], cells: Cells, probes: int, block: int = PROBE_BLOCK
) -> NDArray[np.int32]:
    """Give the nearest cells of each vector, the home cell first; equal ones by the smaller number.

    Beyond 4,096 cells only those of the nearest shards are compared, about 4,096 of them, so that the work of
    a face does not grow with the gallery. Shapes: `(n, d)` to int32 `(n, min(probes, c))`.
    """
    probes = min(probes, len(cells.centroids))
    if len(cells.centroids) == 1:
        return np.zeros((len(vectors), 1), np.int32)
    probe = _probe_flat if len(cells.centroids) <= FLAT_PROBED else _probe_shards
    blocks = [probe(vectors[i : i + block], cells, probes) for i in range(0, max(len(vectors), 1), block)]
    return np.concatenate(blocks)


def _probe_flat(vectors: NDArray[np.int16], cells: Cells, probes: int) -> NDArray[np.int32]:
    found, dots = _nothing_found(len(vectors), probes)
    for start in range(0, len(cells.centroids), 1_024):  # 16 MB of dot products at once
        part = cells.centroids[start : start + 1_024]
        _keep_nearest(_dots(vectors, part), np.arange(len(vectors)), start, found, dots)
    return found


def _probe_shards(vectors: NDArray[np.int16], cells: Cells, probes: int) -> NDArray[np.int32]:
    """Compare with the shards' centroids, then with the cells of the nearest shards, shard by shard."""
    starts = np.flatnonzero(np.diff(cells.shards, prepend=-1))
    bounds = np.append(starts, len(cells.shards))
    share = -(-FLAT_PROBED * len(starts) // len(cells.centroids))
    enough = max(share, -(-probes // int(np.diff(bounds).min())))
    near, near_dots = _nothing_found(len(vectors), min(enough, len(starts)))
    centroids = mean_directions(cells.centroids, starts)
    _keep_nearest(_dots(vectors, centroids), np.arange(len(vectors)), 0, near, near_dots)
    found, dots = _nothing_found(len(vectors), probes)
    for shard in range(len(starts)):
        rows = np.flatnonzero((near == shard).any(axis=1))
        part = cells.centroids[bounds[shard] : bounds[shard + 1]]
        _keep_nearest(_dots(vectors[rows], part), rows, bounds[shard], found, dots)
    return found


def mean_directions(rows: NDArray[np.int16], starts: NDArray[np.int64]) -> NDArray[np.int16]:
    """Give the direction of the sum of each run of grid rows, on the grid. starts: `(c,)`, of the runs.

    Sums are exact, so the bits are the same on any machine. Shapes: `(n, d)` to `(c, d)`.
    """
    ends = np.append(starts[1:], len(rows))
    runs = [rows[start:end].sum(axis=0, dtype=np.int64) for start, end in zip(starts, ends, strict=True)]
    sums = np.stack(runs)
    lengths = np.sqrt((sums * sums).sum(axis=1).astype(np.float64))
    return quantise(sums / np.maximum(lengths, 1.0)[:, None])


def _dots(rows: NDArray[np.int16], columns: NDArray[np.int16]) -> NDArray[np.float32]:
    return rows.astype(np.float32) @ columns.astype(np.float32).T


def _nothing_found(rows: int, probes: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    return np.full((rows, probes), -1, np.int32), np.full((rows, probes), -np.inf, np.float32)


@numba.njit(cache=True, nogil=True)
def _keep_nearest(dots, rows, first, found, found_dots):  # type: ignore[no-untyped-def]
    """Insert columns `first`, `first + 1`, ... into the rows' sorted lists of nearest ones.

    Columns come in ascending order, so an equal one that is there already has the smaller number.
    """
    last = found.shape[1] - 1
    for i in range(len(rows)):
        row = rows[i]
        for start in range(0, dots.shape[1], 32):
            stop = min(start + 32, dots.shape[1])
            hits = 0
            for j in range(start, stop):
                hits += dots[i, j] > found_dots[row, last]
            if hits == 0:
                continue
            for j in range(start, stop):
                dot = dots[i, j]
                if dot > found_dots[row, last]:
                    place = last
                    while place > 0 and found_dots[row, place - 1] < dot:
                        found_dots[row, place] = found_dots[row, place - 1]
                        found[row, place] = found[row, place - 1]
                        place -= 1
                    found_dots[row, place] = dot
                    found[row, place] = first + j


def _train_flat(sample: NDArray[np.int16], count: int, config: CellsConfig) -> Cells:
    centroids = np.unique(_kmeans(sample, count, config), axis=0)
    pieces = _order(centroids)
    sizes = [len(piece) for piece in pieces]
    return Cells(centroids[np.concatenate(pieces)], np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))


def _train_shards(sample: NDArray[np.int16], count: int, config: CellsConfig) -> Cells:
    """Train shards first, then the cells of each on its own part of the sample.

    Its work grows with count^1.5, that of all cells at once with count^2: 0.9 instead of 5.6 s for 1,024
    cells of 256-d and 128 faces a cell, at an edge recall of .989 instead of .992 with 8 probes, which
    visit 3.8 instead of 4.8 of 8 tasks.
    """
    shards = 1 << round(math.log2(count) / 2)
    coarse = np.unique(_kmeans(sample[: shards * COARSE_SAMPLE], shards, config), axis=0)
    coarse = coarse[np.concatenate(_order(coarse))]
    home = probe_cells(sample, Cells(coarse, np.arange(len(coarse), dtype=np.int32)), 1)[:, 0]

    def train(shard: int) -> NDArray[np.int16]:
        part = sample[home == shard]
        share = max(1, round(count * len(part) / len(sample)))
        centroids = np.unique(_kmeans(part, min(share, len(part)), config), axis=0)
        return centroids[np.concatenate(_order(centroids))]

    trained = map_parts(train, np.unique(home).tolist())
    numbers = np.repeat(np.arange(len(trained), dtype=np.int32), [len(part) for part in trained])
    return Cells(np.concatenate(trained), numbers)


def _kmeans(sample: NDArray[np.int16], count: int, config: CellsConfig) -> NDArray[np.int16]:
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        kmeans = faiss.Kmeans(
            sample.shape[1],
            count,
            niter=config.iterations,
            seed=config.seed + 1,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=max(config.sample_per_cell, 1),
        )
        kmeans.train(normalise(sample.astype(np.float32)).astype(np.float32))
    finally:
        faiss.omp_set_num_threads(threads)
    return quantise(normalise(np.asarray(kmeans.centroids)))


def _order(centroids: NDArray[np.int16]) -> list[NDArray[np.int64]]:
    """Order rows so that neighbours stand together, in about sqrt(c) pieces of equal size.

    Halves the rows again and again along their direction of largest spread.
    """
    pieces = [np.arange(len(centroids))]
    depth = math.ceil(math.log2(max(len(centroids), 1)))
    shards = pieces
    for level in range(1, depth + 1):
        pieces = [half for piece in pieces for half in _halve(piece, centroids) if len(half)]
        if level == round(depth / 2):
            shards = pieces
    order, sizes = np.concatenate(pieces), [len(piece) for piece in shards]
    return np.split(order, np.cumsum(sizes)[:-1])


def _halve(
    rows: NDArray[np.int64], centroids: NDArray[np.int16]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into the lower and the upper half along their direction of largest spread."""
    points = centroids[rows].astype(np.float64)
    centred = points - points.mean(axis=0)
    direction = np.ones(points.shape[1])
    for _ in range(20):  # power iteration
        direction = centred.T @ (centred @ direction)
        length = np.linalg.norm(direction)
        if not length:
            break
        direction /= length
    order = rows[np.argsort(centred @ direction, kind="stable")]
    half = (len(order) + 1) // 2
    return order[:half], order[half:]
