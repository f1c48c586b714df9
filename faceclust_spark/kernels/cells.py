"""k-means cells that divide a gallery, and shards of neighbouring cells."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import CellsConfig
from faceclust_spark.kernels.grid import normalise, quantise

SAMPLE = "cells"  # purpose of the sample, see ids.sample_rows
FACES_PER_CELL = 200
MOST_CELLS = 65_536
PROBE_BLOCK = 8_192


class Cells(NamedTuple):
    """Centroids on the grid, and the shard of each: an order in which neighbours stand together."""

    centroids: NDArray[np.int16]  # (c, d)
    shards: NDArray[np.int32]  # (c,)


def cell_count(faces: int, config: CellsConfig) -> int:
    """Give the number of cells for a gallery of `faces` faces.

    `auto`: one, which is exact search, up to `exact_below` faces; beyond, the power of two next to
    one cell for 200 faces.
    """
    if config.cells != "auto":
        return min(config.cells, max(faces, 1))
    if faces <= config.exact_below:
        return 1
    return min(1 << round(math.log2(faces / FACES_PER_CELL)), MOST_CELLS)


def sample_size(faces: int, config: CellsConfig) -> int:
    """Give how many faces the cells are trained on."""
    cells = cell_count(faces, config)
    return min(faces, 1 if cells == 1 else cells * config.sample_per_cell)


def train_cells(sample: NDArray[np.int16], faces: int, config: CellsConfig, shards: int = 16) -> Cells:
    """Train the cells by spherical k-means on a sample `(m, d)` in sampling order.

    One thread: its floating-point sums, and so the cells, are the same wherever it runs. Cells are
    stored; all later stages take them as given.
    """
    count = min(cell_count(faces, config), max(len(sample), 1))
    if count == 1:
        return Cells(np.zeros((1, sample.shape[1]), np.int16), np.zeros(1, np.int32))
    centroids = np.unique(_kmeans(sample.astype(np.float32), count, config), axis=0)
    return Cells(centroids, assign_shards(centroids, shards))


def assign_shards(centroids: NDArray[np.int16], shards: int) -> NDArray[np.int32]:
    """Group neighbouring cells into at most `shards` shards of nearly equal numbers of cells.

    Halves the cells again and again along their direction of largest spread, so that a face that
    probes a few near cells visits few shards.
    """
    depth = max(0, math.ceil(math.log2(max(shards, 1))))
    shard = np.zeros(len(centroids), np.int32)
    for _ in range(depth):
        halves = np.zeros(len(centroids), np.int32)
        for part in np.unique(shard):
            rows = np.flatnonzero(shard == part)
            upper = rows[_upper_half(centroids[rows].astype(np.float64))]
            halves[upper] = 1
        shard = shard * 2 + halves
    return np.unique(shard, return_inverse=True)[1].astype(np.int32)


def probe_cells(vectors: NDArray[np.int16], cells: Cells, probes: int) -> NDArray[np.int32]:
    """Give the nearest cells of each vector, the home cell first; equal ones by the smaller number.

    Shapes: `(n, d)` to int32 `(n, min(probes, c))`.
    """
    probes = min(probes, len(cells.centroids))
    result = np.empty((len(vectors), probes), np.int32)
    if len(cells.centroids) == 1:
        result[:] = 0
        return result
    centroids = cells.centroids.astype(np.float32).T
    for start in range(0, len(vectors), PROBE_BLOCK):
        dots = vectors[start : start + PROBE_BLOCK].astype(np.float32) @ centroids
        rows = np.arange(len(dots))
        for probe in range(probes):
            nearest = dots.argmax(axis=1)  # the first of equal ones
            result[start : start + len(dots), probe] = nearest
            dots[rows, nearest] = -np.inf
    return result


def _kmeans(sample: NDArray[np.float32], count: int, config: CellsConfig) -> NDArray[np.int16]:
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        sample = sample / np.linalg.norm(sample, axis=1, keepdims=True)
        kmeans = faiss.Kmeans(
            sample.shape[1],
            count,
            niter=config.iterations,
            seed=config.seed + 1,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=max(config.sample_per_cell, 1),
        )
        kmeans.train(sample)
    finally:
        faiss.omp_set_num_threads(threads)
    return quantise(normalise(kmeans.centroids))


def _upper_half(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give the half of the points that lies further along their direction of largest spread."""
    centred = points - points.mean(axis=0)
    direction = np.ones(points.shape[1])
    for _ in range(20):  # power iteration
        direction = centred.T @ (centred @ direction)
        length = np.linalg.norm(direction)
        if not length:
            break
        direction /= length
    order = np.argsort(centred @ direction, kind="stable")
    return order[(len(order) + 1) // 2 :]
