"""The peers of the accuracy table: unit vectors and one or two parameters in, labels out.

Cosine similarity, higher is closer. Every face is in one cluster; noise is alone. Infomap (GPL-3.0, imported
here only), HDBSCAN (BSD) and Chinese whispers (MIT) need the extra `bench`, the others what tests have.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

Vectors = NDArray[np.float32]  # (n, d), unit rows
Labels = NDArray[np.int64]  # (n,)

_BLOCK = 1_024  # rows of one matrix product
_EDGES = 50_000  # whose neighbour lists are compared at once: two matrices of k times as many values
_SEED = 1
NEIGHBOURS, TEMPERATURE = 80, 0.5  # as the authors of FC-ES have them


class Peer(NamedTuple):
    """A way to cluster, and the parameters to choose from on the training half."""

    run: Callable[..., Labels]
    grid: Sequence[Mapping[str, float]]
    dense: bool = False  # holds a matrix of all pairs: for galleries of up to 20,000 faces


class Nearest(NamedTuple):
    """Each face's nearest, `(n, k)` both, nearest first: the face itself, then others."""

    faces: NDArray[np.int64]
    cosines: NDArray[np.float32]


def components(vectors: Vectors, threshold: float) -> Labels:
    """Connected components of all pairs of at least this cosine."""
    return connected_components(similar_pairs(vectors, threshold), directed=False)[1].astype(np.int64)


def dbscan(vectors: Vectors, threshold: float, min_samples: int) -> Labels:
    """DBSCAN by scikit-learn on the sparse distances (1 - cosine) of pairs of at least this cosine."""
    from sklearn.cluster import DBSCAN

    distances = similar_pairs(vectors, threshold)
    distances.data = np.maximum(1 - distances.data, 0)
    # The pairs are cut by now, and rounding must not cut one again.
    found = DBSCAN(eps=2.0, min_samples=min_samples, metric="precomputed").fit_predict(distances)
    return alone(found)


def hdbscan(vectors: Vectors, min_samples: int, threshold: float) -> Labels:
    """HDBSCAN by the package of that name on 1 - cosine; no cluster is parted at or above this cosine.

    Not scikit-learn's: with numpy 2.4 it fails (1.9.1) where `cluster_selection_epsilon` is set, which is
    worth 0.02 of F here.
    """
    from hdbscan import HDBSCAN

    distances = np.maximum(1 - vectors @ vectors.T, 0).astype(np.float64)
    np.fill_diagonal(distances, 0)
    method = HDBSCAN(
        min_cluster_size=2,
        min_samples=min_samples,
        cluster_selection_epsilon=float(1 - threshold),
        metric="precomputed",
    )
    return alone(method.fit_predict(distances))


def average_linkage(vectors: Vectors, threshold: float) -> Labels:
    """Average linkage by scipy: merges while the mean cosine of two clusters is at least this."""
    distances = np.maximum(1 - vectors @ vectors.T, 0)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    return fcluster(tree, 1 - threshold, "distance").astype(np.int64)


def chinese_whispers(vectors: Vectors, threshold: float) -> Labels:
    """Chinese whispers (Biemann 2006) by the package of that name; links weigh their cosine."""
    import chinese_whispers as package
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(len(vectors)))
    pairs = similar_pairs(vectors, threshold).tocoo()
    graph.add_weighted_edges_from(
        zip(pairs.row.tolist(), pairs.col.tolist(), pairs.data.tolist(), strict=True)
    )
    package.chinese_whispers(graph, weighting="top", iterations=30, seed=_SEED)
    return np.array([graph.nodes[face]["label"] for face in range(len(vectors))], np.int64)


def infomap(vectors: Vectors, threshold: float) -> Labels:
    """Infomap (Rosvall and Bergstrom 2008), two levels, on the directed graph of the nearest.

    Their number is not tuned: on people of at most 109 images 20, 40 and 80 differ by 0.002 of F, but with
    40 those of 144 and 236 fall apart, which costs 0.06.
    """
    near = nearest(vectors, NEIGHBOURS + 1)
    kept = near.cosines >= threshold
    kept[:, 0] = False
    first = np.repeat(np.arange(len(vectors)), kept.sum(axis=1))
    return _communities(len(vectors), first, near.faces[kept], near.cosines[kept])


def fc_es(vectors: Vectors, floor: float, threshold: float) -> Labels:
    """FC-ES (Liu, arXiv 2408.13431), our own reading of it; no trained edge recall.

    Each face links to its nearest in their order, up to the first one whose second-order similarity is
    below the threshold; Infomap on these directed links, weighted by that similarity. The floor is ours.
    """
    near = nearest(vectors, NEIGHBOURS)
    similarity = second_order(near, floor)[:, 1:]
    kept = np.logical_and.accumulate(similarity >= threshold, axis=1)
    first = np.repeat(np.arange(len(vectors)), kept.sum(axis=1))
    return _communities(len(vectors), first, near.faces[:, 1:][kept], similarity[kept])


def second_order_components(vectors: Vectors, floor: float, threshold: float) -> Labels:
    """Connected components of the nearest whose second-order similarity is at least the threshold."""
    near = nearest(vectors, NEIGHBOURS)
    kept = second_order(near, floor) >= threshold
    first = np.repeat(np.arange(len(vectors)), kept.sum(axis=1))
    links = csr_matrix((np.ones(len(first)), (first, near.faces[kept])), (len(vectors), len(vectors)))
    return connected_components(links, directed=False)[1].astype(np.int64)


def second_order(near: Nearest, floor: float) -> NDArray[np.float64]:
    """Give how far each face's weighted neighbour list overlaps with that of each of its nearest.

    s_ij = 1/2 sum over h in both lists of (p_ih + p_jh), where the list of i holds i itself and those of
    its nearest of a cosine of at least the floor, and p_ih is proportional to
    exp(-min(2 - 2 cosine_ih, 1) / temperature) and sums to 1 over it. 0 to 1, `(n, k)`; 0 below the floor.

    The paper has no floor. Without it the many faces of few images here have lists full of strangers: 0.86
    instead of 0.96 of F.
    """
    count, k = near.faces.shape
    kept = near.cosines >= floor
    kept[:, 0] = True
    weights = np.exp(-np.clip(2 - 2 * near.cosines.astype(np.float64), 0, 1) / TEMPERATURE) * kept
    weights /= weights.sum(axis=1, keepdims=True)
    first, second = np.repeat(np.arange(count), kept.sum(axis=1)), near.faces[kept]
    shares = csr_matrix((weights[kept], (first, second)), (count, count))
    is_near = csr_matrix((np.ones(len(first)), (first, second)), (count, count))
    overlaps = np.empty(len(first))
    for start in range(0, len(first), _EDGES):
        one, other = first[start : start + _EDGES], second[start : start + _EDGES]
        both = shares[one].multiply(is_near[other]).sum(axis=1)
        both += is_near[one].multiply(shares[other]).sum(axis=1)
        overlaps[start : start + _EDGES] = np.asarray(both).ravel() / 2
    found = np.zeros((count, k))
    found[kept] = overlaps
    return found


def similar_pairs(vectors: Vectors, threshold: float) -> csr_matrix:
    """Give the cosines of all pairs of at least the threshold (above 0), both ways, without the diagonal."""
    rows, columns, cosines = [], [], []
    for start, block in _cosine_blocks(vectors):
        block[np.arange(len(block)), start + np.arange(len(block))] = -2
        row, column = np.nonzero(block >= threshold)
        rows.append(row + start)
        columns.append(column)
        cosines.append(block[row, column])
    ends = np.concatenate(rows), np.concatenate(columns)
    found = csr_matrix((np.concatenate(cosines), ends), (len(vectors), len(vectors)))
    return found.minimum(found.T)  # a product's bits depend on its block: a pair counts if both ways do


def nearest(vectors: Vectors, k: int) -> Nearest:
    """Give the k nearest of each face by exact search, the face itself first; k is cut to the gallery."""
    k = min(k, len(vectors))
    faces, cosines = [], []
    for start, block in _cosine_blocks(vectors):
        block[np.arange(len(block)), start + np.arange(len(block))] = 2
        found = np.sort(np.argpartition(-block, k - 1, axis=1)[:, :k], axis=1)
        own = np.take_along_axis(block, found, axis=1)
        order = np.argsort(-own, axis=1, kind="stable")
        faces.append(np.take_along_axis(found, order, axis=1))
        cosines.append(np.take_along_axis(own, order, axis=1))
    return Nearest(np.concatenate(faces), np.minimum(np.concatenate(cosines), 1))


def alone(labels: NDArray[np.integer]) -> Labels:
    """Give each face marked as noise (-1) a cluster of its own."""
    own = labels.astype(np.int64)
    noise = np.flatnonzero(own < 0)
    own[noise] = own.max(initial=-1) + 1 + np.arange(len(noise))
    return own


def _cosine_blocks(vectors: Vectors) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for start in range(0, len(vectors), _BLOCK):
        yield start, vectors[start : start + _BLOCK] @ vectors.T


def _communities(
    count: int, first: NDArray[np.int64], second: NDArray[np.int64], weights: NDArray[np.floating]
) -> Labels:
    """Run Infomap on directed links; faces without a link are alone.

    The answer comes in a file: read from memory it crashed the process once faiss was loaded, as both share
    the iterators of SWIG.
    """
    from infomap import Infomap

    labels = np.full(count, -1, np.int64)
    if len(first):
        method = Infomap(silent=True, two_level=True, directed=True, seed=_SEED)
        method.add_links(list(zip(first.tolist(), second.tolist(), weights.tolist(), strict=True)))
        with tempfile.TemporaryDirectory(prefix="faceclust-infomap-") as folder:
            method.run().write_clu(f"{folder}/found.clu")
            found = np.loadtxt(f"{folder}/found.clu", comments="#", usecols=(0, 1), dtype=np.int64, ndmin=2)
        labels[found[:, 0]] = found[:, 1]
    return alone(labels)


def _grid(**values: Sequence[float]) -> list[dict[str, float]]:
    """Give every combination of the values."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def _steps(first: float, last: float, step: float) -> list[float]:
    return [round(float(value), 4) for value in np.arange(first, last + step / 2, step)]


PEERS: Mapping[str, Peer] = {
    "components": Peer(components, _grid(threshold=_steps(0.3, 0.74, 0.01))),
    "dbscan": Peer(dbscan, _grid(threshold=_steps(0.32, 0.66, 0.01), min_samples=(2, 3))),
    "hdbscan": Peer(hdbscan, _grid(min_samples=(1, 2), threshold=(*_steps(0.36, 0.64, 0.04), 1.0)), True),
    "average_linkage": Peer(average_linkage, _grid(threshold=_steps(0.2, 0.5, 0.01)), True),
    "chinese_whispers": Peer(chinese_whispers, _grid(threshold=_steps(0.36, 0.62, 0.01))),
    "infomap": Peer(infomap, _grid(threshold=_steps(0.34, 0.6, 0.01))),
    "fc_es": Peer(fc_es, _grid(floor=_steps(0.38, 0.54, 0.02), threshold=_steps(0.1, 0.8, 0.1))),
    "second_order": Peer(
        second_order_components, _grid(floor=_steps(0.38, 0.54, 0.02), threshold=_steps(0.3, 0.8, 0.1))
    ),
}
