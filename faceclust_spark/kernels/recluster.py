"""Re-clustering of a group by its confidences and refined similarities [claim 1]."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import ClustersConfig
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.refine import LOG_ODDS_STEPS, PairLogOdds, Refinement

NEEDS_PAIRS = (
    "clusters.rule=correlation needs refined similarities, and a model of kind `literal` gives none: "
    "set clusters.rule=confidence, or use another model"
)
DENSE_COMPONENT = 4_000  # images; a matrix of 128 MB
_APART = -(1 << 40)  # outweighs any sum of links: 3,000^2 pairs at the clip are 2^33


class Clustering(NamedTuple):
    """Each image's cluster, by the smallest face id in it, and its confidence, float32 in 0 to 1."""

    labels: NDArray[np.int64]  # (n,)
    confidences: NDArray[np.float32]  # (n,)


def recluster(
    face_ids: NDArray[np.int64],
    keys: NDArray[np.int64],
    refinement: Refinement,
    config: ClustersConfig,
    photos: NDArray[np.int64] | None = None,
) -> Clustering:
    """Divide one root group into clusters; every image ends in exactly one.

    `correlation`: greedy additive edge contraction on the refined log-odds, into which the confidences
    have gone. `confidence`, the patent's letter: of the nested groups the best set that does not
    overlap, from which images of low confidence leave.

    Shapes: `(n,)` ascending, `(t, n)` lowest threshold first. photos: `(n,)`, equal numbers for images of
    one photo, -1 for none; with `same_photo: apart` they never share a cluster.

    Raises ConfigError where `correlation` meets a model that gives no refined similarities.
    """
    apart = photos if photos is not None and config.same_photo == "apart" else None
    if config.rule == "confidence":
        chosen, confidences = _by_confidence(face_ids, keys, refinement.confidences, config, apart)
        return Clustering(chosen, confidences)
    size = len(face_ids)
    if size > 1 and not len(refinement.pairs.log_odds):
        raise ConfigError(NEEDS_PAIRS)
    links = _links(refinement.pairs, size, config)
    labels = contract(size, *links, _photo_pairs(apart, size))
    own = _own_confidences(labels, refinement.pairs, size)
    return Clustering(face_ids[labels], own)


def contract(
    size: int,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    weight: NDArray[np.int64],
    apart: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Cluster by greedy additive edge contraction (Keuper et al. 2015): correlation clustering.

    Merges the two clusters with the largest positive sum of links until none is left; equal sums fall
    to the smaller rows. Integer sums: no order of summation changes them. Links that are not listed
    weigh nothing. apart: pairs that must not share a cluster.

    Returns the smallest row of each row's cluster, int64 `(n,)`.
    """
    labels = np.arange(size)
    # Merging happens only along positive links, so each component of those is a problem of its own.
    positive = weight > 0
    keys = _components(first[positive], second[positive], size)
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(np.diff(keys[order])) + 1
    inside = keys[first] == keys[second]
    by_component = np.argsort(keys[first[inside]], kind="stable")
    f, s, w = (column[inside][by_component] for column in (first, second, weight))
    link_keys = keys[f]
    a, b = apart
    for members in np.split(order, bounds):
        if len(members) == 1:
            continue
        span = slice(*np.searchsorted(link_keys, [keys[members[0]], keys[members[0]] + 1]))
        one, other = (np.searchsorted(members, column[span]) for column in (f, s))
        kept = (keys[a] == keys[members[0]]) & (keys[b] == keys[members[0]])
        this, that = (np.searchsorted(members, column[kept]) for column in (a, b))
        way = _contract if len(members) <= DENSE_COMPONENT else _contract_rounds
        labels[members] = members[way(len(members), one, other, w[span], this, that)]
    return labels


def _contract_rounds(
    count: int,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    weight: NDArray[np.int64],
    apart_first: NDArray[np.int64],
    apart_second: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Contract a component too large for a matrix: in each round all pairs that are each other's best.

    The strongest pair of all is always among them, so rounds end; about log(n) of them do.
    """
    first, second = np.concatenate([first, apart_first]), np.concatenate([second, apart_second])
    weight = np.concatenate([weight, np.full(len(apart_first), _APART)])
    labels = np.arange(count)
    while True:
        a, b = labels[first], labels[second]
        differ = a != b
        low, high = np.minimum(a, b)[differ], np.maximum(a, b)[differ]
        code, inverse = np.unique(low * count + high, return_inverse=True)
        sums = np.zeros(len(code), np.int64)
        np.add.at(sums, inverse, weight[differ])
        first, second, weight = code // count, code % count, sums  # merged links need no repetition
        one = np.concatenate([first[sums > 0], second[sums > 0]])
        other = np.concatenate([second[sums > 0], first[sums > 0]])
        strength = np.concatenate([sums[sums > 0], sums[sums > 0]])
        if not len(one):
            return labels
        order = np.lexsort((other, -strength, one))
        clusters, starts = np.unique(one[order], return_index=True)
        best = np.full(count, -1)
        best[clusters] = other[order][starts]
        merged = clusters[(best[best[clusters]] == clusters) & (clusters < best[clusters])]
        target = np.arange(count)
        target[best[merged]] = merged
        labels = target[labels]


def mean_log_odds(
    labels: NDArray[np.int64], pairs: PairLogOdds, size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give each image's mean log-odds to its own cluster's others, and to the best other cluster.

    Over the pairs that are known; NaN where there is none.
    """
    first, second = _pair_rows(pairs, size)
    value = pairs.log_odds.astype(np.int64)
    one, other = np.concatenate([first, second]), np.concatenate([second, first])
    value = np.concatenate([value, value])
    code, inverse, counts = np.unique(one * size + labels[other], return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, weights=value, minlength=len(code))  # integers: exact
    means = sums / counts / LOG_ODDS_STEPS
    image, cluster = code // size, code % size
    own, best = np.full(size, np.nan), np.full(size, np.nan)
    is_own = cluster == labels[image]
    own[image[is_own]] = means[is_own]
    np.fmax.at(best, image[~is_own], means[~is_own])
    return own, best


def _links(
    pairs: PairLogOdds, size: int, config: ClustersConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give rows and weights of the links: log-odds less the bias, clipped."""
    first, second = _pair_rows(pairs, size)
    limit = round(config.clip * LOG_ODDS_STEPS)
    weight = pairs.log_odds.astype(np.int64) - round(config.bias * LOG_ODDS_STEPS)
    return first, second, np.clip(weight, -limit, limit)


def _pair_rows(pairs: PairLogOdds, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if len(pairs.first) or not len(pairs.log_odds):
        return pairs.first.astype(np.int64), pairs.second.astype(np.int64)
    first, second = np.triu_indices(size, 1)
    return first, second


def _photo_pairs(photos: NDArray[np.int64] | None, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the pairs of rows that come from one photo."""
    none = np.empty(0, np.int64)
    if photos is None:
        return none, none
    rows = np.flatnonzero(photos >= 0)
    order = rows[np.argsort(photos[rows], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(photos[order])) + 1)
    both = [np.stack(np.triu_indices(len(g), 1)) for g in groups]
    pairs = [(np.sort(g)[f], np.sort(g)[s]) for g, (f, s) in zip(groups, both, strict=True)]
    if not pairs:
        return none, none
    return np.concatenate([f for f, _ in pairs]), np.concatenate([s for _, s in pairs])


def _own_confidences(labels: NDArray[np.int64], pairs: PairLogOdds, size: int) -> NDArray[np.float32]:
    """Give the chance that each image is in the right cluster.

    For a member, sigmoid of its mean log-odds to the cluster's others; for an image alone, that of
    not belonging to the cluster it is nearest to.
    """
    own, best = mean_log_odds(labels, pairs, size)
    logit = np.where(np.isnan(own), -np.nan_to_num(best, nan=-30.0), own)
    return (1.0 / (1.0 + np.exp(-logit))).astype(np.float32)


def _by_confidence(
    face_ids: NDArray[np.int64],
    keys: NDArray[np.int64],
    confidences: NDArray[np.float32],
    config: ClustersConfig,
    photos: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Choose among nested groups by the sum of (2 confidence - 1) over their members.

    A group is taken whole unless the best choice among the groups inside it scores higher. Members
    below `min_confidence` leave and are alone; of two of one photo the less confident one leaves.
    """
    gain = np.rint((2 * confidences.astype(np.float64) - 1) * LOG_ODDS_STEPS).astype(np.int64)
    row = np.full(len(face_ids), len(keys) - 1)
    best = _group_sums(keys[-1], gain[-1])
    for level in range(len(keys) - 2, -1, -1):
        whole = _group_sums(keys[level], gain[level])
        inside = _group_sums(keys[level], np.where(_is_first(keys[level + 1]), best, 0))
        takes = whole >= inside
        row = np.where(takes, level, row)
        best = np.maximum(whole, inside)
    rows = np.arange(len(face_ids))
    own, chosen = confidences[row, rows], keys[row, rows]
    leaves = (own < np.float32(config.min_confidence)) | _less_sure_of_photo(own, chosen, photos)
    alone = leaves & (_group_sums(chosen, np.ones(len(chosen), np.int64)) > 1)
    # A leaver may be the image that its group is named after, so both parts of the name count.
    _, numbers = np.unique(np.stack([chosen, np.where(alone, rows + 1, 0)]), axis=1, return_inverse=True)
    smallest = _smallest_of(numbers.ravel(), face_ids)
    return smallest, np.where(alone, 1 - own, own).astype(np.float32)


def _group_sums(keys: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each image the sum over its group."""
    _, inverse = np.unique(keys, return_inverse=True)
    sums = np.zeros(inverse.max(initial=-1) + 1, np.int64)
    np.add.at(sums, inverse, values)
    return sums[inverse]


def _is_first(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark one image of each group."""
    marked = np.zeros(len(keys), bool)
    marked[np.unique(keys, return_index=True)[1]] = True
    return marked


def _smallest_of(labels: NDArray[np.int64], face_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Name each cluster by the smallest face id in it; face ids ascend, so by its first row."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return face_ids[first][inverse]


def _less_sure_of_photo(
    confidence: NDArray[np.float32], keys: NDArray[np.int64], photos: NDArray[np.int64] | None
) -> NDArray[np.bool_]:
    """Mark all but the most confident image of each photo within each group."""
    marked = np.zeros(len(keys), bool)
    if photos is None:
        return marked
    rows = np.flatnonzero(photos >= 0)
    order = rows[np.lexsort((rows, -confidence[rows], photos[rows], keys[rows]))]
    same = (keys[order][1:] == keys[order][:-1]) & (photos[order][1:] == photos[order][:-1])
    marked[order[1:][same]] = True
    return marked


@numba.njit(cache=True)
def _components(first, second, count):  # type: ignore[no-untyped-def]
    parent = np.arange(count)
    for i in range(len(first)):
        a, b = first[i], second[i]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b
    for x in range(count):
        a = x
        while parent[a] != a:
            a = parent[a]
        parent[x] = a
    return parent


@numba.njit(cache=True)
def _contract(  # type: ignore[no-untyped-def]  # noqa: PLR0912
    count, first, second, weight, apart_first, apart_second
):
    """Contract one component with a dense matrix of sums and each row's best partner."""
    sums = np.zeros((count, count), np.int64)
    for i in range(len(first)):
        sums[first[i], second[i]] += weight[i]
        sums[second[i], first[i]] += weight[i]
    for i in range(len(apart_first)):
        sums[apart_first[i], apart_second[i]] = _APART
        sums[apart_second[i], apart_first[i]] = _APART
    label = np.arange(count)
    alive = np.ones(count, np.bool_)
    best = np.full(count, -1)
    for x in range(count):
        best[x] = _best_partner(sums, alive, x)
    while True:
        a = -1
        for x in range(count):
            if alive[x] and best[x] >= 0 and (a < 0 or sums[x, best[x]] > sums[a, best[a]]):
                a = x
        if a < 0:
            break
        b = best[a]
        if b < a:
            a, b = b, a
        alive[b] = False
        for x in range(count):
            if label[x] == b:
                label[x] = a
            if alive[x] and x != a:
                sums[a, x] += sums[b, x]
                sums[x, a] = sums[a, x]
        best[a] = _best_partner(sums, alive, a)
        for x in range(count):
            if not alive[x] or x == a:
                continue
            if best[x] == a or best[x] == b:
                best[x] = _best_partner(sums, alive, x)
            elif sums[x, a] > 0:
                y = best[x]
                if y < 0 or sums[x, a] > sums[x, y] or (sums[x, a] == sums[x, y] and a < y):
                    best[x] = a
    return label


@numba.njit(cache=True)
def _best_partner(sums, alive, x):  # type: ignore[no-untyped-def]
    best = -1
    for y in range(sums.shape[0]):
        if y != x and alive[y] and sums[x, y] > 0 and (best < 0 or sums[x, y] > sums[x, best]):
            best = y
    return best
