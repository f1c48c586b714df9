"""How large a gallery's people are, told from a sample that has only some faces of each.

A face's image of its person: q of the person's centre and the rest noise, so that the cosine of two faces of
one person is about the product of their q. A sample of a share f of the gallery holds about f (s - 1) further
faces of a person of s: how many it links to one face says how large its person is (a Poisson mixture, whose
weights are found by expectation and maximisation; Laird 1978).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.grid import cosine_matrix
from faceclust_spark.kernels.thresholds import Thresholds

QUERIES = 4_000  # faces whose links are counted: 2 s among 50,000 of 256-d
CHANCE = 0.01  # chance links a face of the whole gallery, above the lowest level that is counted at
LEVELS = 16
HIGHEST = 0.92  # above: copies of one picture
SIZES = 60  # of people, in equal steps of their logarithm
ROUNDS = 500  # of expectation and maximisation
DRAWS = 20_000  # pairs of faces that a law of q is compared by
_BLOCK = 4_096

Q_MEANS = np.arange(0.40, 0.96, 0.02)
Q_SPREADS = np.array([0.02, 0.05, 0.08, 0.11, 0.14, 0.17, 0.20])
Q_RANGE = (0.02, 0.995)


class Likeness(NamedTuple):
    """How faces resemble their person: q is normal, cut to 0.02 .. 0.995."""

    mean: float  # of q
    spread: float  # of q
    linked: float  # share of the pairs of one person whose cosine reaches the level that links are counted at


class People(NamedTuple):
    """The people of a gallery as a random face meets them."""

    sizes: NDArray[np.int64]  # (s,) faces of a person, ascending
    shares: NDArray[np.float64]  # (s,) of the faces whose person has this size; their sum is 1
    likeness: Likeness


def find_people(vectors: NDArray[np.int16], share: float, faces: int, thresholds: Thresholds) -> People:
    """Estimate the people of a gallery of `faces` faces from `(m, d)` grid vectors in random order.

    share: of each person's faces that are in the sample, above 0, at most 1. thresholds: of the gallery.
    """
    levels = link_levels(faces, thresholds)
    links = count_links(vectors, min(QUERIES, len(vectors)), levels)
    likeness = fit_likeness(links.mean(axis=0), levels, thresholds)
    largest = max(2, min(faces, round(1.3 * (links[:, 0].max() + 1) / (share * likeness.linked))))
    sizes = np.unique(np.round(np.geomspace(1, largest, SIZES)).astype(np.int64))
    return People(sizes, fit_shares(links[:, 0], share * likeness.linked * (sizes - 1)), likeness)


def link_levels(faces: int, thresholds: Thresholds) -> NDArray[np.float64]:
    """Give the cosines that links are counted at, ascending: chance hardly reaches the lowest."""
    z = NormalDist().inv_cdf(1 - min(CHANCE / max(faces, 2), 0.4))
    lowest = min(thresholds.mean + z * thresholds.standard_deviation, HIGHEST - 0.1)
    return np.linspace(lowest, HIGHEST, LEVELS)


def count_links(vectors: NDArray[np.int16], queries: int, levels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count the others that each of the first `queries` vectors meets at each level or above.

    Shapes: `(m, d)`, `(l,)` ascending to int64 `(queries, l)`.
    """
    counts = np.zeros((queries, len(levels)), np.int64)
    for start in range(0, len(vectors), _BLOCK):
        cosines = cosine_matrix(vectors[:queries], vectors[start : start + _BLOCK])
        own = np.arange(start, min(start + _BLOCK, queries))
        cosines[own, own - start] = -2.0
        for number, level in enumerate(levels):
            counts[:, number] += np.count_nonzero(cosines >= np.float32(level), axis=1)
    return counts


def fit_likeness(links: NDArray[np.float64], levels: NDArray[np.float64], thresholds: Thresholds) -> Likeness:
    """Find the law of q under which links fall off with the level as they do. Shapes: `(l,)`, `(l,)`."""
    generator = np.random.default_rng(0)
    ones, others, noise = generator.standard_normal((3, DRAWS))
    best, found = math.inf, Likeness(float(Q_MEANS[-1]), float(Q_SPREADS[0]), 1.0)
    if not links[0]:
        return found
    for mean in Q_MEANS:
        for spread in Q_SPREADS:
            q, r = (np.clip(mean + spread * draw, *Q_RANGE) for draw in (ones, others))
            chance = thresholds.standard_deviation * np.sqrt((1 - q * q) * (1 - r * r)) * noise
            cosines = np.sort(thresholds.mean + q * r + chance)
            reached = 1 - np.searchsorted(cosines, levels) / DRAWS
            if reached[0] < 0.02:
                continue
            scale = (links * reached).sum() / (reached * reached).sum()
            error = float(((scale * reached - links) ** 2).sum())
            if error < best:
                best, found = error, Likeness(float(mean), float(spread), float(reached[0]))
    return found


def fit_shares(counts: NDArray[np.int64], expected: NDArray[np.floating]) -> NDArray[np.float64]:
    """Give the most likely shares of a mixture of Poisson laws with these means. Shapes: `(n,)`, `(s,)`."""
    values, weights = np.unique(counts, return_counts=True)
    means = np.maximum(expected, 1e-9)
    factorials = np.array([math.lgamma(value + 1.0) for value in values])
    logs = values[:, None] * np.log(means) - means - factorials[:, None]
    likelihood = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares = np.full(len(means), 1.0 / len(means))
    for _ in range(ROUNDS):
        posterior = likelihood * shares
        posterior /= posterior.sum(axis=1, keepdims=True)
        shares = weights @ posterior / weights.sum()
    return shares


def person_sizes(people: People, faces: int) -> NDArray[np.int64]:
    """Give the sizes of the people of a gallery of `faces` faces, their sum; int64 `(p,)` ascending.

    Faces that do not make up a whole person are carried on to the next larger size, so that rare people come
    with about the right weight. What is left behind the largest stands alone: there, sizes are mostly not
    those of people, but of blurred faces that resemble each other a little (as one person they doubled the
    predicted pairs of a gallery of 200,000).
    """
    sizes, carried = [], 0.0
    for size, share in zip(people.sizes.tolist(), people.shares.tolist(), strict=True):
        carried += faces * share
        count = int(carried // size)
        sizes += [size] * count
        carried -= count * size
    alone = max(0, faces - sum(sizes))
    return np.sort(np.array(sizes + [1] * alone, np.int64))
