"""What describes a cluster: its most typical member and its weakest pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from faceclust_spark.kernels.grid import dots_to_cosines

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Extremes(NamedTuple):
    """The medoid's row, and the lowest cosine of two members (NaN for one member alone)."""

    medoid: int
    lowest: float


def find_extremes(vectors: NDArray[np.int16], block: int = 2_048) -> Extremes:
    """Find the member with the highest mean cosine to the others, and the lowest cosine of any two.

    The mean comes from one product with the sum of all members, in integers, so it is exact and ties go
    to the earlier row; rows are sorted by face id. The lowest cosine visits every pair, `block` rows at
    a time: time grows with n^2, memory with block^2.

    Shapes: int16 `(n, d)` with n >= 1.
    """
    wide = vectors.astype(np.int64)
    to_others = wide @ wide.sum(axis=0) - np.einsum("nd,nd->n", wide, wide)
    medoid = int(np.argmax(to_others))
    if len(vectors) < 2:
        return Extremes(medoid, float("nan"))
    lowest_dot = min(
        _lowest_dot(vectors[i : i + block], vectors[j : j + block], i == j)
        for i in range(0, len(vectors), block)
        for j in range(i, len(vectors), block)
    )
    lowest = dots_to_cosines(np.array([lowest_dot], dtype=np.float32), vectors.shape[1])
    return Extremes(medoid, float(lowest[0]))


def _lowest_dot(rows: NDArray[np.int16], columns: NDArray[np.int16], same: bool) -> float:
    """Give the lowest dot product of a row with a column; with itself left out where `same`."""
    dots = rows.astype(np.float32) @ columns.astype(np.float32).T
    if same:
        np.fill_diagonal(dots, np.inf)
    return float(dots.min())


def mean_confidence(confidences: NDArray[np.float32]) -> np.float32:
    """Give the mean of a cluster's confidences, summed in row order in double precision."""
    return np.float32(np.cumsum(confidences, dtype=np.float64)[-1] / len(confidences))
