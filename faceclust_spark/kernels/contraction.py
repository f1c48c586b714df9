"""Correlation clustering by greedy additive edge contraction."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.forest import component_keys

DENSE_COMPONENT = 4_000  # images; a matrix of 128 MB
_APART = -(1 << 40)  # outweighs any sum of links: 3,000^2 pairs at the clip are 2^33


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
    keys = component_keys(first[positive], second[positive], size)
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
