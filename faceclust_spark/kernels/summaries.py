"""What describes a cluster: its most typical member and its weakest pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

from faceclust_spark.kernels.grid import dots_to_cosines

if TYPE_CHECKING:
    from numpy.typing import NDArray


_PRODUCTS = 256  # members: from here matrix products are faster than loops


class Extremes(NamedTuple):
    """The medoid's row, and the lowest cosine of two members (NaN for one member alone)."""

    medoid: int
    lowest: float


class Summaries(NamedTuple):
    """What describes each of some clusters."""

    medoids: NDArray[np.int64]  # (c,) rows
    lowest: NDArray[np.float32]  # (c,) lowest cosine of two members, NaN for one member alone
    mean_confidences: NDArray[np.float32]  # (c,)


def summarise_clusters(
    vectors: NDArray[np.int16], confidences: NDArray[np.float32], starts: NDArray[np.int64]
) -> Summaries:
    """Describe clusters whose rows stand together; extremes are those of `find_extremes`.

    Confidences are summed in row order in double precision.

    Shapes: `(n, d)`, `(n,)`, `(c,)` first row of each, ascending from 0.
    """
    bounds = np.append(starts, len(vectors))
    medoids, dots, means = _describe_small(np.ascontiguousarray(vectors), confidences, bounds, _PRODUCTS)
    lowest = dots_to_cosines(dots, vectors.shape[1])
    lowest[np.diff(bounds) < 2] = np.nan
    for place in np.flatnonzero(np.diff(bounds) > _PRODUCTS).tolist():
        extremes = find_extremes(vectors[bounds[place] : bounds[place + 1]])
        medoids[place], lowest[place] = starts[place] + extremes.medoid, extremes.lowest
    return Summaries(medoids, lowest, means)


@numba.njit(cache=True, nogil=True)
def _describe_small(vectors, confidences, bounds, largest):  # type: ignore[no-untyped-def]
    """Give medoids and lowest dots of clusters of up to `largest` members, and mean confidences of all."""
    count = len(bounds) - 1
    medoids, dots, means = np.zeros(count, np.int64), np.zeros(count, np.float32), np.zeros(count, np.float32)
    total = np.empty(vectors.shape[1], np.int64)
    for c in range(count):
        low, high = bounds[c], bounds[c + 1]
        surely = 0.0
        for i in range(low, high):
            surely += confidences[i]
        means[c] = surely / (high - low)
        if high - low > largest:
            continue
        total[:] = 0
        for i in range(low, high):
            total += vectors[i]
        medoids[c], most = low, np.int64(-(1 << 62))
        lowest = np.int32(1 << 30)
        for i in range(low, high):
            own = np.int64(0)
            for k in range(len(total)):
                own += vectors[i, k] * (total[k] - vectors[i, k])
            if own > most:
                medoids[c], most = i, own
            for j in range(i + 1, high):
                dot = np.int32(0)
                for k in range(len(total)):
                    dot += np.int32(vectors[i, k]) * np.int32(vectors[j, k])
                lowest = min(lowest, dot)
        dots[c] = lowest
    return medoids, dots, means


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
