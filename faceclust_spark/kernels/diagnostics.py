"""The numbers behind pictures: cosines by kind of pair, a sweep of thresholds, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from faceclust_spark.errors import DataError
from faceclust_spark.kernels.cells import sample_size, train_cells
from faceclust_spark.kernels.forest import component_keys, edges_of_lists, maximum_spanning_forest
from faceclust_spark.kernels.grid import cosine_matrix
from faceclust_spark.kernels.ids import is_missing, sample_rows
from faceclust_spark.kernels.metrics import Scores, judge_members, score
from faceclust_spark.kernels.neighbours import find_neighbours

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from faceclust_spark.config import Config

UNKNOWN = -1  # number of a face's person where it has no label
_QUERIES = 500  # faces that are compared with all others
_95_PERCENT = 1.96  # s.d.


class PairCosines(NamedTuple):
    """Cosines of pairs by their kind, float32. Of labelled faces only: `same` and `different` persons."""

    random: NDArray[np.float32]  # a random face with every other
    nearest: NDArray[np.float32]  # the same faces with their K nearest
    same: NDArray[np.float32]
    different: NDArray[np.float32]


class Calibration(NamedTuple):
    """How often faces of like confidence are right: one entry a filled bin, in order."""

    confidence: NDArray[np.float64]  # mean of the bin's faces
    share: NDArray[np.float64]  # of them in the right cluster
    low: NDArray[np.float64]  # 95 % interval of that share
    high: NDArray[np.float64]
    faces: NDArray[np.int64]


def number_labels(labels: Sequence[Any], count: int) -> NDArray[np.int64]:
    """Give each face the number of its person, in the order of the labels; UNKNOWN for None and NaN.

    Raises DataError unless there are `count` labels.
    """
    values = np.asarray(labels, object)
    if len(values) != count:
        raise DataError(f"{len(values)} labels for {count} faces: each face needs one, or None")
    known = ~np.array([is_missing(value) for value in values], np.bool_)
    person = np.full(count, UNKNOWN, np.int64)
    person[known] = np.unique(values[known], return_inverse=True)[1]
    return person


def sample_pairs(vectors: NDArray[np.int16], person: NDArray[np.int64], k: int) -> PairCosines:
    """Compare at most 500 random faces with all others.

    Shapes: grid vectors `(n, d)` with n >= 2, numbers of persons `(n,)`.
    """
    count = len(vectors)
    queries = np.sort(np.random.default_rng(0).permutation(count)[:_QUERIES])
    cosines = cosine_matrix(vectors[queries], vectors)
    other = queries[:, None] != np.arange(count)
    random = cosines[other].reshape(len(queries), count - 1)
    k = min(k, count - 1)
    nearest = np.partition(random, count - 1 - k, axis=1)[:, count - 1 - k :]
    known = other & (person[queries, None] != UNKNOWN) & (person != UNKNOWN)
    same = person[queries, None] == person
    return PairCosines(random.ravel(), nearest.ravel(), cosines[known & same], cosines[known & ~same])


def score_components(
    vectors: NDArray[np.int16], person: NDArray[np.int64], levels: Sequence[float], config: Config
) -> list[Scores]:
    """Score the connected components of the neighbour graph at each cosine: what one threshold can do.

    Shapes: grid vectors `(n, d)`, numbers of persons `(n,)`; faces without one take part, and are not
    scored. config: its `cells` and `neighbours`, but for the floor, decide how neighbours are found.
    """
    rows, known = np.arange(len(vectors)), person != UNKNOWN
    size = sample_size(len(vectors), config.cells)
    cells = train_cells(vectors[sample_rows(rows, size, "cells")], len(vectors), config.cells)
    lists = find_neighbours(rows, vectors, cells, min(levels), config.neighbours)
    forest = maximum_spanning_forest(edges_of_lists(lists))
    scores = []
    for level in levels:
        kept = forest.cosine >= np.float32(level)
        components = component_keys(forest.first[kept], forest.second[kept], len(vectors))
        scores.append(score(person[known], components[known]))
    return scores


def calibrate(
    person: NDArray[np.int64], cluster: NDArray[np.int64], confidence: NDArray[np.floating], bins: int
) -> Calibration:
    """Compare confidences with the truth, in bins of equal width.

    Right is a face whose person is its cluster's most frequent one, of equals the smaller number. Faces
    without a person are left out, and faces that then are alone in their cluster. The interval is
    Wilson's (1927).

    Shapes: `(n,)` each; confidences 0 to 1. Raises DataError where nothing is left.
    """
    known = person != UNKNOWN
    person, cluster, confidence = person[known], cluster[known], confidence[known]
    members, is_right = judge_members(person, cluster)
    if not members.any():
        raise DataError("no cluster holds two labelled faces: there is nothing to compare confidences with")
    right, sure = is_right[members], confidence[members].astype(np.float64)
    numbers = np.minimum((sure * bins).astype(np.int64), bins - 1)
    filled, faces = np.unique(numbers, return_counts=True)
    share = np.bincount(numbers, right)[filled] / faces
    low, high = _wilson(share, faces)
    return Calibration(np.bincount(numbers, sure)[filled] / faces, share, low, high, faces)


def _wilson(
    share: NDArray[np.float64], count: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    squared = _95_PERCENT**2
    middle = (share + squared / (2 * count)) / (1 + squared / count)
    variance = share * (1 - share) / count + squared / (4 * count**2)
    half = _95_PERCENT * np.sqrt(variance) / (1 + squared / count)
    return middle - half, middle + half
