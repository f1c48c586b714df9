"""Correlation clustering by greedy additive edge contraction."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.forest import component_keys

DENSE_COMPONENT = 4_000  # images; a matrix of 128 MB
_APART = -(1 << 40)  # outweighs any sum of links: 50,000 images with 100 each at the clip of 4 are 2^33


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
    # Merging happens only along positive links, so each component of those is a problem of its own.
    positive = weight > 0
    keys = component_keys(first[positive], second[positive], size)
    labels = np.arange(size)
    _contract_components(keys, first, second, weight, apart, DENSE_COMPONENT, labels)
    sizes = np.bincount(keys, minlength=size)
    for key in np.flatnonzero(sizes > DENSE_COMPONENT).tolist():
        inside = keys == key
        members = np.flatnonzero(inside)
        places = np.cumsum(inside) - 1
        kept, never = inside[first] & inside[second], inside[apart[0]] & inside[apart[1]]
        labels[members] = members[
            _contract_large(
                len(members),
                places[first[kept]],
                places[second[kept]],
                weight[kept],
                places[apart[0][never]],
                places[apart[1][never]],
            )
        ]
    return labels


def _contract_large(
    count: int,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    weight: NDArray[np.int64],
    apart_first: NDArray[np.int64],
    apart_second: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Contract a component too large for a matrix, with the same clusters: links in lists and a heap."""
    one, other = np.concatenate([first, apart_first]), np.concatenate([second, apart_second])
    sides = np.minimum(one, other) * count + np.maximum(one, other)
    code, inverse = np.unique(sides, return_inverse=True)
    sums = np.zeros(len(code), np.int64)
    np.add.at(sums, inverse, np.concatenate([weight, np.full(len(apart_first), _APART)]))
    labels: NDArray[np.int64] = _contract_lists(count, code // count, code % count, sums)
    return labels


@numba.njit(cache=True, nogil=True)
def _contract_lists(count, one, other, sums):  # type: ignore[no-untyped-def]
    """Contract links of distinct pairs; overwrites them. A link of sum 0 is none.

    Each cluster has a list of its links. Of two that merge the shorter list is walked, while the links of the
    longer one lie spread over all clusters; they stay so as long as this one goes on to grow. Two that grow
    by turns are spread anew each time: two stars of 20,000 leaves take a second, people next to nothing. A
    whole list is also gone through where the smallest row of its cluster changes, which is rare, for rows
    stand by hashes. An entry of the heap holds while its link has this sum and these names.
    """
    links, name, into = (one, other, sums), np.arange(count), np.arange(count)  # named by the smallest row
    lists = np.full(2 * len(sums), -1), np.full(count, -1), np.zeros(count, np.int64)
    spread = np.empty(count, np.int64), np.full(count, -1)  # the link to each, if up to date
    heap = [(np.int64(0), np.int64(0), np.int64(0), np.int64(0)) for _ in range(0)]
    for at in range(len(sums)):
        _put_first(2 * at, one[at], lists)
        _put_first(2 * at + 1, other[at], lists)
        if sums[at] > 0:
            heap.append((-sums[at], one[at], other[at], np.int64(at)))
    heapify(heap)
    left, growing, date = count, -1, 0
    while heap and left > 1:
        cost, low, high, link = heappop(heap)
        a, b = one[link], other[link]
        names = min(name[a], name[b]), max(name[a], name[b])
        if -cost != sums[link] or names != (low, high):
            continue
        if lists[2][a] < lists[2][b]:
            a, b = b, a
        renamed = name[b] < name[a]
        into[b], name[a], sums[link] = a, low, 0
        left -= 1
        if a != growing:
            growing, date = a, left
            _spread_links(a, links, lists, spread, date)
        _move_links(a, b, links, lists, heap, name, spread, date)
        if renamed:
            end = lists[1][a]
            while end >= 0:
                _push(end // 2, links, heap, name)
                end = lists[0][end]
    for row in range(count):
        while into[into[row]] != into[row]:
            into[row] = into[into[row]]
    return name[into]


@numba.njit(cache=True, nogil=True)
def _spread_links(a, links, lists, spread, date):  # type: ignore[no-untyped-def]
    """Tell of each cluster that a has a link to which one it is; links that are none leave the list."""
    one, other, sums = links
    following, head, length = lists
    end, head[a], length[a] = head[a], -1, 0
    while end >= 0:
        then, link = following[end], end // 2
        if sums[link] != 0:
            x = other[link] if one[link] == a else one[link]
            spread[0][x], spread[1][x] = link, date
            _put_first(end, a, lists)
        end = then


@numba.njit(cache=True, nogil=True)
def _move_links(a, b, links, lists, heap, name, spread, date):  # type: ignore[no-untyped-def]
    """Make the links of b those of a, whose own lie spread, added to what a has to the same clusters."""
    one, other, sums = links
    end = lists[1][b]
    while end >= 0:
        then, link = lists[0][end], end // 2
        if sums[link] != 0:
            x = other[link] if one[link] == b else one[link]
            if spread[1][x] == date:
                kept = spread[0][x]
                sums[kept] += sums[link]
                sums[link] = 0
            else:
                kept = link
                one[link], other[link] = a, x
                spread[0][x], spread[1][x] = link, date
                _put_first(end, a, lists)
            _push(kept, links, heap, name)
        end = then


@numba.njit(cache=True, nogil=True)
def _put_first(end, cluster, lists):  # type: ignore[no-untyped-def]
    following, head, length = lists
    following[end], head[cluster] = head[cluster], end
    length[cluster] += 1


@numba.njit(cache=True, nogil=True)
def _push(link, links, heap, name):  # type: ignore[no-untyped-def]
    one, other, sums = links
    if sums[link] > 0:
        a, b = name[one[link]], name[other[link]]
        heappush(heap, (-sums[link], min(a, b), max(a, b), np.int64(link)))


@numba.njit(cache=True, nogil=True)
def _contract_components(  # type: ignore[no-untyped-def]
    keys, first, second, weight, apart, largest, labels
):
    """Write the labels of all components of 2 to `largest` images, each from a dense matrix of sums."""
    places, sizes = np.empty(len(keys), np.int64), np.zeros(len(keys), np.int64)
    for x in range(len(keys)):
        places[x] = sizes[keys[x]]
        sizes[keys[x]] += 1
    members, _ = _group_by(keys, keys, len(keys))
    links, link_starts = _group_by(keys[first], keys[second], len(keys))
    never, never_starts = _group_by(keys[apart[0]], keys[apart[1]], len(keys))
    at = 0
    for key in range(len(keys)):
        size = sizes[key]
        own = members[at : at + size]
        at += size
        if size < 2 or size > largest:
            continue
        sums = np.zeros((size, size), np.int64)
        for p in links[link_starts[key] : link_starts[key + 1]]:
            i, j = places[first[p]], places[second[p]]
            sums[i, j] += weight[p]
            sums[j, i] += weight[p]
        for p in never[never_starts[key] : never_starts[key + 1]]:
            i, j = places[apart[0][p]], places[apart[1][p]]
            sums[i, j] = sums[j, i] = _APART
        labels[own] = own[_contract(sums)]


@numba.njit(cache=True, nogil=True)
def _group_by(one, other, count):  # type: ignore[no-untyped-def]
    """Give the places where both keys agree, by key, and where the places of each key start."""
    starts = np.zeros(count + 1, np.int64)
    for p in range(len(one)):
        if one[p] == other[p]:
            starts[one[p] + 1] += 1
    starts = np.cumsum(starts)
    ends = starts.copy()
    places = np.empty(starts[-1], np.int64)
    for p in range(len(one)):
        if one[p] == other[p]:
            places[ends[one[p]]] = p
            ends[one[p]] += 1
    return places, starts


@numba.njit(cache=True, nogil=True)
def _contract(sums):  # type: ignore[no-untyped-def]
    """Contract one component, given the sums between its images; each row keeps its best partner.

    `alive` lists the clusters that are left, ascending, so the work shrinks with them. A sum that grew
    needs no search: it was its row's best before, or is compared with the best.
    """
    count = len(sums)
    alive, into = np.arange(count), np.arange(count)
    best, gain = np.full(count, -1), np.zeros(count, np.int64)
    for x in alive:
        best[x], gain[x] = _best_partner(sums, alive, x)
    left = count
    while True:
        a = alive[0]
        for x in alive[:left]:
            if gain[x] > gain[a]:
                a = x
        if gain[a] == 0:
            break
        b = best[a]
        if b < a:
            a, b = b, a
        into[b] = a
        left = _remove(alive, left, b)
        best[a], gain[a] = _merge(sums, alive[:left], best, gain, a, b)
    for row in range(count):
        into[row] = into[into[row]]  # rows ascend, so what this one has gone into is known
    return into


@numba.njit(cache=True, nogil=True)
def _merge(sums, alive, best, gain, a, b):  # type: ignore[no-untyped-def]
    """Add the sums of b to those of a, and give a's best partner and its gain."""
    own, most = -1, 0
    for x in alive:
        if x == a:
            continue
        total = sums[a, x] + sums[b, x]
        sums[a, x] = sums[x, a] = total
        if total > most:
            own, most = x, total
        if best[x] == a or best[x] == b:
            if total >= gain[x]:
                best[x], gain[x] = a, total
            else:
                best[x], gain[x] = _best_partner(sums, alive, x)
        elif total > gain[x] or (total == gain[x] and total > 0 and a < best[x]):
            best[x], gain[x] = a, total
    return own, most


@numba.njit(cache=True, nogil=True)
def _remove(values, count, value):  # type: ignore[no-untyped-def]
    """Take a value out of the first `count`, which ascend; give how many are left."""
    place = np.searchsorted(values[:count], value)
    for r in range(place, count - 1):
        values[r] = values[r + 1]
    return count - 1


@numba.njit(cache=True, nogil=True)
def _best_partner(sums, alive, x):  # type: ignore[no-untyped-def]
    """Give the partner of the largest positive sum, the smallest of equal ones, and the sum; else -1, 0."""
    best, gain = -1, 0
    for y in alive:
        if y != x and sums[x, y] > gain:
            best, gain = y, sums[x, y]
    return best, gain
