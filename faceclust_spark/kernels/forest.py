"""The maximum spanning forest of the neighbour graph: its components at every threshold at once.

The strongest spanning forest holds, for every threshold, exactly the connected components of the whole
graph (single linkage; Gower & Ross 1969). Forests of parts merge exactly: the forest of a union is the
forest of the union of the forests.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.kernels.neighbours import NeighbourLists


class Edges(NamedTuple):
    """Undirected edges between faces, `first < second`."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    cosine: NDArray[np.float32]


class ContractedEdges(NamedTuple):
    """Edges between contracted vertices, each with the edge of faces that it stands for.

    A vertex is a set of faces named by one of them; two vertices may have several edges.
    """

    start: NDArray[np.int64]  # vertices
    end: NDArray[np.int64]
    first: NDArray[np.int64]  # faces, `first < second`
    second: NDArray[np.int64]
    cosine: NDArray[np.float32]


def edges_of_lists(lists: NeighbourLists) -> Edges:
    """Give each pair of the neighbour lists once. A pair may stand in one or both lists."""
    owners = np.repeat(lists.face_ids, np.diff(lists.offsets))
    first, second = np.minimum(owners, lists.neighbours), np.maximum(owners, lists.neighbours)
    return Edges(first, second, lists.cosines)


def join_edges(parts: list[Edges]) -> Edges:
    """Concatenate edges."""
    if not parts:
        return Edges(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    return Edges(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def maximum_spanning_forest(edges: Edges) -> Edges:
    """Give the maximum spanning forest, strongest edge first (Kruskal 1956).

    Ties are ordered by the smaller first, then second id, so the forest is unique: the same for any
    order, repetition or partitioning of the edges.
    """
    if not len(edges.first):
        return edges
    faces, first, second = _dense(edges.first, edges.second)
    order = _strength_order(edges.cosine, first, second)
    kept = order[_kruskal(first[order], second[order], len(faces))]
    return Edges(edges.first[kept], edges.second[kept], edges.cosine[kept])


def contracted_forest(edges: ContractedEdges) -> ContractedEdges:
    """Give the maximum spanning forest over the contracted vertices, strongest edge first.

    Edges are ordered by the faces that they stand for, as `maximum_spanning_forest` orders them: so the
    forest of a graph is what was contracted of it and this forest of the rest.
    """
    if not len(edges.start):
        return edges
    vertices, start, end = _dense(edges.start, edges.end)
    order = strength_order(edges)
    kept = order[_kruskal(start[order], end[order], len(vertices))]
    return ContractedEdges._make(column[kept] for column in edges)


def both_ways(edges: ContractedEdges) -> ContractedEdges:
    """Give each edge twice: once from either end."""
    start, end = np.concatenate([edges.start, edges.end]), np.concatenate([edges.end, edges.start])
    return ContractedEdges._make([start, end, *(np.tile(column, 2) for column in edges[2:])])


def strongest_of_each(edges: ContractedEdges) -> ContractedEdges:
    """Give the strongest edge that leaves each start, by ascending start.

    Where all edges of a vertex are here, its strongest is part of the forest (Boruvka 1926).
    """
    if not len(edges.start):
        return edges
    order = strength_order(edges)
    kept = order[np.unique(edges.start[order], return_index=True)[1]]
    return ContractedEdges._make(column[kept] for column in edges)


def component_keys(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Give each vertex 0..count-1 the smallest vertex of its connected component, int64 `(count,)`."""
    return np.asarray(_components(first, second, count))


def strongest_path(forest: Edges, start: int, end: int) -> Edges | None:
    """Give the path between two faces in the forest, in walking order; None if there is none.

    Its weakest edge is the highest threshold at which both are connected (the minimax path).
    """
    if not len(forest.first):
        return None
    faces, first, second = _dense(forest.first, forest.second)
    ends = np.searchsorted(faces, [start, end])
    if (ends >= len(faces)).any() or (faces[ends] != [start, end]).any():
        return None
    steps = _tree_path(first, second, len(faces), int(ends[0]), int(ends[1]))
    if start != end and not len(steps):
        return None
    return Edges(forest.first[steps], forest.second[steps], forest.cosine[steps])


def _dense(
    first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Number the ends of edges 0.. in the order of their ids."""
    ids, numbers = np.unique(np.concatenate([first, second]), return_inverse=True)
    numbers = numbers.astype(np.int64)
    return ids, numbers[: len(first)], numbers[len(first) :]


def strength_order(edges: ContractedEdges) -> NDArray[np.int64]:
    """Order contracted edges as the edges of faces that they stand for."""
    _, first, second = _dense(edges.first, edges.second)
    return _strength_order(edges.cosine, first, second)


def _strength_order(
    cosine: NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Order edges by cosine descending, first ascending, second ascending.

    Positive and negative floats sort like integers once the sign is folded, so the cosine and the
    first vertex fit one 64-bit key (a lexsort over three columns took six times as long). Few edges share a
    key, but for those that are there twice: only they are sorted by the second vertex too.
    """
    bits = np.ascontiguousarray(cosine, np.float32).view(np.int32).astype(np.int64)
    rising = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    key = ((2**31 - rising) << 31) | first
    order = np.argsort(key)
    keys, seconds = key[order], second[order]
    same = keys[1:] == keys[:-1]
    run = np.cumsum(np.append(True, ~same))[: len(keys)] - 1
    mixed = np.zeros(len(keys), bool)  # of runs
    mixed[run[1:][same & (seconds[1:] != seconds[:-1])]] = True
    rows = np.flatnonzero(mixed[run])
    order[rows] = order[rows][np.lexsort((seconds[rows], keys[rows]))]
    return order


@numba.njit(cache=True)
def _find(parent: NDArray[np.int64], x: int) -> int:
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x


@numba.njit(cache=True)
def _kruskal(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    parent = np.arange(count)
    size = np.ones(count, np.int64)
    kept = np.empty(min(len(first), max(count - 1, 0)), np.int64)
    found = 0
    for i in range(len(first)):
        a, b = _find(parent, first[i]), _find(parent, second[i])
        if a != b:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            kept[found] = i
            found += 1
    return kept[:found]


@numba.njit(cache=True)
def _components(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    parent = np.arange(count)
    for i in range(len(first)):
        a, b = _find(parent, first[i]), _find(parent, second[i])
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b
    for x in range(count):
        parent[x] = _find(parent, x)
    return parent


@numba.njit(cache=True)
def _tree_path(
    first: NDArray[np.int64], second: NDArray[np.int64], count: int, start: int, end: int
) -> NDArray[np.int64]:
    """Walk breadth first from `end`, then follow the way back from `start`; edge numbers in order."""
    degree = np.zeros(count + 1, np.int64)
    for i in range(len(first)):
        degree[first[i] + 1] += 1
        degree[second[i] + 1] += 1
    offsets = np.cumsum(degree)
    fill = offsets[:-1].copy()
    touching = np.empty(2 * len(first), np.int64)
    for i in range(len(first)):
        for x in (first[i], second[i]):
            touching[fill[x]] = i
            fill[x] += 1
    back = np.full(count, -1, np.int64)
    queue = np.empty(count, np.int64)
    queue[0], head, tail = end, 0, 1
    back[end] = -2
    while head < tail and back[start] == -1:
        x = queue[head]
        head += 1
        for place in range(offsets[x], offsets[x + 1]):
            edge = touching[place]
            y = second[edge] if first[edge] == x else first[edge]
            if back[y] == -1:
                back[y] = edge
                queue[tail] = y
                tail += 1
    steps = np.empty(count, np.int64)
    length, x = 0, start
    if back[start] == -1:
        return steps[:0]
    while x != end:
        edge = back[x]
        steps[length] = edge
        length += 1
        x = second[edge] if first[edge] == x else first[edge]
    return steps[:length]
