"""Pairwise, BCubed and NMI scores of a clustering, from its contingency table; the worth of confidences.

With n_ij images of identity i in cluster j, and N images in all, singletons too:
pairwise t = sum n_ij^2 - N, P = t / (sum_j |cluster_j|^2 - N), R = t / (sum_i |identity_i|^2 - N);
BCubed P = 1/N sum n_ij^2 / |cluster_j|, R = 1/N sum n_ij^2 / |identity_i| (Bagga & Baldwin 1998);
F is the harmonic mean in both. NMI is mutual information over the mean of both entropies.

A confidence is compared with whether its image shows the person whom most of its cluster show. The Brier
score is the mean squared difference of the two (Brier 1950), 0 at best.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Scores(NamedTuple):
    """All in 0 to 1, higher is better; NaN where undefined: a share of no pairs at all."""

    pairwise_precision: float
    pairwise_recall: float
    pairwise_f: float
    bcubed_precision: float
    bcubed_recall: float
    bcubed_f: float
    nmi: float


class Reliability(NamedTuple):
    """What confidences are worth, over the members: images that are not alone in their cluster.

    NaN where there are none.
    """

    members: int
    mean_confidence: float
    share_right: float  # of them show the person whom most of their cluster show
    brier: float


def score(labels: ArrayLike, clusters: ArrayLike) -> Scores:
    """Compare clusters with labels, both `(n,)` of any type that sorts."""
    identity = np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64)
    cluster = np.unique(np.asarray(clusters), return_inverse=True)[1].astype(np.int64)
    width = int(cluster.max(initial=0)) + 1
    cells, counts = np.unique(identity * width + cluster, return_counts=True)
    return score_contingency(cells // width, cells % width, counts.astype(np.int64))


def score_confidences(
    labels: ArrayLike, clusters: ArrayLike, confidences: NDArray[np.floating]
) -> Reliability:
    """Compare confidences of 0 to 1 with labels: `(n,)` each, labels and clusters of any type that sorts."""
    is_member, is_right = judge_members(labels, clusters)
    sure, right = np.asarray(confidences)[is_member].astype(np.float64), is_right[is_member]
    if not len(sure):
        return Reliability(0, *[float("nan")] * 3)
    brier = ((sure - right) ** 2).mean()
    return Reliability(len(sure), float(sure.mean()), float(right.mean()), float(brier))


def judge_members(labels: ArrayLike, clusters: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Give which images are not alone in their cluster, and which are right there, `(n,)` each.

    Right is an image of its cluster's main identity.
    """
    identity = np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64)
    keys, main = main_identities(np.asarray(clusters), identity)
    cluster = np.searchsorted(keys, np.asarray(clusters))
    return np.bincount(cluster, minlength=len(keys))[cluster] > 1, main[cluster] == identity


def main_identities(
    clusters: NDArray[Any], people: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Give each cluster, ascending, and its most frequent identity, of equals the smaller: `(c,)` each."""
    keys, cluster = np.unique(clusters, return_inverse=True)
    pairs, counts = np.unique(np.stack([cluster, people]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    first = np.unique(pairs[0][order], return_index=True)[1]
    return keys, pairs[1][order][first]


def score_contingency(
    identity: NDArray[np.int64], cluster: NDArray[np.int64], count: NDArray[np.int64]
) -> Scores:
    """Score a contingency table given by its filled cells, `(c,)` each: numbers of both, and images."""
    total = int(count.sum())
    people, sizes = _sums(identity, count), _sums(cluster, count)
    pairs = int((count * count).sum()) - total
    pairwise = _rates(pairs, int((sizes * sizes).sum()) - total, int((people * people).sum()) - total)
    squares = (count * count).astype(np.float64)
    bcubed = _rates(
        1.0,
        total / float((squares / sizes[cluster]).sum()) if total else 0.0,
        total / float((squares / people[identity]).sum()) if total else 0.0,
    )
    return Scores(*pairwise, *bcubed, _nmi(identity, cluster, count, people, sizes))


def _sums(keys: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros(int(keys.max(initial=-1)) + 1, np.int64)
    np.add.at(sums, keys, count)
    return sums


def _rates(hits: float, found: float, wanted: float) -> tuple[float, float, float]:
    """Give precision, recall and F; a rate over nothing is undefined."""
    precision = hits / found if found else float("nan")
    recall = hits / wanted if wanted else float("nan")
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else (0.0 if both == 0 else both)


def _nmi(
    identity: NDArray[np.int64],
    cluster: NDArray[np.int64],
    count: NDArray[np.int64],
    people: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> float:
    total = count.sum()
    joint = count / total
    expected = (people[identity] / total) * (sizes[cluster] / total)
    mutual = float((joint * np.log(joint / expected)).sum())
    mean = (_entropy(people / total) + _entropy(sizes / total)) / 2
    return min(max(mutual / mean, 0.0), 1.0) if mean > 0 else 1.0  # one cluster, one person


def _entropy(shares: NDArray[np.float64]) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())
