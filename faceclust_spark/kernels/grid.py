"""Unit vectors on an int16 grid, where dot products are exact in any order of summation.

A component is stored as rint(x * scale) with scale = 4096 - ceil(sqrt(d) / 2), so that every partial
sum of a dot product of two unit vectors stays below 2^24 and a float32 matrix product is exact however
it is blocked. The cosine's error has a standard deviation of about 1e-4.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def grid_scale(dimension: int) -> int:
    """Give the number of grid steps in one unit for vectors of this width."""
    return 4096 - math.ceil(math.sqrt(dimension) / 2)


def normalise(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale each row to unit length, in double precision; a row of zeros becomes NaN.

    Shapes: `(n, d)` to float64 `(n, d)`.
    """
    wide = np.asarray(embeddings, dtype=np.float64)
    # Dividing by the largest component first keeps the squares of huge or tiny values finite.
    with np.errstate(invalid="ignore", divide="ignore"):
        wide = wide / np.abs(wide).max(axis=1, keepdims=True, initial=0.0)
        unit: NDArray[np.float64] = wide / np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return unit


def quantise(unit_vectors: NDArray[np.floating]) -> NDArray[np.int16]:
    """Put unit vectors on the grid. Shapes: `(n, d)` to int16 `(n, d)`."""
    steps: NDArray[np.int16] = np.rint(unit_vectors * grid_scale(unit_vectors.shape[1])).astype(np.int16)
    return steps


def dots_to_cosines(dots: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    """Turn grid dot products into cosines; the same bits on every machine, order kept.

    One correctly rounded float32 product an element. Cosine similarity, higher is closer.
    """
    return np.multiply(dots, cosine_of_one(dimension), dtype=np.float32)


def cosine_of_one(dimension: int) -> np.float32:
    """Give the cosine for a dot product of one: what `dots_to_cosines` multiplies by."""
    return np.float32(1.0 / grid_scale(dimension) ** 2)


def cosine_matrix(rows: NDArray[np.int16], columns: NDArray[np.int16]) -> NDArray[np.float32]:
    """Give the cosine of each row with each column vector: `(m, d)`, `(n, d)` to float32 `(m, n)`.

    Exact on the grid, so independent of blocking, threads and machine.
    """
    dots = rows.astype(np.float32) @ columns.astype(np.float32).T
    return dots_to_cosines(dots, rows.shape[1])


def pack_vectors(vectors: NDArray[np.int16]) -> list[bytes]:
    """Give each row as little-endian bytes, two a component."""
    return [row.tobytes() for row in np.ascontiguousarray(vectors, dtype="<i2")]


def unpack_vectors(packed: bytes | memoryview, count: int) -> NDArray[np.int16]:
    """Read `count` vectors of equal width from one buffer. Returns a read-only int16 `(count, d)`."""
    flat = np.frombuffer(packed, dtype="<i2")
    return flat.reshape(count, -1) if count else flat.reshape(0, 0)
